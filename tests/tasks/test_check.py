"""The caller's own check of what was made: what passes, what buys another take, and what never does."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from prefect import flow

from prefect_happyhorse import (
    Budget,
    BudgetExceeded,
    CheckFailed,
    InvalidRequest,
    JobFailed,
    MediaAsset,
    SubmissionUncertain,
    TextToImage,
    generate,
    generate_many,
)
from prefect_happyhorse.sandbox import SandboxServer

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    # Prefect's client leaves connections to its own server for the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

HORSE = TextToImage(model="gpt-image-2", prompt="A white horse")


class Says:
    """A check that gives one answer after the other, and remembers what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[MediaAsset] = []

    def __call__(self, asset: MediaAsset) -> Any:
        """Answer once more."""
        self.asked.append(asset)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def made(**facts: Any) -> MediaAsset:
    @flow
    async def one() -> MediaAsset:
        return await generate(HORSE, "happyhorse", **facts)

    return await one()


def takes_bought(folder: Path) -> list[int]:
    entries = (json.loads(file.read_text()) for file in folder.glob("outputs/journal/??/*.json"))
    # A job that is not closed has several files.
    return sorted({entry["digest"]: entry["take"] for entry in entries}.values())


@pytest.mark.parametrize("answer", [True, None])
async def test_what_passes_is_given_back(sandbox_env: SandboxServer, answer: object) -> None:
    """True and None let it pass; the check sees what is kept, and not on the event loop."""
    threads: list[threading.Thread] = []

    def check(asset: MediaAsset) -> Any:
        threads.append(threading.current_thread())
        assert asset.path is not None
        assert asset.path.stat().st_size == asset.bytes
        return answer

    asset = await made(check=check, max_takes=3)
    assert asset.job is not None
    assert threads != [threading.current_thread()]
    assert len(sandbox_env.ledger()) == 1


async def test_a_refusal_without_further_takes(sandbox_env: SandboxServer) -> None:
    """By default nothing more is bought: the error names the asset, the reason and what to do."""
    with pytest.raises(CheckFailed) as caught:
        await made(check=Says("too dark"))
    (asset,) = caught.value.assets
    assert f"take 1, kept at {asset.uri}: too dark" in str(caught.value)
    assert "max_takes" in str(caught.value)
    assert (caught.value.money, caught.value.digest, caught.value.gateway) == ("spent", asset.job and asset.job.digest, "happyhorse")
    assert len(sandbox_env.ledger()) == 1


async def test_another_take_is_bought(sandbox_env: SandboxServer, tmp_path: Path) -> None:
    """Each is a job of its own; the first that passes is given back, and no further one is bought."""
    check = Says(False, "too dark", True)
    asset = await made(check=check, max_takes=4)
    assert asset == check.asked[2]
    assert len({one.job.digest for one in check.asked if one.job}) == 3
    assert (len(sandbox_env.ledger()), takes_bought(tmp_path)) == (3, [1, 2, 3])


async def test_a_rerun_goes_through_the_same_takes(sandbox_env: SandboxServer, tmp_path: Path) -> None:
    """The check is asked again of each, and nothing is bought anew; with more takes allowed only the missing one is."""
    first, second, third = Says(False, False), Says(False, False), Says(False, False, True)
    for check in (first, second):
        with pytest.raises(CheckFailed, match="None of 2 takes passed") as caught:
            await made(check=check, max_takes=2)
        assert list(caught.value.assets) == first.asked
    assert second.asked == first.asked
    assert len(sandbox_env.ledger()) == 2
    assert (await made(check=third, max_takes=3)) not in first.asked
    assert (len(sandbox_env.ledger()), takes_bought(tmp_path)) == (3, [1, 2, 3])


async def test_the_first_take_may_be_another(sandbox_env: SandboxServer, tmp_path: Path) -> None:
    """Takes are counted from the one that was asked for."""
    await made(check=Says(False, True), take=5, max_takes=2)
    assert takes_bought(tmp_path) == [5, 6]


async def test_an_awaitable_check(sandbox_env: SandboxServer) -> None:
    """A coroutine function is awaited, and so is what an ordinary function gives back."""

    async def check(asset: MediaAsset) -> str | None:
        return None if asset.kind == "image" else "no picture"

    def wrapped(asset: MediaAsset) -> Awaitable[str | None]:
        return check(asset)

    assert await made(check=check) == await made(check=wrapped)


