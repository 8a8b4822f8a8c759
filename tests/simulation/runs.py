"""One run of the simulation, what came of it, and how a run that failed is made smaller."""

from __future__ import annotations

import asyncio
import gc
import logging
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from tests.simulation.life import Failed, Life
from tests.simulation.schedule import Blocked
from tests.simulation.world import World

from prefect_happyhorse.engine.journal.journal import Journal, JournalEntry

__all__ = ["Failed", "Outcome", "run", "shrink"]


@dataclass
class Outcome:
    """What came of a run."""

    seed: int
    decisions: list[int]
    steps: Counter[str]
    accepted: int
    problem: str | None = None
    trace: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        unusual = [f"{at}:{kind}" for at, kind in enumerate(self.decisions) if kind]
        return "\n".join([f"seed {self.seed}: {self.problem}", f"decisions: {' '.join(unusual)}", *self.trace[-80:]])


class _Log(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())


def run(seed: int, *, replay: Sequence[int] | None = None) -> Outcome:
    """Run one seed, or some decisions again."""
    folder = Path(tempfile.mkdtemp(prefix="sim-", dir="/dev/shm" if sys.platform == "linux" else None))
    world = World(seed, folder, replay)
    life = Life(world)
    acquire = Journal.acquire

    async def counted(self: Journal, intent: JournalEntry, instead_of: JournalEntry | None = None) -> JournalEntry | None:
        written = await acquire(self, intent, instead_of)
        if written is not None and instead_of is not None and instead_of.state in {"intent", "uncertain"}:
            life.allowed[intent.digest] += 1
            life.check_silence(instead_of.state, instead_of.owner.process)
        return written

    handler = _Log(world.log)
    logging.getLogger("prefect_happyhorse").addHandler(handler)
    # Nobody reads what a thousand worlds would log.
    logging.getLogger("prefect.happyhorse").setLevel(logging.CRITICAL)
    logging.getLogger("prefect_happyhorse").propagate = False
    world.loop.set_exception_handler(lambda *_: None)
    problem: str | None = None
    try:
        with world.inhabited(), life.server.known(), patch.object(Journal, "acquire", counted):
            world.loop.run_until_complete(life.live())
    except (Failed, Blocked) as error:
        problem = str(error)
    finally:
        logging.getLogger("prefect_happyhorse").removeHandler(handler)
        logging.getLogger("prefect_happyhorse").propagate = True
        logging.getLogger("prefect.happyhorse").setLevel(logging.NOTSET)
        _end(world)
        shutil.rmtree(folder, ignore_errors=True)
    if problem is None and life.problems:
        problem = str(life.problems[0])
    return Outcome(seed, world.choices.made, world.steps, len(life.gateway.charges), problem, world.trace)


def _end(world: World) -> None:
    """Let nothing of a world live on."""
    for process in world.processes:
        process.alive = False
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        for task in asyncio.all_tasks(world.loop):
            task._log_destroy_pending = False  # pyright: ignore[reportAttributeAccessIssue]
        world.loop.close()
        gc.collect()
    finally:
        sys.unraisablehook = hook


def shrink(outcome: Outcome, *, tries: int = 120) -> Outcome:
    """The same failure with as few unusual decisions as can be found."""
    best = outcome
    size = max(len(best.decisions) // 2, 1)
    while size >= 1 and tries > 0:
        at = 0
        while at < len(best.decisions) and tries > 0:
            if any(best.decisions[at : at + size]):
                tries -= 1
                fewer = [*best.decisions[:at], *[0] * min(size, len(best.decisions) - at), *best.decisions[at + size :]]
                again = run(best.seed, replay=fewer)
                if again.problem == best.problem:
                    best = again
                    continue
            at += size
        size //= 2
    return best
