"""Whose jobs teach whom: durations are shared by the jobs of an account on a route, and only those that were waited for teach."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.engine.conftest import AccountMaker
from tests.engine.jobs.test_durations import durations_in
from tests.engine.jobs.test_poll import Clock, bought

from prefect_happyhorse.catalog import find_route
from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.engine.jobs.durations import Durations
from prefect_happyhorse.engine.jobs.poll import Poller
from prefect_happyhorse.engine.jobs.shared import PROCESS
from prefect_happyhorse.engine.journal.journal import Journal
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.sandbox import SandboxServer

ROUTE = find_route("happyhorse", "text_to_image", "gpt-image-2")
JOB = Job(
    gateway="happyhorse",
    account="default",
    capability="text_to_image",
    model="gpt-image-2",
    task_id="t-1",
    digest="d",
    submitted_at=datetime(2026, 11, 20, tzinfo=timezone.utc),
)
TEXT = st.text(max_size=300)


@pytest.fixture
def clock(sandbox: SandboxServer) -> Clock:
    return Clock(sandbox)


async def test_the_jobs_of_an_account_on_a_route_share(store: Store) -> None:
    """Whoever asks again gets the same, but another account, model, capability, gateway or store has its own."""
    mine = PROCESS.durations(JOB, ROUTE, store)
    assert PROCESS.durations(JOB.model_copy(update={"task_id": "t-2", "digest": "e"}), ROUTE, Store(store.url)) is mine
    others = [
        PROCESS.durations(JOB.model_copy(update=change), ROUTE, store)
        for change in ({"account": "film"}, {"model": "gpt-image-3"}, {"capability": "image_edit"}, {"gateway": "ttapi"})
    ]
    elsewhere = PROCESS.durations(JOB, ROUTE, Store(f"{store.url}-2"))
    assert len({id(one) for one in (mine, *others, elsewhere)}) == 6
    assert len({one.path for one in (mine, *others)}) == 5
    assert elsewhere.path == mine.path
    await mine.learn(60.0, store)
    assert [one.belief.seen for one in (mine, *others, elsewhere)] == [1, 0, 0, 0, 0, 0]
    assert others[0].belief.median_s == pytest.approx(ROUTE.typical_s)


@pytest.mark.parametrize("odd", ["owner/model", "a model", "../../etc/passwd", "a\\b:c*?", "NUL", "馬", "", ".", "m" * 500, "a\x00b"])
async def test_odd_names_are_files_all_the_same(odd: str, store: Store) -> None:
    """A model or an account may be called anything; its file lies in the folder, and another process finds it."""
    for change in ({"model": odd}, {"account": odd}):
        job = JOB.model_copy(update=change)
        durations = PROCESS.durations(job, ROUTE, store)
        await durations.learn(60.0, store)
        assert await durations_in(store, durations.path) == [60.0]
        assert await store.list("journal/durations") == [durations.path.removeprefix("journal/durations/")]
        await store.delete(durations.path)


@given(one=TEXT, other=TEXT)
@example(one="film crew", other="film-crew")
@example(one="a/b", other="a:b")
@example(one="m" * 300, other="m" * 299)
def test_different_names_stay_apart(one: str, other: str) -> None:
    """Two models share what they have learned only if they are the same."""
    store = Store("memory://names")
    found = [PROCESS.durations(JOB.model_copy(update={"model": name}), ROUTE, store) for name in (one, other)]
    assert (found[0] is found[1]) == (one == other)


async def test_the_journal_does_not_take_them_for_jobs(account: AccountMaker, store: Store) -> None:
    """They lie in the journal's folder, and yet are no entries."""
    job = await bought(account, store)
    await Durations("journal/durations/horse.json", typical_s=120.0).learn(60.0, store)
    assert [entry.digest for entry in (await Journal(store).entries()).entries] == list(await Journal(store).revisions()) == [job.digest]


async def test_a_job_that_is_waited_for_teaches(sandbox: SandboxServer, account: AccountMaker, store: Store, clock: Clock) -> None:
    """Its duration is known to within a poll, the next ones are asked for seldom, and nothing is asked before it can be done."""
    sandbox.settings(job_s=60)
    polls: list[int] = []
    for take in range(1, 13):
        # Each is another job, bought just now.
        job = (await bought(account, store)).model_copy(update={"submitted_at": datetime.now(timezone.utc)})
        result = await Poller(account=account(), store=store, clock=clock, sleep=clock.sleep).poll(job)
        polls.append(result.polls)
        entry = await Journal(store).read(job.digest)
        assert entry is not None
        await Journal(store).forget(entry)
        durations = PROCESS.durations(job, ROUTE, store)
        assert durations.belief.seen == take
    assert 45.0 < durations.belief.median_s < 75.0
    assert max(polls[-3:]) < polls[0]


async def test_a_job_that_another_run_left_teaches_nothing(
    sandbox: SandboxServer, account: AccountMaker, store: Store, clock: Clock
) -> None:
    """When it was finished is not known: it may have lain there for an hour."""
    job = await bought(account, store)
    old = job.model_copy(update={"submitted_at": job.submitted_at - timedelta(hours=1)})
    await Poller(account=account(), store=store, clock=clock, sleep=clock.sleep).poll(old)
    assert PROCESS.durations(job, ROUTE, store).belief.seen == 0
    assert await store.list("journal/durations") == []
