"""Many items side by side, of which one that fails stops no other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import ClassVar, TypeVar

from prefect_happyhorse.runtime.log import run_logger

__all__ = ["ItemsFailed", "gather_limited"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_SHOWN = 10


async def gather_limited(
    function: Callable[[_Item], Awaitable[_Result]], items: Iterable[_Item], *, limit: int, name: Callable[[_Item], str] = str
) -> list[_Result | Exception]:
    """Await a function of each item, a limited number at a time; one that fails is logged, and stops no other.

    Args:
        function: What is done with an item.
        items: The items.
        limit: How many are under way at the same time.
        name: What an item is called in the log.

    Returns:
        For each item, in their order, what the function returned, or the exception that it raised.

    Raises:
        ValueError: When the limit is less than 1.

    Example:
        ```python
        assets = await gather_limited(lambda request: generate(request, "happyhorse"), requests, limit=20)
        ```
    """
    if limit < 1:
        raise ValueError(f"limit must be 1 or more (got {limit!r})")
    items = list(items)
    waiting = enumerate(items)
    results: dict[int, _Result | Exception] = {}

    async def work() -> None:
        for number, item in waiting:
            try:
                results[number] = await function(item)
            except Exception as error:  # noqa: BLE001 -- the other items are paid for; what ends a run is no Exception in Prefect
                run_logger().error("%s: %s: %s", name(item), type(error).__name__, error)
                results[number] = error

    await asyncio.gather(*(work() for _ in items[:limit]))
    return [results[number] for number in range(len(items))]


class ItemsFailed(RuntimeError):
    """Raised at the end of a run of which items failed, after the others were made.

    Args:
        summary: How many failed.
        failed: For each that failed, by its name, why; the first ten are shown.
        advice: What to do now.

    Example:
        >>> print(ItemsFailed("1 of 2 failed", {"row 2": "JobFailed: out of paint"}, "Run it again."))
        1 of 2 failed:
          row 2: JobFailed: out of paint
        Run it again.
    """

    retryable: ClassVar[bool] = False
    """Whether the same run may be tried again for them."""

    def __init__(self, summary: str = "", failed: Mapping[str, str] | None = None, advice: str = "") -> None:
        # All three go to the base, so that pickle finds them.
        super().__init__(summary, failed, advice)
        self.summary = summary
        self.failed = dict(failed or {})
        self.advice = advice

    def __str__(self) -> str:
        lines = [f"  {name}: {why}" for name, why in self.failed.items()]
        if len(lines) > _SHOWN:
            lines[_SHOWN:] = [f"  and {len(lines) - _SHOWN} more, in the log"]
        return "\n".join(filter(None, (f"{self.summary}:" if lines else self.summary, *lines, self.advice)))
