"""A table of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prefect.artifacts import acreate_table_artifact

from prefect_happyhorse.artifacts.markdown import inline
from prefect_happyhorse.artifacts.run import artifact_key, in_run, never_fatal

__all__ = ["show_table"]


async def show_table(rows: Sequence[Mapping[str, object]], *, key: str, description: str) -> None:
    """Make a table artifact; outside a run nothing is made.

    Args:
        rows: The rows, each with the same columns.
        key: The artifact key.
        description: What the table shows.
    """
    if not in_run():
        return
    with never_fatal(f"The table {key!r}"):
        await acreate_table_artifact(table=[dict(row) for row in rows], key=artifact_key(key), description=inline(description))
