"""`happyhorse schema`: the documents that commands print with `--json`."""

from __future__ import annotations

import json
from typing import Any, Literal

import click
from pydantic import ConfigDict, TypeAdapter, with_config

# Before Python 3.12 pydantic reads no other.
from typing_extensions import NotRequired, TypedDict

from prefect_happyhorse.catalog import Route
from prefect_happyhorse.cli.output import json_option
from prefect_happyhorse.datasets.export import Export
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.prices import Price
from prefect_happyhorse.domain.requests import GenerationRequest
from prefect_happyhorse.engine.journal.entry import JournalEntry

__all__ = [
    "LINES",
    "SCHEMAS",
    "Call",
    "Cancelled",
    "Checked",
    "Demo",
    "ExportedGallery",
    "Forgotten",
    "Found",
    "GatewayRow",
    "Made",
    "OldPrices",
    "Resumed",
    "ServedGallery",
    "ServedSandbox",
    "SetUp",
    "Setting",
    "Spent",
    "Written",
    "schema",
]


class Call(TypedDict):
    """An HTTP call, without its key."""

    method: str
    url: str
    headers: dict[str, str]
    body: dict[str, Any]


class Cancelled(TypedDict):
    """What a gateway says to a cancel."""

    name: str
    accepted: bool
    message: str


class Checked(TypedDict):
    """A gateway's file, held to what it has to do; `advice` is what it leaves unsaid."""

    file: str
    gateway: str
    problems: list[str]
    advice: list[str]


class Demo(TypedDict):
    """What the demo made, by step, and how many jobs the sandbox charged."""

    charged: int
    assets: dict[str, MediaAsset]
    prefect_home: str


class ExportedGallery(TypedDict):
    """A gallery that was written as plain files."""

    page: str
    jobs: int
    copied: int
    linked: int
    unlinked: int
    problems: list[str]


class Forgotten(TypedDict):
    """A request that may be bought again, or a file of the journal that was moved away."""

    name: str
    digest: NotRequired[str]
    moved_to: NotRequired[str]


class Found(TypedDict):
    """What the doctor found."""

    level: Literal["ok", "warning", "problem"]
    check: str
    what: str
    advice: str


class GatewayRow(TypedDict):
    """A gateway; `problem` says why it cannot be used."""

    gateway: str
    title: str
    dialect: str
    routes: int
    base_url: NotRequired[str]
    source: str
    dated: str
    problem: NotRequired[str]


class Made(TypedDict):
    """What was made on the Prefect server, by name."""

    limits: NotRequired[list[str]]
    automations: NotRequired[list[str]]


class OldPrices(TypedDict):
    """Prices that were read more than so many days ago."""

    days: int
    old: list[str]


class Resumed(TypedDict):
    """A job that was waited for, and its files or why there are none."""

    digest: str
    assets: list[MediaAsset]
    failure: NotRequired[str]


class ServedGallery(TypedDict):
    """A gallery that is served."""

    url: str


class ServedSandbox(TypedDict):
    """A sandbox that is served, and the base URL of each gateway there."""

    url: str
    gateways: dict[str, str]


class SetUp(TypedDict):
    """What `init` made."""

    saved: Literal["blocks", "env"]
    blocks: list[str]
    env_file: NotRequired[str]
    limits: list[str]
    automations: list[str]
    deployments: list[str]


class Setting(TypedDict):
    """A setting as it is now; without `value` where nothing is set."""

    setting: str
    variable: str
    value: NotRequired[str | float | bool]
    default: bool


@with_config(ConfigDict(extra="allow"))
class Spent(TypedDict):
    """What a group of jobs should cost and did; what they have in common stands beside it, by the names of `--by`."""

    jobs: int
    estimated: str
    billed: str
    difference: str
    warned: int


class Written(TypedDict):
    """A file that was written."""

    file: str


SCHEMAS: dict[str, Any] = {
    "demo": Demo,
    "doctor": Found,
    "export": Export,
    "gallery": ServedGallery | ExportedGallery,
    "gateways": GatewayRow,
    "gateways check": Checked,
    "gateways new": Written,
    "generate": MediaAsset,
    "init": SetUp,
    "jobs adopt": JournalEntry,
    "jobs cancel": Cancelled,
    "jobs forget": Forgotten,
    "jobs list": JournalEntry,
    "jobs resume": Resumed,
    "jobs show": JournalEntry,
    "models": Route,
    "preview": Call | GenerationRequest,
    "prices": Price,
    "prices check": OldPrices,
    "sandbox": ServedSandbox,
    "schema": dict[str, Any],
    "settings": Setting,
    "setup automations": Made,
    "setup limits": Made,
    "spend": Spent,
}
"""What each command prints with `--json`."""

LINES = {"doctor", "gateways", "jobs cancel", "jobs forget", "jobs list", "jobs resume", "models", "prices", "settings", "spend"}
"""The commands that print such a document a line; each other prints one."""


@click.command()
@click.argument("command", nargs=-1)
@json_option("Change nothing: it prints JSON anyway.", expose_value=False)
def schema(command: tuple[str, ...]) -> None:
    """Describe the JSON that a command prints with --json, as a JSON schema; without COMMAND those of all, by their names.

    A list is printed as one document a line, and the schema is that of a line. A later version may add fields, and takes none away.
    """
    name = " ".join(command)
    if name and name not in SCHEMAS:
        raise click.BadParameter(f"must be one of {', '.join(SCHEMAS)} (got {name!r})", param_hint="COMMAND")
    found = {one: TypeAdapter(kind).json_schema(mode="serialization") for one, kind in SCHEMAS.items() if name in {"", one}}
    click.echo(json.dumps(found[name] if name else found, indent=2))
