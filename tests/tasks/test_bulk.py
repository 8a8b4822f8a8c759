"""Many items side by side: so many at a time, in their order, and one that fails stops no other."""

from __future__ import annotations

import asyncio
import pickle

import pytest

from prefect_happyhorse import ItemsFailed, JobFailed, gather_limited


async def test_results_come_in_order_and_a_failure_in_its_place() -> None:
    """The last is done first; the one that fails is an exception among the results."""

    async def one(number: int) -> int:
        await asyncio.sleep(0.01 * (3 - number))
        if number == 1:
            raise JobFailed("out of paint")
        return number * 10

    first, second, third = await gather_limited(one, range(3), limit=3)
    assert (first, third) == (0, 20)
    assert isinstance(second, JobFailed)


async def test_no_more_are_under_way_than_the_limit() -> None:
    """With two at a time, the most ever under way is two, failures included."""
    under_way, most = 0, 0

    async def one(number: int) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.001)
        under_way -= 1
        if number % 3 == 0:
            raise ValueError(number)

    assert len(await gather_limited(one, range(10), limit=2)) == 10
    assert most == 2


async def test_a_failure_is_logged_by_its_name(caplog: pytest.LogCaptureFixture) -> None:
    """At once, and not only when all have ended."""

    async def one(number: int) -> None:
        raise ValueError("no such horse")

    with caplog.at_level("ERROR"):
        await gather_limited(one, [7], limit=1, name=lambda number: f"Row {number}")
    assert "Row 7: ValueError: no such horse" in caplog.text


async def test_a_cancellation_is_no_failure_of_an_item() -> None:
    """It ends them all."""

    async def one(number: int) -> None:
        await asyncio.sleep(60)

    running = asyncio.create_task(gather_limited(one, range(3), limit=2))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_limit_below_one_is_refused() -> None:
    """It would wait for ever."""

    async def one(number: int) -> None: ...

    with pytest.raises(ValueError, match=r"limit must be 1 or more \(got 0\)"):
        await gather_limited(one, [1], limit=0)


def test_the_error_shows_ten_and_survives_pickle() -> None:
    """Prefect keeps a flow's exception; the eleventh failure is counted and not printed."""
    error = ItemsFailed("12 of 12 failed", {f"row {number}": "JobFailed" for number in range(12)}, "Run it again.")
    lines = str(error).splitlines()
    assert (lines[0], lines[-2:]) == ("12 of 12 failed:", ["  and 2 more, in the log", "Run it again."])
    assert len(lines) == 13
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 -- our own bytes
    assert (str(copy), copy.failed) == (str(error), error.failed)
    assert str(ItemsFailed("It cannot be joined.")) == "It cannot be joined."
