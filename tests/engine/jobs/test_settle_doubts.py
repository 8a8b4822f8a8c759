"""What is in doubt is left to a person: lists, prompts and times that are not what they should be free and adopt nothing."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from tests.engine.conftest import AccountMaker, Naps
from tests.engine.jobs.settling import LOST, NEVER_ARRIVED, accepted_unseen, entry_of, horse, listed_otherwise, submit, told_otherwise

from prefect_happyhorse.domain.errors import SubmissionUncertain
from prefect_happyhorse.domain.jobs import ListedTask, TaskPage
from prefect_happyhorse.engine.jobs import settle
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.shared import Shared
from prefect_happyhorse.engine.journal import owner
from prefect_happyhorse.engine.journal.journal import Journal
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways.dashscope import DashScopeGateway
from prefect_happyhorse.sandbox import SandboxServer


@pytest.mark.parametrize(
    "tell", [lambda told: told[:30], lambda told: unicodedata.normalize("NFC", told), lambda told: told.replace("a", "*")]
)
async def test_a_prompt_that_is_told_otherwise_frees_nothing(
    tell: Callable[[str], str], sandbox: SandboxServer, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only that of the job itself, as where a long one is cut: those of the others come back as they were sent."""
    request = horse("Un cheval a\u0300 la mer, and a good deal more than that")
    await accepted_unseen(sandbox, session, request)
    told_otherwise(monkeypatch, lambda told: tell(told) if len(told) > 30 else told)
    with pytest.raises(SubmissionUncertain):
        await submit(session, request)
    assert len(sandbox.ledger()) == 3


