"""What the tests of settling share: submits whose answers are lost, and gateways that tell and list otherwise than they took."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from prefect_happyhorse.domain.errors import SubmissionUncertain
from prefect_happyhorse.domain.jobs import JobSnapshot, ListedTask, TaskPage
from prefect_happyhorse.domain.requests import GenerationRequest, TextToVideo
from prefect_happyhorse.engine.jobs.poll import Poller
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.journal.journal import JournalEntry
from prefect_happyhorse.gateways.dashscope import DashScopeGateway
from prefect_happyhorse.sandbox import SandboxServer

LOST = {"at": "submit", "kind": "drop_after", "times": 1}
NEVER_ARRIVED = {"at": "submit", "kind": "drop_before", "times": 1}


def horse(prompt: str = "A horse gallops", **more: Any) -> TextToVideo:
    return TextToVideo(model="happyhorse-1.1-t2v", prompt=prompt, **more)


async def submit(session: Session, request: GenerationRequest, **more: Any) -> str:
    return (await session.submit(await session.prepare(request, take=more.pop("take", 1)), **more)).job.task_id


async def entry_of(session: Session, request: GenerationRequest) -> JournalEntry:
    entry = await session.journal.read((await session.prepare(request)).digest)
    assert entry is not None
    return entry


def told_otherwise(monkeypatch: pytest.MonkeyPatch, tell: Callable[[str], str]) -> None:
    """The gateway tells prompts in another way than it was sent them."""
    ask = Poller.snapshot

    async def snapshot(self: Poller, *args: Any) -> JobSnapshot:
        told = await ask(self, *args)
        return told.model_copy(update={"prompt": told.prompt and tell(told.prompt)})

    monkeypatch.setattr(Poller, "snapshot", snapshot)


def listed_otherwise(monkeypatch: pytest.MonkeyPatch, tell: Callable[[list[ListedTask]], list[ListedTask]]) -> None:
    """The gateway lists tasks in another way than it took them, and counts what it shows."""
    read = DashScopeGateway.read_tasks

    def read_tasks(self: DashScopeGateway, response: httpx.Response) -> TaskPage:
        tasks = tell(list(read(self, response).tasks))
        return TaskPage(tasks=tuple(tasks), total=len(tasks), pages=1)

    monkeypatch.setattr(DashScopeGateway, "read_tasks", read_tasks)


async def accepted_unseen(sandbox: SandboxServer, session: Session, request: TextToVideo) -> str:
    """A job whose answer was lost, between two whose answers were not; gives its task id."""
    await submit(session, horse("An earlier horse"))
    sandbox.fault(**LOST)
    with pytest.raises(SubmissionUncertain):
        await submit(session, request, on_uncertain="raise")
    await submit(session, horse("A later horse"))
    return sandbox.ledger()[1].task_id
