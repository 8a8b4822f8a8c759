"""The promises hold in every world that a seed can make, and each bug that is planted in the engine breaks one of them."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any

import pytest
from tests.simulation.bugs import BUGS, search
from tests.simulation.runs import Outcome, run, shrink
from tests.simulation.schedule import Blocked, SimLoop

pytestmark = pytest.mark.slow

SEEDS = int(os.environ.get("SIMULATE", "2000"))
_CHUNK = 25


@pytest.fixture(scope="module")
def workers() -> Iterator[ProcessPoolExecutor]:
    with pytest.MonkeyPatch.context() as environment, ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        # Each world takes more than twice as long where coverage is measured; the seeds that run in this process show it what there is.
        environment.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        yield pool


def _search(workers: ProcessPoolExecutor, seeds: int, bug: str | None = None) -> tuple[Counter[str], Outcome | None]:
    waiting = [workers.submit(search, first, min(first + _CHUNK, seeds), bug) for first in range(0, seeds, _CHUNK)]
    done: Counter[str] = Counter()
    for one in as_completed(waiting):
        steps, broken = one.result()
        done.update(steps)
        if broken is not None:
            for other in waiting:
                other.cancel()
            return done, broken
    return done, None


@pytest.mark.parametrize("seed", range(12))
def test_a_seed_decides_everything(seed: int) -> None:
    """The same seed is the same world, so that a failure can be looked at again."""
    one, again = run(seed), run(seed)
    assert (one.decisions, one.accepted) == (again.decisions, again.accepted)
    assert [line.split()[0] for line in one.trace] == [line.split()[0] for line in again.trace]


async def _goes_round() -> None:
    while True:  # noqa: ASYNC110 -- no event would come either
        await asyncio.sleep(0)


async def _waits_for_nothing() -> None:
    await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("hangs", [_goes_round, _waits_for_nothing])
def test_a_world_that_hangs_is_told(hangs: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Whether nothing can happen in it any more, or always something and time does not pass."""
    loop = SimLoop()
    loop.set_exception_handler(lambda *_: None)
    with pytest.raises(Blocked):
        loop.run_until_complete(hangs())
    loop.close()


def test_no_seed_breaks_a_promise(workers: ProcessPoolExecutor) -> None:
    """Nothing is paid for twice, nothing that was paid for is lost, and nobody waits for ever."""
    done, broken = _search(workers, SEEDS)
    assert broken is None, str(shrink(broken))
    awaits = sum(count for step, count in done.items() if step not in {"seeds", "accepted"})
    print(f"{done['seeds']} seeds, {awaits} awaits, {done['accepted']} jobs accepted", flush=True)  # noqa: T201 -- whoever waits for an hour wants to read it
    assert done["seeds"] == SEEDS
    # Worlds in which nothing is bought would prove nothing.
    assert done["accepted"] > SEEDS * 0.8


@pytest.mark.parametrize("bug", list(BUGS))
def test_every_bug_that_is_planted_is_found(bug: str, workers: ProcessPoolExecutor) -> None:
    """Within two thousand seeds."""
    _, broken = _search(workers, 2000, bug)
    assert broken is not None
