"""How often may be asked."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from tests.simulation.schedule import SimLoop

from prefect_happyhorse.engine.http.rate_limit import RateLimiter


class Time:
    """A clock that moves as the sleepers wish."""

    def __init__(self) -> None:
        self.now = 100.0
        self.naps: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)


async def test_calls_are_let_through_in_turn_at_the_rate() -> None:
    """The first goes at once, each further one a gap later."""
    time = Time()
    limiter = RateLimiter(per_s=20, clock=time, sleep=time.sleep)
    for _ in range(4):
        await limiter.wait()
    assert [round(nap, 6) for nap in time.naps] == [0.05, 0.1, 0.15]


async def test_a_quiet_time_is_saved_up_for_one_burst() -> None:
    """Three may come at once after any pause, not more."""
    time = Time()
    limiter = RateLimiter(per_s=10, burst=3, clock=time, sleep=time.sleep)
    time.now += 1000
    for _ in range(5):
        await limiter.wait()
    assert [round(nap, 6) for nap in time.naps] == [0.1, 0.2]


async def test_calls_that_are_too_many_are_halved_and_grow_again() -> None:
    """Twice the gap at once, and the old one after ten seconds; a refusal of a call from before that is no news."""
    time = Time()
    limiter = RateLimiter(per_s=10, clock=time, sleep=time.sleep)
    turns = [await limiter.wait(), await limiter.wait()]
    limiter.refuse(turns[0])
    limiter.refuse(turns[1])
    time.now += 0.2
    time.naps.clear()
    await limiter.wait()
    await limiter.wait()
    assert 0.19 < time.naps[-1] < 0.2
    time.now += 10.0
    time.naps.clear()
    await limiter.wait()
    await limiter.wait()
    assert [round(nap, 6) for nap in time.naps] == [0.1]


@pytest.mark.parametrize("limit", [20, 100])
def test_an_unknown_limit_is_found_and_mostly_used(limit: int) -> None:
    """A thousand jobs that each want to ask every five seconds, of a gateway that says of no limit and has one."""
    loop = SimLoop()
    limiter = RateLimiter(per_s=500, burst=1000, clock=loop.time, sleep=asyncio.sleep)
    seconds = Counter[int]()
    asked = Counter[bool]()
    end = loop.time() + 300.0

    async def job() -> None:
        while loop.time() < end:
            turn = await limiter.wait()
            seconds[int(loop.time())] += 1
            taken = seconds[int(loop.time())] <= limit
            asked[taken] += 1
            if not taken:
                limiter.refuse(turn)
            await asyncio.sleep(5.0)

    async def jobs() -> None:
        await asyncio.gather(*(job() for _ in range(1000)))

    try:
        loop.run_until_complete(jobs())
    finally:
        loop.close()
    # The first thousand come before anybody can know.
    assert asked[False] < 1000 + 0.15 * asked[True]
    assert asked[True] > 0.5 * 300 * limit
