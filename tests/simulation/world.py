"""A world in which engine code runs as it is, and a seed decides what happens at every await of a store, a network or a sleep.

There is one event loop whose time is made up, so that nothing waits; calls to threads run in place; and machines and processes are context
variables. `World.step` is where the seed decides: it delays, stops a process for minutes, ends it, fails the call, or loses its answer.
"""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest.mock import patch
from uuid import UUID

import anyio._backends._asyncio as anyio_asyncio
from anyio import to_thread
from tests.simulation.schedule import Choices, SimLoop

from prefect_happyhorse.engine.download import attempt, download
from prefect_happyhorse.engine.http import rate_limit
from prefect_happyhorse.engine.jobs import breaker, durations, manage, poll, settle, shared, submit
from prefect_happyhorse.engine.journal import entry, lease, owner, spool
from prefect_happyhorse.engine.storage import local, machine
from prefect_happyhorse.tasks import suspend

_T = TypeVar("_T")
_WALL = 1_790_000_000.0
_MINUTES_S = (45.0, 100.0, 200.0, 400.0)


def _once(work: Callable[..., _T]) -> Callable[..., _T]:
    """What a decoder makes of some bytes, made once: worlds decide who writes a file and when, not what its frames look like."""
    made: dict[tuple[object, ...], _T] = {}

    def known(file: Path, *more: str) -> _T:
        key = file.read_bytes(), *more
        if key not in made:
            made[key] = work(file, *more)
        return made[key]

    return known


_DECODING = ((attempt, "probe"), (attempt, "probe_and_thumbnail"), (download, "thumbnail"))
_DECODERS = tuple((room, name, _once(getattr(room, name))) for room, name in _DECODING)


class Killed(BaseException):
    """The process has ended: whatever still runs of it does nothing more."""


@dataclass
class Machine:
    """A computer: its folder, its clock, which may be wrong, and whether it sleeps."""

    name: str
    home: Path
    skew_s: float = 0.0
    boot: int = 0
    booted_at: float = 0.0

    def __str__(self) -> str:
        return f"{self.name} {UUID(int=self.boot)}"


@dataclass(eq=False)
class Process:
    """A process of a machine."""

    machine: Machine
    pid: int
    alive: bool = True
    killed: bool = False
    resumes_at: float = 0.0
    slept_s: float = 0.0
    run: str = field(default_factory=lambda: os.urandom(8).hex())

    def __str__(self) -> str:
        return f"{self.machine.name}/{self.pid}"


CURRENT: ContextVar[Process] = ContextVar("CURRENT")


@dataclass(frozen=True)
class Faults:
    """How often each kind of fault comes, drawn once for a world."""

    delay: float = 0.15
    pause: float = 0.0
    kill: float = 0.0
    fail: float = 0.0
    lose: float = 0.0
    power: float = 0.0
    jump: float = 0.0


_NONE = Faults(delay=0.0)


