"""`happyhorse preview`: the HTTP call that a request becomes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import SecretStr, ValidationError

from prefect_happyhorse.catalog import GATEWAYS, Route, check, estimate, gateway_facts, resolve, routes
from prefect_happyhorse.cli.docs import assumed, example_request
from prefect_happyhorse.cli.output import REFUSED, asynchronous, echo, fail, json_option
from prefect_happyhorse.domain.requests import REQUEST_CLASSES, GenerationRequest, iter_media, parse_request, replace_media
from prefect_happyhorse.domain.validation import validation_problems
from prefect_happyhorse.engine.http.ssrf import check_base_url
from prefect_happyhorse.engine.inputs.preflight import inspect_media
from prefect_happyhorse.engine.media.source import shown
from prefect_happyhorse.gateways import Account, build_body, form_parts, get_gateway

if TYPE_CHECKING:
    from prefect_happyhorse.cli.schema import Call

__all__ = ["listed", "preview", "read_request"]


@click.command()
@click.argument("request_file", metavar="[REQUEST.json]", required=False, type=click.Path(path_type=Path))
@click.option("--gateway", type=click.Choice(GATEWAYS), help="The gateway.")
@click.option("--example", "capability", type=click.Choice(tuple(REQUEST_CLASSES)), help="Print a request to copy, in place of a call.")
@json_option("Change nothing: it prints JSON anyway.", expose_value=False)
@asynchronous
async def preview(request_file: Path | None, gateway: str | None, capability: str | None) -> None:
    """Show the HTTP call that a request becomes. Nothing is sent and no key is needed."""
    if capability is not None:
        route = next((route for route in routes(gateway) if route.capability == capability), None)
        if route is None:
            fail(f"{gateway} does not offer {capability}. `happyhorse models --capability {capability}` lists who does.", 1)
        click.echo(json.dumps(example_request(route), indent=2))
        return
    missing = [name for name, given in (("REQUEST.json", request_file), ("--gateway", gateway)) if given is None]
    if request_file is None or gateway is None:
        raise click.UsageError(f"Give {' and '.join(missing)}, or --example for a request to copy.")
    request = read_request(request_file)
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


def _call(request: GenerationRequest, route: Route) -> Call:
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


def read_request(path: Path) -> GenerationRequest:
    """The request of a file; the command ends where there is none."""
    try:
        return parse_request(path.read_bytes())
    except ValidationError as error:
        fail(f"{path} is no request:\n{listed(error)}\nNothing was sent.", REFUSED)
    except OSError as error:
        way_out = f"`happyhorse preview --example text_to_video > {path}` writes one"
        fail(f"{path} cannot be read: {error.strerror or error}. {way_out}. Nothing was sent.", REFUSED)


def listed(error: ValidationError) -> str:
    """Each problem in a line of its own."""
    return "\n".join(f"  - {problem}" for problem in validation_problems(error))
