"""The command `happyhorse`: see what there is, what would be sent, make one thing, and play against the sandbox.

Exit codes: 0 done; 1 failed; 2 refused, and nothing was sent; 3 failed, and money was or may have been spent.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any, Literal

import click
from pydantic import SecretStr, ValidationError
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from prefect_happyhorse.catalog import GATEWAYS, Route, check, estimate, find_route, gateway_facts, resolve, routes
from prefect_happyhorse.cli.docs import assumed, costly_defaults, example_request, gateways_page, routes_table
from prefect_happyhorse.cli.doctor.command import doctor
from prefect_happyhorse.cli.export import export
from prefect_happyhorse.cli.gallery import gallery
from prefect_happyhorse.cli.gateways import gateways
from prefect_happyhorse.cli.init.command import init
from prefect_happyhorse.cli.jobs import jobs
from prefect_happyhorse.cli.output import REFUSED, SPENT, Seconds, asynchronous, cell, console, deadline_option, echo, errors, fail
from prefect_happyhorse.cli.prices import prices
from prefect_happyhorse.cli.settings import settings, use_settings
from prefect_happyhorse.cli.setup import setup
from prefect_happyhorse.cli.spend import spent
from prefect_happyhorse.domain.errors import AuthenticationFailed
from prefect_happyhorse.domain.jobs import Job, JobSnapshot
from prefect_happyhorse.domain.requests import REQUEST_CLASSES, GenerationRequest, iter_media, parse_request, replace_media
from prefect_happyhorse.domain.validation import validation_problems
from prefect_happyhorse.engine.http.ssrf import check_base_url
from prefect_happyhorse.engine.inputs.preflight import inspect_media
from prefect_happyhorse.engine.jobs.failover import Pool
from prefect_happyhorse.engine.jobs.prepare import Prepared
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.submit import Submitted, Turn
from prefect_happyhorse.engine.media.source import shown
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account, build_body, form_parts, get_gateway

__all__ = ["main"]


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done; 1 failed; 2 refused, nothing was sent; 3 failed, and money was or may have been spent.",
)
@click.version_option(package_name="prefect-happyhorse")
@click.pass_context
def main(context: click.Context) -> None:
    """Make images and videos with HappyHorse and its neighbours through several gateways."""
    try:
        use_settings()
    except ValueError as error:
        # The doctor says so itself, and what else there is to say.
        if context.invoked_subcommand != "doctor":
            fail(str(error), REFUSED)


@main.command()
@click.option("--gateway", type=click.Choice(GATEWAYS), help="Only this gateway.")
@click.option("--capability", help="Only this capability, for example reference_to_video.")
@click.option("--model", help="Only models whose name contains this.")
@click.option("--json", "shape", flag_value="json", help="One JSON object a line, with every field and limit.")
@click.option("--markdown", "shape", flag_value="markdown", help="A markdown table, as it stands in the README.")
@click.option("--page", "shape", flag_value="page", help="The page docs/gateways.md.")
def models(gateway: str | None, capability: str | None, model: str | None, shape: str | None) -> None:
    """List the routes: which gateway offers which capability of which model."""
    found = [
        route
        for route in routes(gateway)
        if (capability is None or route.capability == capability) and (model is None or model.lower() in route.model.lower())
    ]
    if not found:
        fail("No route fits. `happyhorse models` without filters lists all.", 1)
    if shape == "json":
        for route in found:
            click.echo(route.model_dump_json(by_alias=True, exclude_defaults=True))
    elif shape == "markdown":
        click.echo(routes_table(found))
    elif shape == "page":
        click.echo(gateways_page(), nl=False)
    else:
        table = Table("gateway", "capability", "model", "takes", "options", "if not said", title=f"{len(found)} routes")
        for route in found:
            takes = (f"{name}*" if name in route.required_fields else name for name in sorted(route.request_fields - {"model"}))
            options = ", ".join(sorted(route.options))
            table.add_row(route.gateway, route.capability, route.model, ", ".join(takes), options, costly_defaults(route))
        console().print(table)


@main.command()
@click.argument("request_file", metavar="[REQUEST.json]", required=False, type=click.Path(path_type=Path))
@click.option("--gateway", type=click.Choice(GATEWAYS), help="The gateway.")
@click.option("--example", "capability", type=click.Choice(tuple(REQUEST_CLASSES)), help="Print a request to copy, in place of a call.")
@asynchronous
async def preview(request_file: Path | None, gateway: str | None, capability: str | None) -> None:
    """Show the HTTP call that a request becomes. Nothing is sent and no key is needed."""
    if capability is not None:
        route = next((route for route in routes(gateway) if route.capability == capability), None)
        if route is None:
            fail(f"{gateway} does not offer {capability}. `happyhorse models --capability {capability}` lists who does.", 1)
        click.echo(json.dumps(example_request(route), indent=2))
        return
    if request_file is None or gateway is None:
        raise click.UsageError("Give REQUEST.json and --gateway, or --example for a request to copy.")
    request = _read_request(request_file)
    route = resolve(request, gateway)
    inspection = await inspect_media(request, route)
    check(request, route, more=inspection.problems)
    click.echo(json.dumps(_call(request, route), indent=2, ensure_ascii=False))
    if left := _left_to_the_provider(request, route):
        echo(f"Left to the provider, as its document has it: {', '.join(left)}.", err=True)
    for sentence in inspection.advice:
        echo(f"Not as the provider advises, which is no limit: {sentence}", err=True)
    echo(f"It costs {estimate(request, gateway)}.", err=True)
    if not _base_url(gateway):
        regions = gateway_facts(gateway).regions
        which = f", or {gateway.upper()}_REGION to one of {', '.join(regions)}, some of which need _WORKSPACE too" if regions else ""
        echo(f"It has no address as it is set up: set {gateway.upper()}_BASE_URL{which}.", err=True)


def _left_to_the_provider(request: GenerationRequest, route: Route) -> list[str]:
    """What a request does not say and the provider decides, some of which costs or shows."""
    given = request.model_dump(exclude_none=True)
    said = {*given, *(f"options.{name}" for name in request.options)}
    return [f"{name}={value}" for name, value in assumed(route).items() if name not in said]


def _base_url(gateway: str) -> str | None:
    given = os.environ.get(f"{gateway.upper()}_BASE_URL")
    if given:
        try:
            # Whether its network is private is for whoever sends something: here it is only shown, and may hold a password.
            check_base_url(given, private_network=True)
        except ValueError as error:
            fail(f"{gateway.upper()}_BASE_URL {error}. Nothing was sent.", REFUSED)
    region, workspace = (os.environ.get(f"{gateway.upper()}_{name}") for name in ("REGION", "WORKSPACE"))
    return given or gateway_facts(gateway).address(region, workspace)


def _call(request: GenerationRequest, route: Route) -> dict[str, Any]:
    """The HTTP call of a request, without its key."""
    protocol = get_gateway(route.gateway)
    base_url = _base_url(route.gateway) or f"https://{route.gateway}-base-url"
    media = {(name, position): medium for name, position, medium in iter_media(request)}
    addressed = replace_media(request, {at: m if isinstance(m, str) else m.url or m.uri for at, m in media.items()})
    # What is sent as a file is read just before, so that here nothing stands for it.
    sent = replace_media(addressed, {at: "data:image/png;base64,AA==" for at in media if at[0] in route.file_fields})
    call = protocol.submit_request(sent, route, Account(gateway=route.gateway, base_url=base_url.rstrip("/")))
    before = set(call.headers)
    protocol.sign(call, SecretStr("***"))
    body: dict[str, Any] = build_body(addressed, route)
    if route.encoding == "multipart":
        texts = {name: f"(file: {shown(value)})" if name in route.file_parts else value for name, value in body.items()}
        body = {name: part[1] for name, part in form_parts(texts).items()}
    headers = {name: value for name, value in call.headers.items() if name not in before or name in {"content-type", "x-dashscope-async"}}
    if "content-type" in headers:
        # The boundary differs at every call and says nothing.
        headers["content-type"] = headers["content-type"].partition(";")[0]
    return {"method": call.method, "url": str(call.url), "headers": headers, "body": body}


@main.command()
@click.argument("request_file", metavar="REQUEST.json", type=click.Path(path_type=Path))
@click.option(
    "--gateway",
    "gateways",
    type=click.Choice(GATEWAYS),
    required=True,
    multiple=True,
    help="The gateway; given again, the next one, asked only when the one before certainly bought nothing.",
)
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="The folder for the file and the journal.")
@click.option("--take", default=1, show_default=True, help="Another number makes another variation of the very same request.")
@deadline_option("How long the job may take, in seconds.")
@asynchronous
async def generate(request_file: Path, gateways: tuple[str, ...], output: Path, take: int, deadline_s: float) -> None:
    """Make what a request asks for, and print where the file lies.

    The key is read from <GATEWAY>_API_KEY and the address from <GATEWAY>_BASE_URL. Running it again gives the same file and buys nothing.
    """
    request = _read_request(request_file)
    sessions = [Session(_account(gateway), Store(url=str(output))) for gateway in gateways]
    pool = Pool(sessions, tell=lambda sentence: echo(sentence, err=True)) if len(sessions) > 1 else None
    asked: list[str] = []

    async def submit(session: Session, prepared: Prepared, turn: Turn | None = None) -> Submitted:
        asked.append(prepared.digest)
        return await session.submit(prepared, turn=turn)

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), transient=not sys.stderr.isatty()) as progress:
        bar = progress.add_task("submit", total=100, said="")

        async def on_poll(job: Job, state: JobSnapshot, elapsed_s: float) -> None:
            estimate = min(elapsed_s / find_route(job.gateway, job.capability, job.model).typical_s, 0.95)
            share = estimate if state.progress is None else state.progress
            said = f"{cell(state.provider_status or state.status.value)}{'' if state.progress is not None else ' (estimate)'}"
            progress.update(bar, completed=100 * share, said=said)

        try:
            if pool is not None:
                job = (await pool.submit(await pool.prepare(request, take=take), submit)).job
            else:
                job = (await submit(sessions[0], await sessions[0].prepare(request, take=take))).job
            session = sessions[0] if pool is None else pool.of(job)
            progress.update(bar, description=cell(f"{job.model} {job.task_id}"))
            result = await session.poll(job, deadline_s=deadline_s, on_poll=on_poll)
            progress.update(bar, completed=100, said="downloading")
            asset = (await session.store_outputs(result)).asset
        except asyncio.CancelledError:
            for digest in reversed(asked):
                await _tell_what_is_bought(sessions[0], digest)
            raise
    for one in (asset, *asset.siblings):
        echo(one.uri.removeprefix("file://"))


def _account(gateway: str) -> Account:
    """Who pays, by the environment."""
    from prefect_happyhorse.blocks import GatewayCredentials

    try:
        return GatewayCredentials.from_environment(gateway).to_account()
    except ValidationError as error:
        fail(f"The environment's credentials are wrong. Nothing was sent.\n{_listed(error)}", REFUSED)
    except (AuthenticationFailed, ValueError, OSError) as error:
        fail(f"The environment's credentials cannot be used. Nothing was sent.\n  - {error}", REFUSED)


def _listed(error: ValidationError) -> str:
    return "\n".join(f"  - {problem}" for problem in validation_problems(error))


async def _tell_what_is_bought(session: Session, digest: str) -> None:
    """End a command that is interrupted, unless nothing is bought for its request."""
    entry = await session.journal.latest(digest)
    if entry is None or not entry.is_open:
        return
    bought = (
        "a submit that may have been accepted" if entry.job is None else f"job {entry.job.task_id} of {entry.gateway}, which is paid for"
    )
    fail(f"Interrupted while waiting for {bought}. happyhorse jobs --store {shlex.quote(session.store.url)} show {digest[:12]}", SPENT)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8808, show_default=True, type=click.IntRange(1, 65_535), help="The port to listen on.")
@click.option("--job-s", default=2.0, show_default=True, type=Seconds(min=0), help="How long a job takes, in seconds.")
@click.option(
    "--media",
    type=click.Choice(["full", "tiny"]),
    default="full",
    show_default=True,
    help="Pictures that show the request, or plain small ones.",
)
def sandbox(host: str, port: int, job_s: float, media: Literal["full", "tiny"]) -> None:
    """Serve every gateway on this machine, for free: real answers, real files, and a ledger of what was charged."""
    try:
        from prefect_happyhorse.sandbox.http.server import serve
        from prefect_happyhorse.sandbox.jobs.settings import SandboxSettings
    except ImportError as error:
        fail(f"The sandbox needs more: pip install 'prefect-happyhorse[sandbox]' ({error}).", 1)
    out = console()
    out.print("Point a gateway at the sandbox with any key:")
    for name in GATEWAYS:
        out.print(f"  export {name.upper()}_BASE_URL=http://{host}:{port}/{name} {name.upper()}_API_KEY=sandbox", soft_wrap=True)
    out.print(f"Jobs, pictures and ledger: http://{host}:{port}/_sandbox/", soft_wrap=True)
    serve(host, port, SandboxSettings(job_s=job_s, media=media))


@main.command()
@click.option(
    "--output",
    default=Path("outputs"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder for the files.",
)
def demo(output: Path) -> None:
    """Run the flow image_to_video_edit against the sandbox: no account, no server, no cost."""
    from prefect_happyhorse.cli.demo import run_demo

    with errors():
        run_demo(output, console())


def _read_request(path: Path) -> GenerationRequest:
    try:
        return parse_request(path.read_bytes())
    except ValidationError as error:
        fail(f"{path} is no request:\n{_listed(error)}\nNothing was sent.", REFUSED)
    except OSError as error:
        way_out = f"`happyhorse preview --example text_to_video > {path}` writes one"
        fail(f"{path} cannot be read: {error.strerror or error}. {way_out}. Nothing was sent.", REFUSED)


main.add_command(doctor)
main.add_command(export)
main.add_command(gallery)
main.add_command(gateways)
main.add_command(init)
main.add_command(jobs)
main.add_command(prices)
main.add_command(spent)
main.add_command(settings)
main.add_command(setup)
