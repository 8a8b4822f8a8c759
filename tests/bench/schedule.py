"""How often jobs are asked for and how late they are seen, by the real schedule and the real limiter, on a simulated clock."""

from __future__ import annotations

import heapq
import math
import random
import statistics
from dataclasses import dataclass, field

from prefect_happyhorse.engine.http.rate_limit import RateLimiter
from prefect_happyhorse.engine.jobs.schedule import DurationModel

MEDIAN_S = 120.0


@dataclass
class _Clock:
    """A clock that is set, and a sleep that only says how long it would be."""

    now: float = 0.0
    slept: float = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept = seconds


@dataclass
class Waited:
    """What a crowd of waiting jobs saw.

    Args:
        polls: How many times each was asked for.
        delays_s: How long after its end each was seen.
        durations_s: How long each took.
        asked_at: When any was asked for, in order.
        longest_gap_s: The longest time that a job was not asked for beyond what its schedule wanted.
    """

    polls: list[int] = field(default_factory=list[int])
    delays_s: list[float] = field(default_factory=list[float])
    durations_s: list[float] = field(default_factory=list[float])
    asked_at: list[float] = field(default_factory=list[float])
    longest_gap_s: float = 0.0

    @property
    def mean_delay(self) -> float:
        """The mean delay as a share of the mean duration."""
        return sum(self.delays_s) / sum(self.durations_s)

    @property
    def most_in_a_second(self) -> int:
        """The most calls within any second."""
        most = first = 0
        for last, at in enumerate(self.asked_at):
            while at - self.asked_at[first] >= 1.0 - 1e-9:
                first += 1
            most = max(most, last - first + 1)
        return most


def lognormal(jobs: int, sigma: float, seed: int = 1) -> list[float]:
    """Durations around two minutes, in seconds."""
    numbers = random.Random(seed)  # noqa: S311 -- the same each time
    return [numbers.lognormvariate(math.log(MEDIAN_S), sigma) for _ in range(jobs)]


def one_after_another(durations_s: list[float], *, learn: int) -> Waited:
    """Jobs one by one, each asked for by what those before it have taught; the first `learn` are not counted."""
    seen: list[float] = []
    waited = Waited()
    for number, duration_s in enumerate(durations_s):
        belief = DurationModel.of(seen[-100:], typical_s=MEDIAN_S)
        at = before = 0.0
        polls = 0 if belief.is_learned else 1
        while at < duration_s:
            before, at = at, at + belief.pause_s(at)
            polls += 1
        seen.append((before + at) / 2)
        if number >= learn:
            waited.polls.append(polls)
            waited.delays_s.append(at - duration_s)
            waited.durations_s.append(duration_s)
    return waited


def fixed_polls(durations_s: list[float], every_s: float) -> float:
    """How many times a job is asked for on average by who asks every so many seconds."""
    return statistics.mean(math.ceil(duration_s / every_s) for duration_s in durations_s)


def together(durations_s: list[float], *, per_s: float | None, sigma: float) -> Waited:
    """Jobs of one account all submitted at once, through one limiter."""
    belief = DurationModel(median_s=MEDIAN_S, sigma=sigma, seen=100)
    clock = _Clock()
    limiter = None if per_s is None else RateLimiter(per_s=per_s, clock=clock, sleep=clock.sleep)
    asks = [(belief.pause_s(0.0), number) for number in range(len(durations_s))]
    heapq.heapify(asks)
    waited = Waited(polls=[0] * len(durations_s), delays_s=[0.0] * len(durations_s), durations_s=durations_s)
    while asks:
        clock.now, number = heapq.heappop(asks)
        clock.slept = 0.0
        if limiter is not None:
            _run(limiter)
        at = clock.now + clock.slept
        waited.asked_at.append(at)
        waited.longest_gap_s = max(waited.longest_gap_s, clock.slept)
        waited.polls[number] += 1
        if at >= durations_s[number]:
            waited.delays_s[number] = at - durations_s[number]
        else:
            heapq.heappush(asks, (at + belief.pause_s(at), number))
    return waited


def _run(limiter: RateLimiter) -> None:
    waiting = limiter.wait()
    try:
        waiting.send(None)
    except StopIteration:
        return
    raise AssertionError("the limiter waited for something else than its sleep")
