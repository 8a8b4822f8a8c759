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
    """

    def __init__(
        self,
        *,
        per_s: float,
        burst: int = 1,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._gap_s = 1.0 / per_s
        self._ahead_s = (burst - 1) * self._gap_s
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._next = clock() - self._ahead_s

    async def wait(self) -> None:
        """Wait until this call may be made."""
        with self._lock:
            now = self._clock()
            # A quiet time is saved up, but only for as many calls as a burst may hold.
            start = max(now - self._ahead_s, self._next)
            self._next = start + self._gap_s
        if start > now:
            await self._sleep(start - now)