@pytest.mark.parametrize("answer", [ZeroDivisionError("by nought"), 0.3, "", []])
async def test_a_check_that_fails_itself(sandbox_env: SandboxServer, answer: object) -> None:
    """It buys nothing more: the asset is kept and named, and the cause is there."""
    check = Says(answer)
    with pytest.raises(CheckFailed, match="The check itself failed") as caught:
        await made(check=check, max_takes=3)
    assert (list(caught.value.assets), caught.value.money) == (check.asked, "spent")
    assert check.asked[0].uri in str(caught.value)
    assert isinstance(caught.value.__cause__, (ZeroDivisionError, TypeError))
    assert len(sandbox_env.ledger()) == 1


async def test_a_check_that_cannot_be_shown_is_told(sandbox_env: SandboxServer) -> None:
    """Whatever it raises or says; and nothing of it reaches a terminal as it is."""

    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def breaks(_: MediaAsset) -> None:
        raise Odd

    with pytest.raises(CheckFailed, match=r"The check itself failed: .*Odd") as caught:
        await made(check=breaks)
    assert len(caught.value.assets) == 1
    with pytest.raises(CheckFailed) as caught:
        await made(check=lambda _: "no\x1b[31m")
    assert "\x1b" not in str(caught.value)
    assert len(sandbox_env.ledger()) == 1


async def test_checks_that_take_their_time_hold_up_nothing_else(sandbox_env: SandboxServer) -> None:
    """However many there are: the store and the journal have threads of their own."""
    rows = 50
    waiting = threading.Barrier(rows, timeout=60)

    def together(_: MediaAsset) -> None:
        waiting.wait()

    requests = [HORSE.model_copy(update={"prompt": f"Horse {number}"}) for number in range(rows)]

    @flow
    async def many() -> list[str | None]:
        return [row.error for row in await generate_many(requests, "happyhorse", concurrency=rows, check=together)]

    assert await many() == [None] * rows


async def test_no_take_after_one_whose_outcome_is_unknown(sandbox_env: SandboxServer, tmp_path: Path) -> None:
    """An uncertain second take ends the run, and so does each rerun: there never is a third. The first is named."""
    for _ in range(2):
        check = Says(False)
        if not sandbox_env.ledger():
            sandbox_env.fault(at="submit", kind="drop_after", times=None, after=1)
        with pytest.raises(SubmissionUncertain) as caught:
            await made(check=check, max_takes=5, on_uncertain="raise")
        assert f"Refused by the check before: take 1, kept at {check.asked[0].uri}" in str(caught.value)
    assert (len(sandbox_env.ledger()), takes_bought(tmp_path)) == (2, [1, 2])


async def test_a_failed_job_buys_no_further_take(sandbox_env: SandboxServer) -> None:
    """Only what is kept and was refused leads to another."""
    sandbox_env.fault(at="poll", kind="fail_job", times=1)
    check = Says()
    with pytest.raises(JobFailed):
        await made(check=check, max_takes=3)
    assert (check.asked, len(sandbox_env.ledger())) == ([], 1)


async def test_a_budget_holds_for_takes(sandbox_env: SandboxServer, tmp_path: Path) -> None:
    """What there is no room for is not sent; what is kept is named."""
    budget = Budget(amount="0.5", currency="CNY")
    prices = tmp_path / "prices.toml"
    prices.write_text(
        '[[price]]\nmodel = "gpt-image-2"\namount = 0.3\ncurrency = "CNY"\nper = "output"\nsource = "ours"\ndated = 2026-11-20\n'
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HAPPYHORSE_PRICES", str(prices))
        with pytest.raises(BudgetExceeded, match="Refused by the check before: take 1"):
            await made(check=Says(False), max_takes=3, budget=budget)
    assert len(sandbox_env.ledger()) == 1


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ({"check": "too dark"}, "check must be a function of an asset"),
        ({"check": bool, "max_takes": 0}, "max_takes must be a whole number from 1"),
        ({"check": bool, "max_takes": True}, "max_takes must be a whole number from 1"),
        ({"max_takes": 2}, "max_takes above 1 needs a check"),
    ],
)
@pytest.mark.parametrize("task", [generate, generate_many])
async def test_wrong_arguments(sandbox_env: SandboxServer, task: Callable[..., Any], facts: dict[str, Any], problem: str) -> None:
    """They are refused before anything is sent."""

    @flow
    async def one() -> Any:
        return await task(HORSE if task is generate else [HORSE], "happyhorse", **facts)

    with pytest.raises(InvalidRequest, match=problem):
        await one()
    assert sandbox_env.ledger() == []


