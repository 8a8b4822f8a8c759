"""`happyhorse doctor`: everything is asked side by side, and told in a line each."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine
from typing import Any

import click

from prefect_happyhorse.cli.doctor.findings import Finding, ok, problem, warning
from prefect_happyhorse.cli.output import Seconds, echo, json_option, print_json
from prefect_happyhorse.cli.prices import old_prices
from prefect_happyhorse.domain.settings import current

__all__ = ["doctor"]

_Checks = dict[str, Coroutine[Any, Any, list[Finding]]]


@click.command()
@click.option("--store", metavar="URL", help="The folder or fsspec URL of the store.  [default: what is set, else outputs]")
@click.option("--block", metavar="NAME", help="The saved MediaStore block of the store, in place of --store.")
@click.option(
    "--credentials",
    multiple=True,
    metavar="NAME",
    help="A saved GatewayCredentials block, or a gateway; may be repeated.  [default: the gateways with a key in the environment]",
)
@click.option(
    "--timeout", "timeout_s", default=15.0, show_default=True, type=Seconds(min=1), help="How long to wait for all answers, in seconds."
)
@json_option("Print one JSON document a line, as `happyhorse schema` describes it.")
def doctor(store: str | None, block: str | None, credentials: tuple[str, ...], timeout_s: float, as_json: bool) -> None:
    """Say whether a run would work, and what to do where it would not. Nothing is bought.

    A line each: ok, warning or problem. The code is 1 where there is a problem. A key is tried by asking for a job that is not there, which
    is free; a store by a small file, which is removed.
    """
    try:
        current()
    except ValueError as error:
        advice = "Correct it and ask again: of all else nothing is known. `happyhorse settings` lists what there is."
        _tell([problem("settings", str(error), advice)], as_json=as_json)
        sys.exit(1)
    sys.exit(asyncio.run(_look(store, block, credentials, timeout_s, as_json=as_json)))


async def _look(store: str | None, block: str | None, credentials: tuple[str, ...], timeout_s: float, *, as_json: bool) -> int:
    """Tell everything; the code with which the command ends."""
    # With them comes Prefect, which takes a second or two.
    from prefect_happyhorse.cli.doctor.gateways import check_gateway, check_network, configured
    from prefect_happyhorse.cli.doctor.places import check_home, check_journal, check_store
    from prefect_happyhorse.cli.doctor.server import check_prefect

    names = credentials or tuple(configured())
    call_s = timeout_s * 0.8
    checks: _Checks = {"network": check_network()}
    checks |= {name: check_gateway(name, call_s=call_s) for name in dict.fromkeys(names)}
    if not names:
        checks["gateways"] = _no_gateway()
    checks["store"] = check_store(store, block, call_s=call_s)
    checks["spool"] = check_home(store, block)
    checks["journal"] = check_journal(store, block)
    checks["prefect"] = check_prefect()
    checks["prices"] = _prices()
    tasks = [asyncio.create_task(_safely(name, check), name=name) for name, check in checks.items()]
    _, late = await asyncio.wait(tasks, timeout=timeout_s)
    found = [one for task in tasks for one in ([_no_answer(task.get_name(), timeout_s)] if task in late else task.result())]
    _tell(found, as_json=as_json)
    code = 1 if any(one.level == "problem" for one in found) else 0
    if late:
        sys.stdout.flush()
        sys.stderr.flush()
        # Python would wait for a thread inside of an object store's client, which nothing else stops.
        os._exit(code)
    return code


async def _safely(name: str, check: Coroutine[Any, Any, list[Finding]]) -> list[Finding]:
    try:
        return await check
    except Exception as error:  # noqa: BLE001 -- a check that breaks is itself what somebody has to hear, and the others go on
        return [
            problem(name, f"could not be looked at: {type(error).__name__}: {error}", "Report it, where it is no fault of the network.")
        ]


def _no_answer(name: str, timeout_s: float) -> Finding:
    return problem(
        name, f"no answer came within {timeout_s:g} s, so nothing is known of it", "Check the network, or ask with a longer --timeout."
    )


async def _no_gateway() -> list[Finding]:
    advice = "`happyhorse init` saves one; or name a saved block by --credentials, or set <GATEWAY>_API_KEY."
    return [problem("gateways", "none has a key in the environment, and no block is named", advice)]


async def _prices() -> list[Finding]:
    old, days = old_prices()
    if old:
        return [warning("prices", f"{len(old)} are more than {days} days old, as {old[0]}", "`happyhorse prices check` lists them.")]
    return [ok("prices", f"none is more than {days} days old")]


def _tell(found: list[Finding], *, as_json: bool) -> None:
    for one in found:
        if as_json:
            print_json(one._asdict())
        else:
            echo(f"{one.level:8} " + " ".join(f"{one.check}: {one.what.rstrip('.')}. {one.advice}".split()))
    counts = {level: sum(one.level == level for one in found) for level in ("problem", "warning")}
    echo(", ".join(f"{count} {level}{'' if count == 1 else 's'}" for level, count in counts.items()) + ".", err=True)
