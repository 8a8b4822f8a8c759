"""The task that sums up what was spent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect_happyhorse.artifacts.table import show_table
from prefect_happyhorse.engine.jobs.shared import PROCESS
from prefect_happyhorse.engine.journal.index import contents
from prefect_happyhorse.engine.journal.spend import spend
from prefect_happyhorse.runtime.log import run_logger
from prefect_happyhorse.tasks.dual import dual_task
from prefect_happyhorse.tasks.resolve import StoreRef, store_of

__all__ = ["show_spend"]


@dual_task(name="show-spend", persist_result=False)
async def show_spend(store: StoreRef = None, *, by: Sequence[str] = ("model",)) -> list[dict[str, Any]]:
    """Sum up what the jobs of a journal cost, and show it as a table artifact. Nothing is bought.

    Args:
        store: Where the journal is kept.
        by: What they are grouped by: gateway, account, model, state, day, month, or the name of a label.

    Returns:
        A row for each group: what its jobs have in common, how many they are, what they should cost, what they cost by the seconds that
        the providers counted, the difference of the two, and how many of them have warnings.

    Raises:
        OSError: When the store cannot be read.

    Example:
        ```python
        rows = await show_spend("studio-store", by=["project", "month"])
        ```
    """
    place = await store_of(store)
    found = await contents(PROCESS.journal(place))
    for unreadable in found.unreadable:
        run_logger().error("%s It is left out, and may stand for a paid job.", unreadable.error)
    rows = [{**one.group, **{name: value for name, value in one._asdict().items() if name != "group"}} for one in spend(found.lines, by)]
    await show_table(rows, key=f"spend by {' '.join(by)}", description=f"What the jobs in {place.url} cost")
    return rows
