"""A submit of unknown outcome is settled by the gateway's list of tasks: rightly, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from tests.engine.conftest import AccountMaker, Naps
from tests.engine.jobs.settling import LOST, NEVER_ARRIVED, entry_of, horse, submit

from prefect_happyhorse.domain.errors import RequestRejected, SubmissionUncertain
from prefect_happyhorse.domain.requests import GenerationRequest, TextToImage
from prefect_happyhorse.engine.jobs import settle
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.journal import owner
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways.dashscope import DashScopeGateway
from prefect_happyhorse.sandbox import SandboxServer


async def test_a_job_whose_answer_was_lost_is_found(sandbox: SandboxServer, session: Session, naps: Naps) -> None:
    """It is adopted once it was seen twice, minutes apart, and goes on as any other."""
    sandbox.fault(**LOST)
    task_id = await submit(session, horse())
    assert [charge.task_id for charge in sandbox.ledger()] == [task_id]
    assert sum(naps.taken) >= 180
    entry = await entry_of(session, horse())
    assert (await session.resume(entry)).asset.kind == "video"


async def test_without_a_later_job_nothing_is_free(sandbox: SandboxServer, session: Session, naps: Naps) -> None:
    """A list without it may be behind; a job that was submitted afterwards and is shown says that it is not."""
    await submit(session, horse("An earlier horse"))
    sandbox.fault(**NEVER_ARRIVED)
    with pytest.raises(SubmissionUncertain, match="jobs adopt"):
        await submit(session, horse())
    await submit(session, horse("A later horse"))
    naps.taken.clear()
    assert await submit(session, horse()) == sandbox.ledger()[-1].task_id
    assert len(sandbox.ledger()) == 3
    assert sum(naps.taken) >= 900


async def test_without_an_earlier_job_nothing_is_free(sandbox: SandboxServer, session: Session) -> None:
    """A list without it may be cut; a job that was submitted before and is shown says that it is not."""
    sandbox.fault(**NEVER_ARRIVED)
    for _ in range(2):
        with pytest.raises(SubmissionUncertain):
            await submit(session, horse())
        await submit(session, horse("A later horse"))
    assert len(sandbox.ledger()) == 1


@pytest.mark.parametrize("on_uncertain", ["raise", "resubmit"])
async def test_it_can_be_switched_off(on_uncertain: Any, sandbox: SandboxServer, session: Session) -> None:
    """Then the list is not asked for."""
    sandbox.fault(at="list", kind="http", times=None)
    sandbox.fault(**LOST)
    with pytest.raises(SubmissionUncertain):
        await submit(session, horse(), on_uncertain=on_uncertain)
    assert sandbox.faults()[0]["matched"] == 0


async def test_a_prompt_is_told_once_the_task_is_finished(sandbox: SandboxServer, session: Session, naps: Naps) -> None:
    """Until then it is looked at again, for an hour."""
    sandbox.settings(job_s=3_000)
    sandbox.fault(**LOST)
    with pytest.raises(SubmissionUncertain):
        await submit(session, horse())
    assert 3_600 <= sum(naps.taken) < 4_000
    sandbox.advance(3_600)
    # By the gateway's clock it was accepted an hour ago, and by this machine's just now: that is no clock to go by.
    with pytest.raises(SubmissionUncertain):
        await submit(session, horse())


async def test_a_long_list_is_read_page_by_page(
    sandbox: SandboxServer, session: Session, monkeypatch: pytest.MonkeyPatch, account: AccountMaker, store: Store
) -> None:
    """A page holds a part of it; one that changes meanwhile is read anew."""
    for number in range(7):
        await submit(session, horse(f"Horse {number}"))
    other = Session(account("dashscope"), Store(url=f"{store.url}-2"))
    asked: list[int] = []
    query = DashScopeGateway.tasks_query

    def small(self: DashScopeGateway, model: str, page: int) -> dict[str, Any]:
        asked.append(page)
        return query(self, model, page) | {"page_size": 3}

    monkeypatch.setattr(DashScopeGateway, "tasks_query", small)
    page_of = settle.Settler._page
    meanwhile = 1

    async def busy(self: settle.Settler, model: str, page: int) -> httpx.Response:
        nonlocal meanwhile
        if page == 2 and meanwhile:
            meanwhile -= 1
            await submit(other, horse("Meanwhile"))
        return await page_of(self, model, page)

    monkeypatch.setattr(settle.Settler, "_page", busy)
    sandbox.fault(**LOST)
    task_id = await submit(session, horse())
    assert {charge.task_id for charge in sandbox.ledger()} >= {task_id}
    assert asked[:5] == [1, 2, 1, 2, 3]


async def test_the_same_machine_knows_after_a_crash(sandbox: SandboxServer, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that submitted is gone; another one of this machine counts since the same start."""
    sandbox.fault(**LOST)
    with pytest.raises(SubmissionUncertain):
        await submit(session, horse(), on_uncertain="raise")
    here = owner._this_process()
    monkeypatch.setattr(owner, "_this_process", lambda: here._replace(run="another", process=1))
    assert await submit(session, horse()) == sandbox.ledger()[0].task_id
    assert len(sandbox.ledger()) == 1