async def test_a_task_of_a_wrong_time_frees_nothing(sandbox: SandboxServer, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway's clock was a quarter of an hour off just then."""
    task_id = await accepted_unseen(sandbox, session, horse())
    late = timedelta(minutes=15)
    listed_otherwise(
        monkeypatch,
        lambda tasks: [one.model_copy(update={"created_at": one.created_at + late * (one.task_id == task_id)}) for one in tasks],
    )
    with pytest.raises(SubmissionUncertain):
        await submit(session, horse())
    assert len(sandbox.ledger()) == 3


@pytest.mark.parametrize("other", [{"duration": 3}, {"resolution": "1080p"}, {"aspect_ratio": "9:16"}])
async def test_a_task_of_other_measures_is_another(
    other: dict[str, Any], sandbox: SandboxServer, session: Session, account: AccountMaker, store: Store
) -> None:
    """Somebody else asked in the same words at the same time for another length, size or shape: it is not adopted, and frees nothing."""
    asked: dict[str, Any] = {"duration": 5, "resolution": "720p", "aspect_ratio": "16:9"}
    await submit(session, horse("An earlier horse"))
    await submit(Session(account("dashscope"), Store(url=f"{store.url}-2")), horse(**(asked | other)))
    sandbox.fault(**NEVER_ARRIVED)
    with pytest.raises(SubmissionUncertain):
        await submit(session, horse(**asked), on_uncertain="raise")
    await submit(session, horse("A later horse"))
    with pytest.raises(SubmissionUncertain):
        await submit(session, horse(**asked))
    assert len(sandbox.ledger()) == 3


async def test_of_too_many_strangers_none_is_asked(sandbox: SandboxServer, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then a person has to look."""
    await submit(session, horse("An earlier horse"))
    sandbox.fault(**NEVER_ARRIVED)
    with pytest.raises(SubmissionUncertain):
        await submit(session, horse(), on_uncertain="raise")
    await submit(session, horse("A later horse"))
    day = timedelta(hours=3)
    strangers = [ListedTask(task_id=f"s-{number}", created_at=datetime.now(timezone.utc) - day) for number in range(201)]
    listed_otherwise(monkeypatch, lambda tasks: [*tasks, *strangers])
    with pytest.raises(SubmissionUncertain):
        await submit(session, horse())
    assert len(sandbox.ledger()) == 2


async def test_a_list_of_the_latest_alone_frees_nothing(sandbox: SandboxServer, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts two, and shows two."""
    await accepted_unseen(sandbox, session, horse())
    await submit(session, horse("The latest horse"))
    listed_otherwise(monkeypatch, lambda tasks: sorted(tasks, key=lambda one: one.created_at)[-2:])
    with pytest.raises(SubmissionUncertain):
        await submit(session, horse())
    assert len(sandbox.ledger()) == 4


async def test_a_task_that_is_shown_after_later_ones_is_waited_for(
    sandbox: SandboxServer, session: Session, naps: Naps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten minutes later than they are."""
    task_id = await accepted_unseen(sandbox, session, horse())
    listed_otherwise(monkeypatch, lambda tasks: [one for one in tasks if one.task_id != task_id or sum(naps.taken) > 600])
    assert await submit(session, horse()) == task_id
    assert len(sandbox.ledger()) == 3


async def test_a_list_that_is_behind_frees_nothing(sandbox: SandboxServer, session: Session) -> None:
    """The job is accepted, and the list shows it only later."""
    sandbox.fault(**LOST)
    sandbox.settings(list_delay_s=86_000)
    with pytest.raises(SubmissionUncertain):
        await submit(session, horse())
    with pytest.raises(SubmissionUncertain):
        await submit(session, horse())
    sandbox.settings(list_delay_s=0)
    assert await submit(session, horse()) == sandbox.ledger()[0].task_id
    assert len(sandbox.ledger()) == 1


async def test_of_two_that_fit_none_is_taken(sandbox: SandboxServer, session: Session, account: AccountMaker, store: Store) -> None:
    """Somebody else asked for the same at the same time, with another store."""
    other = Session(account("dashscope"), Store(url=f"{store.url}-2"))
    await submit(other, horse())
    sandbox.fault(**LOST)
    with pytest.raises(SubmissionUncertain):
        await submit(session, horse())
    assert (await entry_of(session, horse())).state == "uncertain"


async def test_of_two_submits_that_it_may_be_none_gets_it(sandbox: SandboxServer, session: Session) -> None:
    """Two takes of one request are uncertain, and one job was accepted."""
    sandbox.fault(**LOST)
    with pytest.raises(SubmissionUncertain):
        await submit(session, horse(), on_uncertain="raise")
    sandbox.fault(**NEVER_ARRIVED)
    for take in (2, 1):
        with pytest.raises(SubmissionUncertain):
            await submit(session, horse(), take=take)
    assert len(sandbox.ledger()) == 1


async def test_a_task_of_earlier_is_another(sandbox: SandboxServer, session: Session, account: AccountMaker, store: Store) -> None:
    """The same was asked for two hours ago by somebody else."""
    await submit(Session(account("dashscope"), Store(url=f"{store.url}-2")), horse())
    sandbox.advance(7_200)
    sandbox.fault(**NEVER_ARRIVED)
    with pytest.raises(SubmissionUncertain):
        await submit(session, horse())
    assert len(sandbox.ledger()) == 1


@pytest.mark.parametrize("kind", ["garbage", "http", "throttle", "unauthorized", "drop_after", "html"])
async def test_a_list_that_fails_settles_nothing(kind: str, sandbox: SandboxServer, session: Session, naps: Naps) -> None:
    """It is asked for again for five minutes."""
    sandbox.fault(**LOST)
    sandbox.fault(at="list", kind=kind, times=None)
    with pytest.raises(SubmissionUncertain):
        await submit(session, horse())
    assert 300 <= sum(naps.taken) < 500
    sandbox.clear_faults()
    await submit(session, horse())
    assert len(sandbox.ledger()) == 1


@pytest.mark.parametrize("wrong", ["total", "pages", "short"])
async def test_a_list_that_is_not_whole_settles_nothing(
    wrong: str, sandbox: SandboxServer, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tasks are counted, and it is read to its end."""
    read = DashScopeGateway.read_tasks

    def lying(self: DashScopeGateway, response: httpx.Response) -> TaskPage:
        page = read(self, response)
        lies: dict[str, dict[str, object]] = {
            "total": {"total": page.total + 1},
            "pages": {"pages": 1_000},
            "short": {"tasks": page.tasks[1:]},
        }
        return page.model_copy(update=lies[wrong])

    monkeypatch.setattr(DashScopeGateway, "read_tasks", lying)
    await submit(session, horse("An earlier horse"))
    sandbox.fault(**NEVER_ARRIVED)
    with pytest.raises(SubmissionUncertain):
        await submit(session, horse())
    await submit(session, horse("A later horse"))
    with pytest.raises(SubmissionUncertain):
        await submit(session, horse())
    assert len(sandbox.ledger()) == 2


@pytest.mark.parametrize("shift", [timedelta(hours=8), timedelta(hours=-8), timedelta(minutes=20)])
@pytest.mark.parametrize("fault", [LOST, NEVER_ARRIVED])
async def test_times_that_mean_something_else_settle_nothing(
    fault: dict[str, Any], shift: timedelta, sandbox: SandboxServer, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another zone, or another clock than that of the answer's Date: the job that is known says so."""
    read = DashScopeGateway.read_tasks

    def shifted(self: DashScopeGateway, response: httpx.Response) -> TaskPage:
        page = read(self, response)
        tasks = [task.model_copy(update={"created_at": task.created_at + shift}) for task in page.tasks]
        return page.model_copy(update={"tasks": tuple(tasks)})

    monkeypatch.setattr(DashScopeGateway, "read_tasks", shifted)
    await submit(session, horse("An earlier horse"))
    sandbox.fault(**fault)
    with pytest.raises(SubmissionUncertain):
        await submit(session, horse())
    bought = len(sandbox.ledger())
    await submit(session, horse("Another horse"))
    with pytest.raises(SubmissionUncertain):
        await submit(session, horse())
    assert len(sandbox.ledger()) == bought + 1


async def test_prompts_that_come_back_otherwise_settle_nothing(
    sandbox: SandboxServer, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider cuts them, say: the job that is known says so. White space makes no difference."""
    await submit(session, horse("An earlier horse"))
    sandbox.fault(**NEVER_ARRIVED)
    with pytest.raises(SubmissionUncertain):
        await submit(session, horse())
    await submit(session, horse("Another  horse\n"))
    with monkeypatch.context() as patched:
        told_otherwise(patched, lambda told: told[:5])
        with pytest.raises(SubmissionUncertain):
            await submit(session, horse())
    assert len(sandbox.ledger()) == 2
    await submit(replace(session, shared=Shared()), horse())
    assert len(sandbox.ledger()) == 3


async def test_a_task_that_tells_no_prompt_settles_nothing(sandbox: SandboxServer, session: Session) -> None:
    """One that failed may be the submit's, and none of ours: who knows."""
    sandbox.fault(**LOST)
    sandbox.fault(at="poll", kind="fail_job", times=1)
    with pytest.raises(SubmissionUncertain):
        await submit(session, horse())
    await submit(session, horse("Another horse"))
    with pytest.raises(SubmissionUncertain):
        await submit(session, horse())


async def test_what_is_not_known_of_the_submit_is_not_guessed(
    sandbox: SandboxServer, session: Session, naps: Naps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine's, this one's before it was started anew, one of long ago: their time is not known or not listed."""
    sandbox.fault(**LOST)
    with pytest.raises(SubmissionUncertain):
        await submit(session, horse(), on_uncertain="raise")
    here = owner._this_process()
    process = {"run": "another", "process": 1}
    other_boot = "host 00000000-0000-0000-0000-000000000000 pid:[1]"
    for machine, later_s in ((other_boot, 0.0), ("host", 0.0), (here.machine, 80_000.0), (other_boot, 80_000.0)):
        monkeypatch.setattr(owner, "_this_process", lambda machine=machine: here._replace(machine=machine, **process))
        monkeypatch.setattr(owner, "up_s", lambda later_s=later_s: 1e9 + later_s)
        with pytest.raises(SubmissionUncertain):
            await submit(session, horse())
    assert not naps.taken
    monkeypatch.undo()
    assert await submit(session, horse()) == sandbox.ledger()[0].task_id


async def test_another_address_lists_other_tasks(sandbox: SandboxServer, session: Session) -> None:
    """The region was changed meanwhile: what the list there does not show may be at the first."""
    await submit(session, horse("An earlier horse"))
    sandbox.fault(**LOST)
    with pytest.raises(SubmissionUncertain):
        await submit(session, horse(), on_uncertain="raise")
    moved = replace(
        session, account=replace(session.account, base_url=session.account.base_url.replace("127.0.0.1", "localhost")), shared=Shared()
    )
    await submit(moved, horse("A later horse"))
    with pytest.raises(SubmissionUncertain):
        await submit(moved, horse())
    assert len(sandbox.ledger()) == 3


@pytest.mark.parametrize(
    ("renewal", "is_found"),
    [("25 claim {sent}", True), (None, False), ("25 claim", False), ("nan", False), ("1e400", False), ("-5", False), ("\\xff", False)],
)
async def test_a_process_that_waited_long_and_died_may_have_sent_late(
    renewal: str | None, is_found: bool, sandbox: SandboxServer, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last renewal says until when: a task of an hour after it was begun may be its own."""
    await submit(session, horse("An earlier horse"))
    begun = owner.up_s()
    with monkeypatch.context() as earlier:
        earlier.setattr(owner, "up_s", lambda: begun - 3_600)
        sandbox.fault(**LOST)
        with pytest.raises(SubmissionUncertain):
            await submit(session, horse(), on_uncertain="raise")
    entry = await entry_of(session, horse())
    # It died before it heard of it: the intent stands.
    await session.store.delete(f"journal/{entry.digest[:2]}/{entry.digest}.{entry.revision}.json")
    here = owner._this_process()
    monkeypatch.setattr(owner, "_this_process", lambda: here._replace(run="another"))
    if renewal is not None:
        await session.store.write(f"journal/leases/{entry.digest}.1.json", renewal.format(sent=begun).encode())
    again = replace(session, shared=Shared())
    if is_found:
        assert await submit(again, horse()) == sandbox.ledger()[1].task_id
    else:
        with pytest.raises(SubmissionUncertain):
            await submit(again, horse())
    assert len(sandbox.ledger()) == 2


async def test_a_journal_that_cannot_be_read_settles_nothing(sandbox: SandboxServer, session: Session, store: Store) -> None:
    """The task may be that of the file which cannot be read."""
    sandbox.fault(**LOST)
    await store.write(f"journal/ab/ab{'0' * 62}.1.json", b"{")
    with pytest.raises(SubmissionUncertain):
        await submit(session, horse())


async def test_a_store_that_fails_just_then_hides_no_uncertain_submit(
    sandbox: SandboxServer, session: Session, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """That money may be spent is what has to be heard, and a job that the answer named is in the log where it can stand nowhere else."""
    sandbox.fault(at="submit", kind="garbage")

    async def fails(*_: object) -> None:
        raise OSError("gone")

    monkeypatch.setattr(Journal, "give_up", fails)
    monkeypatch.setattr(settle.Settler, "settle", fails)
    with pytest.raises(SubmissionUncertain):
        await submit(session, horse())
    assert f"happyhorse jobs adopt {sandbox.ledger()[0].task_id}" in caplog.text
    assert "cannot be looked up: gone" in caplog.text


async def test_another_keys_list_settles_nothing(sandbox: SandboxServer, account: AccountMaker, session: Session) -> None:
    """Also under the same label it may be another account's: it shows jobs of ours from before and after, and never this one."""
    other = replace(session, account=account("dashscope", key=SecretStr("another-1234")))
    await submit(other, horse("An earlier horse"))
    sandbox.fault(**LOST)
    with pytest.raises(SubmissionUncertain):
        await submit(session, horse(), on_uncertain="raise")
    await submit(other, horse("A later horse"))
    charged = len(sandbox.ledger())
    with pytest.raises(SubmissionUncertain):
        await submit(other, horse())
    assert len(sandbox.ledger()) == charged
