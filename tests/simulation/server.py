"""Prefect's server of the simulation, as far as a flow run that waits without a process needs one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from itertools import count
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch
from uuid import UUID

import httpx
from prefect.states import Running, Scheduled, State, Suspended
from tests.simulation.world import World

from prefect_happyhorse.tasks import suspend

__all__ = ["RUN", "SimServer", "SuspendedHere"]

RUN: ContextVar[UUID] = ContextVar("RUN")
"""The flow run whose process this is."""


class SuspendedHere(BaseException):
    """Ends the process of a run that was suspended, as Prefect does it."""


class SimServer:
    """Where every flow run stands; a call to it may fail, or its answer be lost, as any other.

    Args:
        world: Where it lives.
    """

    api_url = "http://prefect.example/api"

    def __init__(self, world: World) -> None:
        self._world = world
        self.states: dict[UUID, State[Any]] = {}

    def add(self) -> UUID:
        """A new flow run, which a worker is to begin."""
        run = UUID(int=len(self.states) + 1)
        self.states[run] = Scheduled()
        return run

    async def _call(self, what: str, work: Any) -> Any:
        return await self._world.step(f"server {what}", work, httpx.ReadTimeout)

    async def read_flow_run(self, run: UUID) -> Any:
        return await self._call("read", lambda: SimpleNamespace(id=run, state=self.states[run], deployment_id=1))

    async def read_deployment(self, deployment: int) -> int:
        """Nobody deletes it here."""
        return deployment

    async def resume_flow_run(self, run: UUID) -> Any:
        def resume() -> Any:
            if not self.states[run].is_paused():
                return SimpleNamespace(status=SimpleNamespace(value="REJECT"), details="it is not paused")
            self.states[run] = Scheduled(name="Resuming")
            self._world.note(f"resumes run {run.int}")
            return SimpleNamespace(status=SimpleNamespace(value="ACCEPT"), details=None)

        return await self._call("resume", resume)

    async def suspend(self, *, timeout: None, key: str) -> None:
        run = RUN.get()

        def pause() -> None:
            self.states[run] = Suspended(pause_key=key)
            self._world.note(f"run {run.int} is suspended")

        await self._call("suspend", pause)
        raise SuspendedHere

    def begin(self, run: UUID) -> None:
        """A worker has taken up a run."""
        self.states[run] = Running()

    @contextmanager
    def known(self) -> Iterator[None]:
        """Let the code of runs that wait find this server."""

        @asynccontextmanager
        async def client() -> AsyncIterator[SimServer]:
            yield self

        def context() -> Any:
            run = SimpleNamespace(id=RUN.get(), deployment_id=1)
            return SimpleNamespace(flow_run=run, persist_result=True)

        keys = count(1)
        with ExitStack() as stack:
            for name, stand_in in (
                ("get_client", client),
                ("asuspend_flow_run", self.suspend),
                ("FlowRunContext", SimpleNamespace(get=context)),
                ("uuid4", lambda: UUID(int=next(keys))),
            ):
                stack.enter_context(patch.object(suspend, name, stand_in))
            yield
