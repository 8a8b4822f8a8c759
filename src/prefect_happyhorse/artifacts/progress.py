"""How far a job is."""

from __future__ import annotations

import threading
import time
from uuid import UUID

from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact

from prefect_happyhorse.artifacts.markdown import inline
from prefect_happyhorse.artifacts.run import artifact_key, in_run, never_fatal
from prefect_happyhorse.catalog import find_route
from prefect_happyhorse.domain.jobs import Job, JobSnapshot

__all__ = ["Progress"]

_PROGRESS_EVERY_S = 4.0


class _Throttle:
    """Lets so many updates a second through and drops the rest: a thousand jobs must not keep the server from its own work."""

    def __init__(self, per_s: float) -> None:
        self._gap_s = 1.0 / per_s
        self._next = float("-inf")
        self._lock = threading.Lock()

    def passes(self) -> bool:
        with self._lock:
            now = time.monotonic()
            # What a quiet second left over may be used at once.
            if now < self._next - 1.0:
                return False
            self._next = max(self._next, now) + self._gap_s
            return True


_THROTTLE = _Throttle(per_s=2.0)


class Progress:
    """A progress artifact for a job: the provider's own figure, else elapsed over typical time, which is said to be an estimate.

    It is updated every few seconds at most, less often where very many jobs of the process want to.

    Args:
        job: The job.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._shown_at = float("-inf")
        self._typical_s = find_route(job.gateway, job.capability, job.model).typical_s
        self._artifact: UUID | None = None

    async def show(self, state: JobSnapshot, elapsed_s: float) -> None:
        """Show where the job stands; a job that ends at its first answer needs no progress.

        Args:
            state: What the gateway says.
            elapsed_s: Seconds since submit.
        """
        if not in_run() or not self._is_due(state):
            return
        self._shown_at = time.monotonic()
        estimated = state.progress is None
        # An estimate never says that a job is done: only the gateway can.
        share = min(elapsed_s / self._typical_s, 0.95) if state.progress is None else state.progress
        percent = 100.0 if state.status.final else round(share * 100, 1)
        said = "estimated from the usual duration" if estimated else "as the gateway says"
        description = inline(f"{self._job.model} {self._job.task_id}: {state.provider_status or state.status.value}, {said}")
        with never_fatal(f"The progress of {self._job.task_id}"):
            if self._artifact is None:
                key = artifact_key("progress", self._job.model, self._job.digest[:10])
                self._artifact = await acreate_progress_artifact(progress=percent, key=key, description=description)
            else:
                await aupdate_progress_artifact(self._artifact, progress=percent, description=description)

    def _is_due(self, state: JobSnapshot) -> bool:
        if state.status.final:
            return self._artifact is not None
        return time.monotonic() - self._shown_at >= _PROGRESS_EVERY_S and _THROTTLE.passes()