class World:
    """Machines, a store, what happened, and the seed that decides.

    Args:
        seed: What decides.
        replay: Decisions to play again in place of the seed's own.
    """

    def __init__(self, seed: int, folder: Path, replay: Sequence[int] | None = None) -> None:
        self.choices = Choices(seed, replay)
        self.folder = folder
        self.loop = SimLoop()
        self.faults = Faults()
        self.processes: list[Process] = []
        self.trace: list[str] = []
        self.log: list[str] = []
        self.steps: Counter[str] = Counter()
        self.calm = False
        self._pids = 100
        self._unsynced: list[Path] = []

    def machine(self, name: str) -> Machine:
        home = self.folder / name
        home.mkdir(parents=True, exist_ok=True)
        return Machine(name, home, self.choices.pick([0.0, 0.0, -200.0, 200.0, 86_400.0]))

    def process(self, on: Machine) -> Process:
        """A new process of a machine."""
        self._pids += 1
        made = Process(on, self._pids)
        self.processes.append(made)
        return made

    def note(self, what: str) -> None:
        """Write down what happens, for whoever reads a failure."""
        process = CURRENT.get(None)
        self.trace.append(f"{self.loop.now - 1_000:9.2f} {process or '-'!s:>10} {what}")

    def start(self, process: Process, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T | None]:
        """Run something as a process; it ends with None when the process is killed."""

        async def run() -> _T | None:
            CURRENT.set(process)
            try:
                return await work
            except Killed:
                return None
            finally:
                process.alive = False

        task = self.loop.create_task(run())
        # One that is cancelled before its first step has not begun it.
        task.add_done_callback(lambda _: work.close())
        return task

    async def _go_on(self, process: Process) -> None:
        """What a process does at each step: nothing once it is dead, and nothing while it is stopped."""
        while process.alive and process.resumes_at > self.loop.now:  # noqa: ASYNC110 -- the time itself is what is waited for
            await asyncio.sleep(process.resumes_at - self.loop.now)
        if not process.alive:
            raise Killed

    def kill(self, process: Process) -> None:
        """End a process, as SIGKILL does."""
        process.alive, process.killed = False, True
        self.note(f"is killed: {process}")

    def cut_power(self, of: Machine) -> None:
        """End all processes of a machine, and lose what was not synced to its disk."""
        for process in self.processes:
            if process.machine is of and process.alive:
                process.alive, process.killed = False, True
        of.boot, of.booted_at = of.boot + 1, self.loop.now
        self.note(f"loses power: {of.name}")
        for path in self._unsynced:
            path.unlink(missing_ok=True)
        self._unsynced.clear()

    async def _disturb(self, process: Process, where: str) -> None:
        await self._go_on(process)
        self.steps[where.partition(" ")[0]] += 1
        faults = _NONE if self.calm else self.faults
        if self.choices.draw(faults.delay, 3):
            await asyncio.sleep((0.001, 0.3, 4.0)[self.choices.made[-1] - 1])
        if kind := self.choices.draw(faults.pause, 2 * len(_MINUTES_S)):
            pause_s = _MINUTES_S[(kind - 1) % len(_MINUTES_S)]
            process.resumes_at = self.loop.now + pause_s
            # A laptop that sleeps stops its monotonic clock too.
            process.slept_s += pause_s if kind > len(_MINUTES_S) else 0.0
            self.note(f"stands still for {pause_s:.0f} s at {where}")
        if self.choices.draw(faults.kill, 1):
            self.kill(process)
        if self.choices.draw(faults.power, 1):
            self.cut_power(process.machine)
        if self.choices.draw(faults.jump, 2):
            process.machine.skew_s += (-200.0, 3_600.0)[self.choices.made[-1] - 1]
            self.note(f"{process.machine.name}'s clock jumps")
        await self._go_on(process)

    async def disturb(self, where: str) -> None:
        """Let anything happen to the process that runs."""
        await self._disturb(CURRENT.get(), where)

    async def step(
        self, where: str, work: Callable[[], Awaitable[_T] | _T], error: Callable[[str], Exception], *, late: bool = False
    ) -> _T:
        """Do something outside of the process: before and after it anything may happen, and its answer may be lost.

        What is late has been done already.
        """
        process = CURRENT.get()
        faults = _NONE if self.calm else self.faults
        if not late:
            await self._disturb(process, where)
        if not late and self.choices.draw(faults.fail, 1):
            self.note(f"{where} fails")
            raise error("never arrived")
        result = work()
        done: Any = await result if asyncio.iscoroutine(result) else result
        if self.choices.draw(faults.lose, 1):
            self.note(f"{where} is done, and its answer lost")
            await self._disturb(process, where)
            raise error("lost its answer")
        await self._disturb(process, where)
        return done

    async def _in_place(self, work: Callable[..., _T], *args: Any, **_: Any) -> _T:
        """In place of a thread: a call to a disk or an object store."""
        if getattr(work, "__name__", "") == "open_partial":
            # A system lets go of the locks of a process that ends, so none ends here with one that nobody else can see.
            await self.disturb("store lock")
            return work(*args)
        return await self.step("store", lambda: work(*args), lambda why: OSError(errno.EIO, why))

    async def _sleep(self, seconds: float) -> None:
        process = CURRENT.get(None)
        if process is None:
            await asyncio.sleep(seconds)
            return
        if seconds > 0:
            await self._disturb(process, "sleep")
        await asyncio.sleep(seconds)
        await self._go_on(process)

    def _now(self) -> tuple[float, float]:
        process = CURRENT.get()
        return self.loop.now - process.slept_s, _WALL + self.loop.now + process.machine.skew_s

    def _up_s(self) -> float:
        return self.loop.now - CURRENT.get().machine.booted_at

    def _identity(self) -> Any:
        process = CURRENT.get()
        return owner._Process(str(process.machine), process.pid, process.run)  # pyright: ignore[reportPrivateUsage]

    def _is_alive(self, pid: int, started: int | None) -> bool:
        return any(process.pid == pid and process.alive for process in self.processes)

    def _fsync(self, handle: int) -> None:
        self._synced = True

    @contextmanager
    def inhabited(self) -> Iterator[None]:
        """Let engine code live here."""
        write = local._write  # pyright: ignore[reportPrivateUsage]

        def write_and_remember(path: Path, data: bytes, mode: int = 0o666) -> None:
            self._synced = False
            write(path, data, mode)
            self._draft = None if self._synced else data

        link, replace = os.link, os.replace

        def linked(source: Any, target: Any, **more: Any) -> None:
            link(source, target, **more)
            if getattr(self, "_draft", None) is not None:
                self._unsynced.append(Path(target))

        def replaced(source: Any, target: Any, **more: Any) -> None:
            replace(source, target, **more)
            if getattr(self, "_draft", None) is not None:
                self._unsynced.append(Path(target))

        world = self

        class Datetime(datetime):
            """As the machine's own clock has it, and no real one."""

            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return datetime.fromtimestamp(world._now()[1], tz)

        home = lambda: CURRENT.get().machine.home  # noqa: E731 -- it stands in for a function
        with ExitStack() as stack:
            for target, name, stand_in in (
                (to_thread, "run_sync", self._in_place),
                (attempt, "in_decoder", self._in_place),
                (download, "in_decoder", self._in_place),
                (anyio_asyncio, "sleep", self._sleep),
                (lease, "_now", self._now),
                (owner, "_this_process", self._identity),
                *((room, "up_s", self._up_s) for room in (lease, owner, settle)),
                (owner, "_alive", self._is_alive),
                (shared, "RateLimiter", partial(rate_limit.RateLimiter, clock=self.loop.time)),
                (shared, "Durations", partial(durations.Durations, clock=self.loop.time)),
                *((room, "datetime", Datetime) for room in (download, entry, manage, owner, poll, submit, suspend)),
                (submit, "time", SimpleNamespace(monotonic=lambda: self._now()[0], time=lambda: self._now()[1])),
                (machine, "state_folder", home),
                (spool, "state_folder", home),
                (breaker, "state_folder", home),
                (breaker, "_now", lambda: self._now()[1]),
                (local, "_write", write_and_remember),
                (os, "fsync", self._fsync),
                (os, "link", linked),
                (os, "replace", replaced),
                (rate_limit, "_SPREAD", self.choices._random),  # pyright: ignore[reportPrivateUsage]
                (tempfile, "tempdir", str(self.folder)),
                *_DECODERS,
            ):
                stack.enter_context(patch.object(target, name, stand_in))
            yield