async def test_each_row_has_its_takes(sandbox_env: SandboxServer, tmp_path: Path) -> None:
    """Of many, a row is the take that passed; one of which none passes has failed, with its last asset; the others go on."""
    requests = [TextToImage(model="gpt-image-2", prompt=f"Horse {number}") for number in range(3)]
    asked: list[str] = []

    def check(asset: MediaAsset) -> bool | str:
        assert asset.job is not None
        asked.append(asset.job.prompt or "")
        return {"Horse 0": True, "Horse 1": asked.count("Horse 1") == 2 or "not yet"}.get(asset.job.prompt or "", False)

    @flow
    async def many() -> list[Any]:
        return await generate_many(requests, "happyhorse", check=check, max_takes=2)

    rows = await many()
    assert [(row.state, row.take) for row in rows] == [("kept", 1), ("kept", 2), ("failed", 2)]
    assert "CheckFailed: None of 2 takes passed" in rows[2].error
    assert (rows[2].money, rows[2].retryable, rows[2].asset is None) == ("spent", False, False)
    assert (len(sandbox_env.ledger()), takes_bought(tmp_path)) == (5, [1, 1, 1, 2, 2])


async def test_rows_that_come_back_have_no_more_takes(sandbox_env: SandboxServer, tmp_path: Path) -> None:
    """A row whose second take failed for now is asked for again, from its first take on: there never are more takes than were allowed."""
    sandbox_env.fault(at="poll", kind="unauthorized", times=1, after=1)

    @flow
    async def many(items: list[Any], max_takes: int) -> list[Any]:
        return await generate_many(items, "happyhorse", check=Says(False, False, False), max_takes=max_takes)

    (row,) = await many([HORSE], 2)
    for max_takes, takes in ((2, [1, 2]), (1, [1, 2]), (2, [1, 2])):
        (again,) = await many([row.model_copy(update={"retryable": True})], max_takes)
        assert (again.state, again.take) == ("failed", max_takes)
        assert takes_bought(tmp_path) == takes
    (kept,) = await many([again.model_copy(update={"retryable": True})], 3)
    assert (kept.take, kept.refused, takes_bought(tmp_path)) == (3, 2, [1, 2, 3])


async def test_a_row_is_told_of_the_take_that_it_is_at(sandbox_env: SandboxServer) -> None:
    """Of an uncertain second take nobody hears that it failed, or that the first one's job is its own; the first one's file is named."""
    sandbox_env.fault(at="submit", kind="drop_after", times=None, after=1)
    check = Says(False)

    @flow
    async def many() -> list[Any]:
        return await generate_many([HORSE], "happyhorse", check=check, max_takes=2, on_uncertain="raise")

    (row,) = await many()
    assert (row.state, row.take, row.refused, row.job, row.asset) == ("uncertain", 2, 1, None, None)
    assert f"take 1, kept at {check.asked[0].uri}" in row.error


async def test_a_time_out_ends_a_check_that_hangs(sandbox_env: SandboxServer) -> None:
    """What is kept stays, and its thread is left to itself."""
    go_on, asked = threading.Event(), threading.Event()

    def check(asset: MediaAsset) -> bool:
        asked.set()
        return go_on.wait()

    @flow
    async def one() -> None:
        with anyio.move_on_after(None) as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(partial(generate, HORSE, "happyhorse", check=check))
                await anyio.to_thread.run_sync(asked.wait)
                scope.cancel()
        assert not go_on.is_set()

    await one()
    go_on.set()
    assert len(sandbox_env.ledger()) == 1


@pytest.mark.parametrize("ends", [SystemExit(3), asyncio.CancelledError()])
async def test_a_check_that_would_end_its_thread_ends_its_row_alone(sandbox_env: SandboxServer, ends: BaseException) -> None:
    """As any other that fails: the other rows are paid for."""

    def check(asset: MediaAsset) -> bool:
        if asset.job is not None and asset.job.prompt == "Horse 0":
            raise ends
        return True

    @flow
    async def many() -> list[Any]:
        return await generate_many(
            [TextToImage(model="gpt-image-2", prompt=f"Horse {number}") for number in range(2)], "happyhorse", check=check
        )

    rows = await many()
    assert [row.state for row in rows] == ["failed", "kept"]
    assert f"it raised {type(ends).__name__}" in rows[0].error
