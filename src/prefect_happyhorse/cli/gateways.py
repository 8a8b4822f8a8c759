"""`happyhorse gateways`: which there are, and whether a file makes a good one."""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import get_args

import click
from pydantic import SecretStr
from rich.table import Table

from prefect_happyhorse.catalog import (
    GATEWAYS,
    DialectName,
    GatewayFacts,
    Route,
    find_problems,
    gateway_facts,
    load_gateway,
    register,
    routes,
)
from prefect_happyhorse.catalog.cost import price_of
from prefect_happyhorse.catalog.discovery import SANDBOX_DIALECTS, dialect_names
from prefect_happyhorse.catalog.loader import PROBLEMS
from prefect_happyhorse.cli.docs import example_request
from prefect_happyhorse.cli.output import REFUSED, console, echo, errors, fail, json_option, print_json
from prefect_happyhorse.domain.errors import CatalogError, GenerationError
from prefect_happyhorse.domain.requests import parse_request
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account, build_body, get_gateway

__all__ = ["gateways"]

_TEMPLATES = ("dashscope", "newapi")
_PLACEHOLDERS = {"title": "The title of {}", "source": "Its document, and the page in it", "base_url": "https://{}.example"}
"""What the templates say where only the provider's document knows."""
_EXAMPLES = ("apiyi", "starrise")


@click.group(invoke_without_command=True)
@json_option("Print one JSON document a line, as `happyhorse schema` describes it.")
@click.pass_context
def gateways(context: click.Context, *, as_json: bool) -> None:
    """List the gateways: the package's own, those of files in the folders that HAPPYHORSE_GATEWAYS names, and of other packages."""
    if context.invoked_subcommand is not None:
        return
    table = Table("gateway", "title", "dialect", "routes", "base URL", "source")
    unspoken = _unspoken()
    for name in GATEWAYS:
        facts = gateway_facts(name)
        if as_json:
            row = {"gateway": name, "title": facts.title, "dialect": facts.dialect, "routes": len(routes(name)), "base_url": facts.base_url}
            print_json({**row, "source": facts.source, "dated": facts.dated, "problem": unspoken.get(name)})
        base_url = facts.base_url or f"{name.upper()}_BASE_URL"
        table.add_row(name, facts.title, facts.dialect, str(len(routes(name))), base_url, f"{facts.source}, {facts.dated}")
    if not as_json:
        console().print(table)
    problems = [f"Left out: {problem}" for problem in PROBLEMS] + [f"{name} cannot be used: {why}" for name, why in unspoken.items()]
    for problem in problems:
        echo(problem, err=True)
    if problems:
        fail(f"{len(PROBLEMS)} files of gateways were left out, and {len(problems) - len(PROBLEMS)} gateways cannot be used.", 1)


def _unspoken() -> dict[str, str]:
    """Why gateways cannot be spoken to, by their ids: the dialect that a package brings does not work."""
    found: dict[str, str] = {}
    for name in GATEWAYS:
        try:
            get_gateway(name)
        except CatalogError as error:
            found[name] = str(error)
    return found


@gateways.command()
@click.argument("name")
@click.option("--dialect", type=click.Choice(_TEMPLATES), help="The wire protocol that it speaks; not for an example.")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), default=".", show_default=True, help="Where the file goes.")
@json_option()
def new(name: str, dialect: str | None, folder: Path, *, as_json: bool) -> None:
    """Write a first file of the gateway NAME, to be filled from its provider's document.

    Two are filled already, as examples: apiyi passes DashScope's calls on, and starrise is one in the manner of new-api.
    """
    if re.fullmatch(r"[a-z][a-z0-9_]*", name) is None:
        fail(f"A gateway's name must be lower-case letters, digits and _ (got {name!r}).", REFUSED)
    if name in GATEWAYS:
        fail(f"There is already a gateway {name}.", REFUSED)
    if dialect is None and name not in _EXAMPLES:
        fail(f"--dialect must be one of {', '.join(_TEMPLATES)}, unless NAME is an example: {', '.join(_EXAMPLES)}.", REFUSED)
    place = ("examples", name) if dialect is None else ("templates", dialect)
    text = (files("prefect_happyhorse.catalog") / place[0] / f"{place[1]}.toml").read_text(encoding="utf-8")
    today = datetime.now().astimezone().date().isoformat()
    file = folder / f"{name}.toml"
    if file.exists():
        fail(f"{file} is there already. Fill it, or remove it first.", REFUSED)
    with errors():
        folder.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as target:
            target.write(text.replace("NAME_UPPER", name.upper()).replace("NAME", name).replace("DATE", today))
    if as_json:
        print_json({"file": file})
    else:
        echo(f"{file}")
    first = "Compare it with" if dialect is None else "Fill it from"
    echo(f"{first} the provider's document, then `happyhorse gateways check {file}`.", err=True)


