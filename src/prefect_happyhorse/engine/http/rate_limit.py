"""How often calls may be made: one limiter for all jobs of an account."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Awaitable, Callable

import anyio

__all__ = ["RateLimiter", "backoff_s"]

# The system's own: workers that were forked from one process would draw the same numbers from its generator, and come back together.
_SPREAD = random.SystemRandom()

_DOUBLES_S = 10.0
_MOST_DOUBLINGS = 60.0
_HORIZON_S = 1.0
_LONGEST_GAP_S = 10.0


def backoff_s(failures: int, *, first_s: float = 1.0, longest_s: float = 30.0) -> float:
    """How long to wait after so many failures in a row: doubling, and spread, so that those refused together do not come back together.

    Example:
        >>> 2.0 <= backoff_s(3) <= 4.0
        True
    """
    return min(first_s * 2.0 ** (failures - 1), longest_s) * _SPREAD.uniform(0.5, 1.0)


class RateLimiter:
    """Lets calls through at most so often, first come first served, from every thread and event loop of the process.

    Args:
        per_s: Calls a second.
        burst: How many calls may come at once after a quiet time.
        clock: Seconds that only ever grow.
        sleep: Waits for so many seconds.

    Example:
        >>> import asyncio
        >>> asyncio.run(RateLimiter(per_s=1000.0).wait())
        0
    """

    def __init__(
        self,
        *,
        per_s: float,
        burst: int = 1,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._least_gap_s = 1.0 / per_s
        self._burst = burst
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._next = clock() - (burst - 1) * self._least_gap_s
        self._refusals = 0
        self._refused_at = float("-inf")
        self._refused_gap_s = 0.0

    async def wait(self) -> int:
        """Wait until this call may be made; how often calls had been too many when it was given its turn, for `refuse`."""
        while True:
            with self._lock:
                now = self._clock()
                gap_s = self._gap_s(now)
                is_free = gap_s == self._least_gap_s
                # A quiet time is saved up, but only for as many calls as a burst may hold, and not while calls are refused.
                start = max(now - (self._burst - 1) * gap_s if is_free else now, self._next)
                # While the rate changes nobody is given a turn that lies far ahead, which would be one of a rate that has passed.
                if is_free or start - now <= _HORIZON_S:
                    self._next, refusals = start + gap_s, self._refusals
                    break
            await self._sleep(_HORIZON_S * _SPREAD.uniform(0.5, 1.0))
        if start > now:
            await self._sleep(start - now)
        return refusals

    def refuse(self, refusals: int) -> None:
        """Let calls through half as often, since they were too many for the gateway; in ten seconds it is twice as fast again.

        Args:
            refusals: What `wait` gave the call that was refused: one from before the last halving says nothing of the rate since.
        """
        with self._lock:
            if refusals < self._refusals:
                return
            now = self._clock()
            self._refusals += 1
            self._refused_gap_s, self._refused_at = min(2.0 * self._gap_s(now), _LONGEST_GAP_S), now
            self._next = max(self._next, now + self._refused_gap_s)

    def _gap_s(self, now: float) -> float:
        """The time between two calls."""
        return max(self._least_gap_s, self._refused_gap_s / 2.0 ** min((now - self._refused_at) / _DOUBLES_S, _MOST_DOUBLINGS))
