"""When to poll a job next: seldom while it can hardly be finished, often while it probably just has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

__all__ = ["DurationModel"]

_SHORTEST_S = 0.5
_LONGEST_S = 15.0
_LEARNED = 3

# Before anything was seen a job is believed to take the typical time, give or take a factor of two.
_PRIOR_SIGMA = 0.7
_PRIOR_WEIGHT = 0.5
_PRIOR_SIGMA_WEIGHT = 2.0

# One job in ten thousand is that much quicker than the others, and even its result waits no longer than _LONGEST_S, with some room for
# a belief that is a little wrong.
_QUICKEST_Z = -3.72
_ROOM_S = 3.0

# Larger is fewer polls and later news. At 0.1 a job of two minutes is polled some seven times, and seen three seconds late.
_POLL_COST = 0.1
_STEPS = 40


def _tail(z: float) -> float:
    return 0.5 * math.erfc(z / math.sqrt(2))


@dataclass(frozen=True)
class DurationModel:
    """How long the jobs of a route are believed to take: a lognormal distribution.

    Args:
        median_s: Half of them take longer, in seconds.
        sigma: Standard deviation of the logarithm.
        seen: How many finished jobs it comes from.
    """

    median_s: float
    sigma: float
    seen: int = 0

    @classmethod
    def of(cls, durations_s: Sequence[float], *, typical_s: float) -> DurationModel:
        """What finished jobs let one believe: the usual update of a normal distribution of unknown mean and variance.

        Example:
            >>> round(DurationModel.of([], typical_s=120.0).median_s)
            120
            >>> round(DurationModel.of([60.0] * 50, typical_s=120.0).median_s)
            60
        """
        prior = math.log(typical_s)
        logs = [math.log(one) for one in durations_s]
        count = len(logs)
        weight = _PRIOR_WEIGHT + count
        mean = sum(logs) / count if count else prior
        spread = sum((one - mean) ** 2 for one in logs) + _PRIOR_WEIGHT * count / weight * (mean - prior) ** 2
        variance = (_PRIOR_SIGMA_WEIGHT * _PRIOR_SIGMA**2 + spread) / (_PRIOR_SIGMA_WEIGHT + count)
        return cls(median_s=math.exp((_PRIOR_WEIGHT * prior + count * mean) / weight), sigma=math.sqrt(variance), seen=count)

    @property
    def is_learned(self) -> bool:
        """Whether enough jobs were seen to wait at first without asking."""
        return self.seen >= _LEARNED

    @cached_property
    def _quickest_s(self) -> float:
        return self.median_s * math.exp(_QUICKEST_Z * self.sigma)

    def pause_s(self, elapsed_s: float, *, retry_after_s: float | None = None) -> float:
        """How long to wait before a job is polled again.

        To see results as early as so many polls allow, the pauses have to go with one over the square root of the rate at which jobs
        that are still running finish.

        Example:
            >>> belief = DurationModel(median_s=120.0, sigma=0.2, seen=100)
            >>> [round(belief.pause_s(elapsed_s)) for elapsed_s in (0.0, 90.0, 120.0, 600.0)]
            [69, 10, 6, 4]
            >>> belief.pause_s(120.0, retry_after_s=20.0)
            20.0
        """
        longest_s = max(_LONGEST_S, self._quickest_s + _LONGEST_S - _ROOM_S - elapsed_s)
        step_s = longest_s / _STEPS
        left = _POLL_COST * math.sqrt(self.median_s)
        pause_s = 0.0
        while left > 0 and pause_s < longest_s:
            left -= step_s * math.sqrt(self._rate(elapsed_s + pause_s + step_s / 2))
            pause_s += step_s
        if not self.is_learned:
            # Nobody knows yet how quick this route is, so the first jobs are polled often at first.
            pause_s = min(pause_s, max(elapsed_s, _SHORTEST_S))
        return max(min(pause_s, longest_s), _SHORTEST_S, retry_after_s or 0.0)

    def _rate(self, at_s: float) -> float:
        """How many of the jobs that still run finish within a second, at so many seconds."""
        z = math.log(at_s / self.median_s) / self.sigma
        running = _tail(z)
        if running < 1e-12:
            return z / (self.sigma * at_s)
        return math.exp(-z * z / 2) / math.sqrt(2 * math.pi) / (self.sigma * at_s * running)
