"""What is to be set up, as options say it, or as it is asked for on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click
from pydantic import SecretStr, ValidationError

from prefect_happyhorse.catalog import GATEWAYS, gateway_facts
from prefect_happyhorse.cli.output import REFUSED, echo, fail
from prefect_happyhorse.domain.settings import current
from prefect_happyhorse.domain.texts import harmless
from prefect_happyhorse.domain.validation import validation_problems
from prefect_happyhorse.engine.http.ssrf import check_base_url
from prefect_happyhorse.engine.storage.store import Store

__all__ = ["Save", "Wishes", "block_problems", "complete"]

Save = Literal["blocks", "env"]


@dataclass
class Wishes:
    """What is to be made, as it is known by now."""

    gateway: str | None
    key_from_env: str | None
    key_stdin: bool
    base_url: str | None
    region: str | None
    workspace: str | None
    account: str | None
    app_id: str | None
    private_network: bool
    store: str | None
    public_base_url: str | None
    save: Save | None
    name: str | None
    store_name: str
    env_file: Path
    limits: bool | None
    jobs: int | None
    automations: bool | None
    pool: str | None
    overwrite: bool
    yes: bool
    key: SecretStr | None = field(default=None, repr=False)

    @property
    def block_name(self) -> str:
        """What the credentials' block is called."""
        return self.name or (self.gateway or "").replace("_", "-")


class _Asker:
    """Asks on a terminal; without one, notes what is missing."""

    def __init__(self, *, may_ask: bool) -> None:
        self.may_ask = may_ask
        self.missing: list[str] = []

    def ask(self, question: str, option: str, check: Callable[[str], object] | None = None, **how: Any) -> Any:
        """The answer, or None where nobody can be asked; the question is put again for as long as `check` raises a ValueError."""
        if self.may_ask:
            # With a default an empty answer is checked as well, where click would ask again without a word.
            how = how if "default" in how else {**how, "default": "", "show_default": False}
            return click.prompt(question, err=True, value_proc=check and partial(_checked, check), **how)
        self.missing.append(option)
        return None


def _checked(check: Callable[[str], object], answer: str) -> str:
    try:
        check(answer)
    except ValidationError as error:
        raise click.UsageError("; ".join(block_problems(error))) from None
    except ValueError as error:
        raise click.UsageError(harmless(str(error))) from None
    return answer


async def complete(wishes: Wishes, *, has_server: bool, may_ask: bool) -> None:
    """Ask for what no option says; without a terminal, refuse with all that is missing."""
    asker = _Asker(may_ask=may_ask)
    gateway = wishes.gateway = wishes.gateway or asker.ask(
        "Gateway", f"--gateway, one of {', '.join(GATEWAYS)}", type=click.Choice(GATEWAYS)
    )
    if may_ask and has_server and wishes.save != "env" and not wishes.overwrite:
        await _tell_of_a_block(wishes)
    if gateway is not None and wishes.base_url is None:
        wishes.base_url = os.environ.get(f"{gateway.upper()}_BASE_URL") or None
        # A region that there is not is told with all else that is wrong.
        facts = gateway_facts(gateway)
        if wishes.base_url is None and facts.base_url is None and facts.address(wishes.region, wishes.workspace) is None:
            wishes.base_url = asker.ask(
                "Base URL, for the gateway's document names none",
                "--base-url, which its document does not name",
                partial(check_base_url, private_network=wishes.private_network),
            )
    _take_key(wishes, asker)
    where = "a folder, or a URL such as s3://bucket/outputs"
    default = Store("outputs").url
    wishes.store = wishes.store or current().store or asker.ask(f"Store: {where}", f"--store, {where}", Store, default=default)
    if asker.missing:
        told = [
            "There is no terminal to ask on, and these are missing. Nothing was changed.",
            *(f"  - {one}" for one in asker.missing),
        ]
        fail("\n".join(told), REFUSED)
    save: Save = "blocks" if has_server else "env"
    if may_ask and wishes.save is None:
        wishes.save = click.prompt("Save as", type=click.Choice(["blocks", "env"]), default=save, err=True)
    wishes.save = wishes.save or save
    if may_ask and has_server:
        await _ask_for_server(wishes)


async def _tell_of_a_block(wishes: Wishes) -> None:
    from prefect_happyhorse.blocks import GatewayCredentials
    from prefect_happyhorse.cli.init.server import block_exists, unreachable

    if await unreachable() is None and await block_exists(GatewayCredentials, name := wishes.block_name):
        way_out = "--overwrite replaces it, --name gives the new one another name, and saved as env it stays"
        echo(f"There is a block {name!r} already: {way_out}. Ctrl-C ends this.", err=True)


async def _ask_for_server(wishes: Wishes) -> None:
    from prefect_happyhorse.cli.init.server import process_pools, unreachable

    if await unreachable() is not None:
        # That is told with all else that is wrong.
        return
    if wishes.limits is None:
        wishes.limits = click.confirm("Limit the account's calls over all workers?", default=False, err=True)
    if wishes.automations is None:
        wishes.automations = click.confirm("Pause a deployment when one of its submits is uncertain?", default=True, err=True)
    if wishes.pool is None and (pools := await process_pools()):
        pool = click.prompt("Deploy the flows to a pool", type=click.Choice([*pools, "none"]), default="none", err=True)
        wishes.pool = None if pool == "none" else pool


def _check_key(key: str) -> None:
    from prefect_happyhorse.blocks import GatewayCredentials

    if not key:
        raise ValueError("must not be empty")
    GatewayCredentials(gateway=next(iter(GATEWAYS)), api_key=SecretStr(key))


def block_problems(error: ValidationError) -> list[str]:
    """What is wrong with a block, as whoever filled it in reads it."""
    return [problem.replace("request: ", "", 1).replace("Value error, ", "", 1) for problem in validation_problems(error)]


def _take_key(wishes: Wishes, asker: _Asker) -> None:
    what = "key" if wishes.app_id is None else "secret key"
    if wishes.key_stdin:
        key = sys.stdin.readline().rstrip("\r\n")
        why = f"a {what}: standard input holds none"
    elif wishes.key_from_env is not None:
        key = os.environ.get(wishes.key_from_env, "")
        why = f"a {what}: the variable {wishes.key_from_env} is not set"
    else:
        key = asker.ask(f"The {what} (it is not shown)", f"a {what}: --key-from-env NAME or --key-stdin", _check_key, hide_input=True)
        why = ""
    wishes.key = SecretStr(key) if key else None
    if not key and why:
        asker.missing.append(why)
