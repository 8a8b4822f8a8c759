"""`happyhorse metrics`: how the jobs of a journal stand, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import TYPE_CHECKING

import click
from anyio import to_thread

from prefect_happyhorse.cli.jobs import STORE_OPTIONS, find_journal
from prefect_happyhorse.cli.output import asynchronous, echo
from prefect_happyhorse.engine.journal.index import Line, contents
from prefect_happyhorse.engine.journal.journal import OPEN_STATES

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["metrics"]


@click.command("metrics", params=[*STORE_OPTIONS])
@click.option(
    "--output",
    type=click.Path(dir_okay=False),
    help="A file to write, at once as a whole, such as one for a textfile collector. By default standard output.",
)
@asynchronous
async def metrics(store: str, *, block: str | None, output: str | None) -> None:
    """Write which jobs of a journal are open, what they cost, and what cannot be read, in Prometheus's text format."""
    from prometheus_client import generate_latest, write_to_textfile

    found = await contents(await find_journal(store, block))
    for one in found.unreadable:
        echo(str(one.error), err=True)
    registry = _gauges(found.lines, len(found.unreadable))
    if output is None:
        echo(generate_latest(registry).decode().rstrip())
    else:
        await to_thread.run_sync(write_to_textfile, output, registry)


def _gauges(lines: Iterable[Line], unreadable: int) -> CollectorRegistry:
    from prometheus_client import CollectorRegistry, Gauge

    registry = CollectorRegistry()

    def gauge(name: str, told: str, *labels: str) -> Gauge:
        return Gauge(f"happyhorse_{name}", told, labels, registry=registry)

    jobs = gauge("open_jobs", "Jobs on which money is or may be spent, and of which no file is kept yet.", "gateway", "state")
    oldest = gauge("oldest_open_job_timestamp_seconds", "When the submit of the oldest open job was begun.", "gateway")
    estimated = gauge("estimated_cost", "What the jobs of the journal should cost, where a price is known.", "gateway", "currency")
    billed = gauge("billed_cost", "What those cost of which the provider counted the seconds.", "gateway", "currency")
    unpriced = gauge("unpriced_jobs", "Jobs of which nobody knows what they cost.", "gateway")
    gauge("unreadable_journal_files", "Files of the journal that cannot be read, each of which may stand for a paid job.").set(unreadable)
    by_gateway: dict[str, list[Line]] = {}
    for line in lines:
        by_gateway.setdefault(line.gateway, []).append(line)
    for gateway, state in product(by_gateway, OPEN_STATES):
        jobs.labels(gateway, state).set(sum(line.state == state for line in by_gateway[gateway]))
    for gateway, of_it in by_gateway.items():
        if begun := [line.begun_at.timestamp() for line in of_it if line.is_open]:
            oldest.labels(gateway).set(min(begun))
        unpriced.labels(gateway).set(sum(line.cost is None for line in of_it))
        for line in of_it:
            if line.currency is not None:
                estimated.labels(gateway, line.currency).inc(float(line.cost or 0))
                if line.billed is not None:
                    billed.labels(gateway, line.currency).inc(float(line.billed))
    return registry