async def test_a_picture_without_a_prompt_told_stays_with_a_person(sandbox: SandboxServer, session: Session) -> None:
    """The answers of some image models hold no prompt."""
    request = TextToImage(model="wan2.7-image", prompt="A horse")
    sandbox.fault(**LOST)
    with pytest.raises(SubmissionUncertain):
        await submit(session, request)
    assert (await entry_of(session, request)).state == "uncertain"


async def test_a_person_may_be_faster(sandbox: SandboxServer, account: AccountMaker, store: Store, session: Session) -> None:
    """Whoever adopts or forgets it meanwhile is heard."""
    sandbox.settings(job_s=50_000)
    sandbox.fault(**LOST)

    async def adopting(seconds: float) -> None:
        await session.adopt(await entry_of(session, horse()), sandbox.ledger()[0].task_id)

    waiting = Session(account("dashscope"), store, sleep=adopting)
    assert await submit(waiting, horse()) == sandbox.ledger()[0].task_id
    assert len(sandbox.ledger()) == 1


async def test_resuming_one_settles_it_first(sandbox: SandboxServer, session: Session) -> None:
    """One that was accepted is waited for; of one that was not it is said."""
    sandbox.fault(**LOST)
    with pytest.raises(SubmissionUncertain):
        await submit(session, horse(), on_uncertain="raise")
    assert (await session.resume(await entry_of(session, horse()))).asset.kind == "video"
    sandbox.fault(**NEVER_ARRIVED)
    with pytest.raises(SubmissionUncertain):
        await submit(session, horse("A grey"), on_uncertain="raise")
    await submit(session, horse("Another horse"))
    with pytest.raises(RequestRejected, match="was not accepted"):
        await session.resume(await entry_of(session, horse("A grey")))


async def test_a_submit_under_way_is_left_alone(sandbox: SandboxServer, session: Session, naps: Naps) -> None:
    """An intent whose owner lives is no uncertain one."""
    sandbox.fault(at="submit", kind="stall_after", seconds=30)
    submitting = asyncio.create_task(submit(session, horse()))
    while not sandbox.ledger():  # noqa: ASYNC110 -- nothing tells of a charge but the ledger
        await asyncio.sleep(0.01)
    assert await session.settle(await entry_of(session, horse())) is False
    sandbox.release()
    assert await submitting == sandbox.ledger()[0].task_id
    assert not naps.taken


@pytest.mark.slow
async def test_many_are_settled_rightly(sandbox: SandboxServer, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 200 whose answers were lost half had been accepted; one of two was asked for in the same words as another."""
    # Each look of each reads what the journal holds open, and as few as there may be say the same.
    monkeypatch.setattr(settle, "_PAUSES_S", (450.0,))
    requests = [horse(f"Horse {number}") for number in range(200)]
    await submit(session, horse("Earlier"))
    for number in range(200):
        sandbox.fault(**(LOST if number % 2 else NEVER_ARRIVED))

    async def one(request: GenerationRequest, *, settles: Callable[[], Awaitable[str]]) -> str | None:
        try:
            return await settles()
        except SubmissionUncertain:
            return None

    first = [await one(request, settles=lambda request=request: submit(session, request, on_uncertain="raise")) for request in requests]
    assert not any(first)
    assert len(sandbox.ledger()) == 101
    await submit(session, horse("Later"))
    second = await asyncio.gather(*(one(request, settles=lambda request=request: submit(session, request)) for request in requests))
    # Here nobody waits between two looks, so that a list that always changes meanwhile may be given up before it rests.
    second = [found or await submit(session, request) for found, request in zip(second, requests, strict=True)]
    bought = {charge.task_id for charge in sandbox.ledger()}
    assert len(bought) == 202
    assert len(set(second)) == 200
    assert bought >= set(second)
