"""How far many rows are."""

from __future__ import annotations

import time
from collections import Counter
from uuid import UUID

from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact

from prefect_happyhorse.artifacts.markdown import inline
from prefect_happyhorse.artifacts.run import artifact_key, in_run, never_fatal
from prefect_happyhorse.domain.prices import Estimate, total
from prefect_happyhorse.domain.rows import RowResult, RowState

__all__ = ["Tally"]

_EVERY_S = 5.0
_ENDED: tuple[RowState, ...] = ("kept", "failed", "uncertain")


class Tally:
    """One progress artifact for many rows: how many are at each state, and what those kept should cost. Outside a run nothing is made.

    Args:
        title: What the rows are.
        rows: How many there are.
        goal: The state at which a row has come as far as it should.
    """

    def __init__(self, title: str, rows: int, *, goal: RowState) -> None:
        self._title = title
        self._rows = rows
        self._ended = {goal, *_ENDED}
        self._states: Counter[RowState] = Counter()
        self._last: dict[int, RowState] = {}
        self._costs: Counter[Estimate | None] = Counter()
        self._artifact: UUID | None = None
        self._shown_at = float("-inf")

    def __str__(self) -> str:
        states = ", ".join(f"{count} {state}" for state, count in sorted(self._states.items()) if count)
        cost = f"; estimated cost of those kept: {total(self._costs.elements())}" if self._costs else ""
        return f"{self._title}: {states or 'nothing yet'} of {self._rows}{cost}"

    async def count(self, row: RowResult) -> None:
        """Count a row at its state, and update the artifact unless that was just done.

        Args:
            row: The row.
        """
        if (before := self._last.get(row.row)) == row.state:
            return
        if before is not None:
            self._states[before] -= 1
        self._last[row.row] = row.state
        self._states[row.state] += 1
        if row.state == "kept" and row.asset is not None:
            self._costs[row.asset.estimate] += 1
        if time.monotonic() - self._shown_at >= _EVERY_S:
            await self.show()

    async def show(self) -> None:
        """Show how far the rows are now."""
        if not in_run():
            return
        self._shown_at = time.monotonic()
        ended = sum(count for state, count in self._states.items() if state in self._ended)
        percent = 100.0 * ended / max(self._rows, 1)
        with never_fatal(f"The progress of {self._title!r}"):
            if self._artifact is None:
                key = artifact_key("progress", self._title)
                self._artifact = await acreate_progress_artifact(progress=percent, key=key, description=inline(self))
            else:
                await aupdate_progress_artifact(self._artifact, progress=percent, description=inline(self))
