"""What a seed decides, and an event loop whose time is made up."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Sequence
from typing import Any, TypeVar

_T = TypeVar("_T")
# How often the loop may turn before time passes. Worlds that go well need some thirty.
_ROUNDS = 10_000


class Blocked(AssertionError):
    """Nothing in the world can happen any more, and somebody still waits."""


class Choices:
    """What the seed decides, one number a decision: 0 for nothing unusual. Decisions can be played again, with some of them left out."""

    def __init__(self, seed: int, replay: Sequence[int] | None = None) -> None:
        self._random = random.Random(seed)  # noqa: S311 -- no secret is made of it
        self._replay = replay
        self.made: list[int] = []

    def draw(self, chance: float, kinds: int) -> int:
        """0, or, by chance, one of so many kinds from 1 on."""
        if not chance:
            return 0
        # One number is drawn either way, so that leaving out one decision changes no other.
        share = self._random.random() / chance
        chosen = min(1 + int(share * kinds), kinds) if share < 1.0 else 0
        if self._replay is not None:
            at = len(self.made)
            chosen = min(self._replay[at], kinds) if at < len(self._replay) else 0
        self.made.append(chosen)
        return chosen

    def pick(self, options: Sequence[_T]) -> _T:
        """One of some options, as part of the set-up: it is always made."""
        return options[self._random.randrange(len(options))]

    def between(self, low: float, high: float) -> float:
        """A number between two."""
        return self._random.uniform(low, high)


class _NoFiles(selectors.BaseSelector):
    """A selector that watches nothing: waiting for it makes the time pass."""

    def __init__(self) -> None:
        self.loop: SimLoop | None = None
        self._rounds = 0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, 0, None)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert self.loop is not None
        if timeout is None:
            raise Blocked("nothing is left to happen")
        self._rounds = self._rounds + 1 if timeout <= 0 else 0
        if self._rounds > _ROUNDS:
            raise Blocked("somebody goes round and round, and no time passes")
        self.loop.now += max(timeout, 0.0)
        return []

    def get_map(self) -> Any:
        return {}


class SimLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only when everybody waits."""

    def __init__(self) -> None:
        selector = _NoFiles()
        super().__init__(selector)
        selector.loop = self
        self.now = 1_000.0

    def time(self) -> float:
        return self.now

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:
        return [(2, 1, 6, "", (host, port))]
