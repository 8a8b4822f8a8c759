"""How often may be asked."""

from __future__ import annotations

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