@gateways.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option()
def check(file: Path, *, as_json: bool) -> None:
    """Hold FILE to what every gateway has to do: its data, the body of each route, and a job of each capability on the sandbox."""
    with errors():
        facts, found = load_gateway(file.read_text(encoding="utf-8"), origin=str(file))
        register(file)
        get_gateway(facts.gateway)
    problems: list[str] = []
    for route in found:
        wrong = _problems(route)
        problems += [f"{route.capability} of {route.model}: {problem}" for problem in wrong]
        echo(f"{route.capability} of {route.model}: {'its body is wrong' if wrong else 'body'}", err=as_json)
    first = {route.capability: route for route in reversed(found)}
    emulated = facts.dialect in {*get_args(DialectName), *dialect_names(SANDBOX_DIALECTS)}
    if not emulated:
        echo(f"No job was run: no package says how the sandbox speaks {facts.dialect} (entry point {SANDBOX_DIALECTS}).", err=as_json)
    elif not problems:
        problems += [problem for route in first.values() for problem in asyncio.run(_ran(route, tell=partial(echo, err=as_json)))]
    for field, text in _PLACEHOLDERS.items():
        if getattr(facts, field) == (placeholder := text.format(facts.gateway)):
            problems.append(f"{field} is not filled: it is {placeholder!r}, as `happyhorse gateways new` wrote it.")
    advice = list(_advice(facts, found))
    for sentence in advice:
        echo(f"Not said: {sentence}", err=as_json)
    if as_json:
        print_json({"file": file, "gateway": facts.gateway, "problems": problems, "advice": advice})
    for problem in problems:
        echo(problem, err=True)
    if problems:
        fail(f"{file} is not right yet: {len(problems)} problems.", 1)
    key = f"{facts.gateway.upper()}_API_KEY"
    echo(f"{file} is right. Put it into a folder that HAPPYHORSE_GATEWAYS names, and the key into {key}.", err=as_json)


def _problems(route: Route) -> list[str]:
    request = parse_request(example_request(route))
    problems = list(find_problems(request, route))
    if not problems:
        json.dumps(build_body(request, route))
    return problems


async def _ran(route: Route, *, tell: Callable[[str], None]) -> list[str]:
    """What goes wrong when a job runs on the sandbox, which serves the very same file."""
    # An extra of the package, and slow to import.
    from prefect_happyhorse.cli.samples import with_samples
    from prefect_happyhorse.sandbox import SandboxServer, SandboxSettings

    name = route.gateway
    with SandboxServer(SandboxSettings(job_s=0, media="tiny", check_inputs="never")) as server, tempfile.TemporaryDirectory() as folder:
        token = {"app_id": "check", "secret_key": SecretStr("check-secret")} if route.facts.token else {"key": SecretStr("check-key")}
        account = Account(gateway=name, base_url=server.base_url(name), label="check", **token)  # pyright: ignore[reportArgumentType]
        session = Session(account, Store(url=folder))
        try:
            prepared = await session.prepare(await with_samples(parse_request(example_request(route)), route, Path(folder)))
            job = (await session.submit(prepared)).job
            asset = (await session.store_outputs(await session.poll(job, deadline_s=60))).asset
        except (GenerationError, OSError) as error:
            return [f"{route.capability} of {route.model}: a job on the sandbox ended with {type(error).__name__}: {error}"]
    tell(f"{route.capability} of {route.model}: submitted, polled, stored ({asset.bytes:,} bytes, {asset.media_type})")
    return []


def _advice(facts: GatewayFacts, found: tuple[Route, ...]) -> Iterator[str]:
    """What a file may leave out, and what that means."""
    if not facts.codes:
        yield "what its error codes mean ([gateway.codes]); a refusal is read from its HTTP status alone."
    if facts.base_url is None:
        yield f"its address (base_url); {facts.gateway.upper()}_BASE_URL has to give it."
    if facts.polls_per_s is None:
        yield "how often it may be polled (polls_per_s); calls begin without a limit, and are halved when one is refused."
    if facts.task_ttl_s is None or facts.result_ttl_s is None:
        yield "how long a job and its result live (task_ttl_s, result_ttl_s); nobody can be warned before they end."
    if facts.cancel is None:
        yield "how a job is cancelled (cancel); a cancelled run stops asking, and its jobs go on."
    if unpriced := [route.model for route in found if not price_of(route)]:
        yield f"what {', '.join(dict.fromkeys(unpriced))} cost; a budget refuses them until {facts.gateway.upper()}_PRICES says so."
