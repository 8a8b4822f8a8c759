"""What a running sandbox knows: its clock, its jobs, and what was charged for them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from random import Random
from uuid import UUID

from prefect_happyhorse.sandbox.faults.rules import FaultInjector
from prefect_happyhorse.sandbox.jobs.job import Job, LedgerEntry
from prefect_happyhorse.sandbox.jobs.settings import SandboxSettings
from prefect_happyhorse.sandbox.jobs.uploads import Uploads
from prefect_happyhorse.sandbox.jobs.validate import ValidatedBody
from prefect_happyhorse.sandbox.media.probe import Probe

__all__ = ["SandboxState"]

_LISTED_FOR_S = 86_400.0


class SandboxState:
    """Everything that a running sandbox knows; its clock gives Unix seconds and must never run backwards."""

    def __init__(self, settings: SandboxSettings, clock: Callable[[], float] | None = None) -> None:
        start = time.time() - time.monotonic()
        self._clock = clock or (lambda: start + time.monotonic())
        self._ahead_s = 0.0
        self.settings = settings
        self.random = Random(settings.seed)  # noqa: S311 -- ids and chances of a test tool, not secrets
        self.faults = FaultInjector(self.random)
        self.jobs: dict[str, Job] = {}
        self.tokens: dict[str, tuple[str, float]] = {}
        self.uploads = Uploads()
        self.refused = 0
        self.queries = Counter[tuple[str, str, int]]()
        self._released = asyncio.Event()

    def now(self) -> float:
        """The sandbox's time."""
        return self._clock() + self._ahead_s

    def advance(self, seconds: float) -> None:
        """Put the clock forward, so that jobs finish and addresses expire without waiting."""
        self._ahead_s += seconds

    def change(self, changes: dict[str, object]) -> SandboxSettings:
        """Change how the sandbox behaves from now on, and give the settings in force."""
        self.settings = self.settings.changed(changes)
        return self.settings

    def reset(self) -> None:
        """Forget jobs, charges, tokens, faults and what the clock was put forward, and end every stall. Settings stay."""
        self.release()
        self.jobs.clear()
        self.tokens.clear()
        self.uploads = Uploads()
        self.queries.clear()
        self.faults.clear()
        self.refused = 0
        self._ahead_s = 0.0

    def release(self) -> None:
        """End every stall that is under way."""
        self._released.set()
        self._released = asyncio.Event()

    def close(self) -> None:
        """End every stall, and let none begin."""
        self.release()
        self._released.set()

    async def stall(self, seconds: float) -> None:
        """Wait in real time, or until stalls are released."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._released.wait(), seconds)

    def accept(self, body: ValidatedBody, sent: Mapping[str, object], account: str, task_id: str, probes: tuple[Probe, ...] = ()) -> Job:
        """Take a job on, which charges it."""
        canonical = json.dumps(sent, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        job_s = self.settings.job_s
        self.jobs[task_id] = Job(
            body=body,
            account=account,
            task_id=task_id,
            request_id=self.new_id(),
            digest=hashlib.sha256(canonical.encode()).hexdigest(),
            submitted_at=self.now(),
            job_s=job_s if isinstance(job_s, (int, float)) else self.random.uniform(*job_s),
            settings=self.settings,
            probes=probes,
        )
        return self.jobs[task_id]

    def find(self, gateway: str, task_id: str, account: str | None) -> Job | None:
        """The job of an account, while it lives."""
        job = self.jobs.get(task_id)
        if job is None or job.deleted or (job.route.gateway, job.account) != (gateway, account):
            return None
        return job if self.now() - job.submitted_at <= self.settings.task_ttl_s else None

    def listed(self, gateway: str, account: str, model: str | None) -> list[Job]:
        """An account's jobs of the last day as its gateway lists them: each appears after a time of its own, in no strict order."""
        now, delay_s = self.now(), self.settings.list_delay_s
        shown: list[tuple[float, Job]] = []
        for job in self.jobs.values():
            late_s = delay_s * hashlib.sha256(f"list:{job.task_id}".encode()).digest()[0] / 255
            is_meant = (job.route.gateway, job.account) == (gateway, account) and model in {None, job.route.model}
            if is_meant and late_s <= now - job.submitted_at <= _LISTED_FOR_S:
                shown.append((job.submitted_at + late_s, job))
        return [job for _, job in sorted(shown, key=lambda one: one[0], reverse=True)]

    def new_id(self) -> str:
        """A new identifier."""
        return str(UUID(int=self.random.getrandbits(128), version=4))

    def ledger(self) -> list[LedgerEntry]:
        """What was charged."""
        now = self.now()
        return [job.entry(now) for job in self.jobs.values()]
