"""A job is asked for until it ends, and nothing on the way to its end fails it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from pydantic import SecretStr
from tests.engine.conftest import AccountMaker, Naps
from tests.engine.jobs.test_submit import HORSE, ride

from prefect_happyhorse.catalog import GATEWAYS, Route, gateway_facts
from prefect_happyhorse.domain.errors import JobExpired, JobFailed, JobTimedOut, PollRejected, ProtocolError
from prefect_happyhorse.domain.jobs import Job, JobSnapshot, JobStatus
from prefect_happyhorse.domain.requests import TextToImage
from prefect_happyhorse.engine.jobs.poll import Poller
from prefect_happyhorse.engine.jobs.prepare import prepare
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.shared import Shared
from prefect_happyhorse.engine.jobs.submit import Submitter
from prefect_happyhorse.engine.journal.journal import Journal
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.sandbox import SandboxServer


class Clock:
    """A clock that only moves when somebody sleeps, and takes the sandbox along."""

    def __init__(self, sandbox: SandboxServer) -> None:
        self.now = 0.0
        self._sandbox = sandbox

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        self._sandbox.advance(seconds)


@pytest.fixture
def clock(sandbox: SandboxServer) -> Clock:
    return Clock(sandbox)


async def bought(account: AccountMaker, store: Store, gateway: str = "happyhorse") -> Job:
    request = HORSE if gateway == "happyhorse" else ride(gateway)
    return await Submitter(store=store).submit(await prepare(request, account(gateway)))


@pytest.mark.parametrize("gateway", GATEWAYS)
@pytest.mark.parametrize("kind", ["http", "html", "garbage", "throttle", "drop_before", "unknown_status", "backwards", "vanish"])
async def test_a_passing_fault_does_not_fail_the_job(
    sandbox: SandboxServer, account: AccountMaker, store: Store, clock: Clock, gateway: str, kind: str
) -> None:
    """The job is asked for again, and its result is the same as without the fault."""
    job = await bought(account, store, gateway)
    sandbox.fault(at="poll", kind=kind, times=2)
    result = await Poller(account=account(gateway), store=store, clock=clock, sleep=clock.sleep).poll(job)
    assert len(result.outputs) == 1
    assert result.job == job


async def test_the_watcher_hears_every_answer_in_order(sandbox: SandboxServer, account: AccountMaker, store: Store, clock: Clock) -> None:
    """Queued, running, succeeded: each with the provider's word and the seconds since submit."""
    sandbox.settings(job_s=60)
    job = await bought(account, store)
    heard: list[tuple[JobStatus, float]] = []

    async def watch(job: Job, state: JobSnapshot, elapsed_s: float) -> None:
        heard.append((state.status, elapsed_s))

    result = await Poller(account=account(), store=store, on_poll=watch, clock=clock, sleep=clock.sleep).poll(job)
    assert heard[0][0] in {JobStatus.QUEUED, JobStatus.RUNNING}
    assert heard[-1][0] is JobStatus.SUCCEEDED
    assert [elapsed for _, elapsed in heard] == sorted(elapsed for _, elapsed in heard)
    assert result.polls == len(heard)
    assert 58 <= heard[-1][1] <= 60 * 1.1 + 2


@pytest.mark.parametrize("gateway", GATEWAYS)
async def test_the_deadline_raises_with_the_job_and_leaves_it_collectable(
    sandbox: SandboxServer, account: AccountMaker, store: Store, clock: Clock, gateway: str
) -> None:
    """A job that outlives its deadline is no failed job: a later run with a later deadline gets its result."""
    sandbox.settings(job_s=600)
    job = await bought(account, store, gateway)
    with pytest.raises(JobTimedOut) as caught:
        await Poller(account=account(gateway), store=store, deadline_s=300, clock=clock, sleep=clock.sleep).poll(job)
    assert (caught.value.task_id, caught.value.money) == (job.task_id, "spent")
    result = await Poller(account=account(gateway), store=store, deadline_s=3600, clock=clock, sleep=clock.sleep).poll(job)
    assert result.outputs


async def test_the_deadline_counts_from_the_submit(sandbox: SandboxServer, account: AccountMaker, store: Store, clock: Clock) -> None:
    """A run that starts again does not start the deadline again, but it asks once before it gives up."""
    sandbox.settings(job_s=7200)
    job = await bought(account, store)
    old = job.model_copy(update={"submitted_at": datetime.now(timezone.utc) - timedelta(hours=1)})
    with pytest.raises(JobTimedOut):
        await Poller(account=account(), store=store, deadline_s=600, clock=clock, sleep=clock.sleep).poll(old)
    assert clock.now == 0


@pytest.mark.parametrize("gateway", GATEWAYS)
@pytest.mark.parametrize("kind", ["moderation", "fail_job"])
async def test_a_failed_job_says_why_and_stays_failed(
    sandbox: SandboxServer, account: AccountMaker, store: Store, clock: Clock, gateway: str, kind: str
) -> None:
    """The provider's reason is in the error and in the journal; said twice it is believed, and the job is not asked for again."""
    job = await bought(account, store, gateway)
    sandbox.fault(at="poll", kind=kind, message="too dark", times=1)
    poller = Poller(account=account(gateway), store=store, clock=clock, sleep=clock.sleep)
    for _ in range(2):
        with pytest.raises(JobFailed, match="too dark") as caught:
            await poller.poll(job)
        assert caught.value.task_id == job.task_id
    entry = await Journal(store).read(job.digest)
    assert entry is not None
    assert entry.state == "failed"
    assert sandbox.ledger()[0].polls == 2


async def test_a_failure_that_is_said_once_is_not_believed(store: Store, account: AccountMaker, clock: Clock) -> None:
    """One of a gateway's machines may be mistaken about a job that is paid for."""
    job = await bought(account, store)
    poller = Poller(account=account(), store=store, clock=clock, sleep=clock.sleep)
    said = iter([JobStatus.FAILED, JobStatus.RUNNING, JobStatus.FAILED, JobStatus.CANCELLED])
    snapshot = Poller.snapshot

    async def mistaken(self: Poller, job: Job, route: Route) -> JobSnapshot:
        status = next(said, None)
        return await snapshot(self, job, route) if status is None else JobSnapshot(status=status)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Poller, "snapshot", mistaken)
        assert (await poller.poll(job)).polls == 5


async def test_a_failed_job_is_asked_for_again_when_a_person_says_so(
    sandbox: SandboxServer, store: Store, account: AccountMaker, clock: Clock
) -> None:
    """And its result is stored, if it turns out to have one."""
    job = await bought(account, store)
    await Journal(store).known_failure(JobFailed("It was too dark."), job)
    session = Session(account(), store, clock=clock, sleep=clock.sleep, shared=Shared())
    entry = await session.journal.read(job.digest)
    assert entry is not None
    with pytest.raises(JobFailed, match="too dark"):
        await session.resume(entry)
    stored = await session.resume(entry, again=True)
    assert await store.exists(store.path_of(stored.asset.uri) or "")
    kept = await session.journal.read(job.digest)
    assert kept is not None
    assert kept.state == "kept"


async def test_an_address_is_tried_though_the_gateway_forgot_the_job(
    sandbox: SandboxServer, store: Store, account: AccountMaker, clock: Clock
) -> None:
    """And though it is old by our clock: only the address itself says whether it is still alive."""
    job = await bought(account, store)
    session = Session(account(), store, clock=clock, sleep=clock.sleep, shared=Shared())
    result = await session.poll(job)
    old = result.model_copy(update={"outputs_expire_at": datetime.now(timezone.utc) - timedelta(days=1)})
    await session.journal.record(job, "succeeded", {"result": old})
    sandbox.fault(at="poll", kind="vanish", times=None)
    entry = await session.journal.read(job.digest)
    assert entry is not None
    stored = await session.resume(entry)
    assert await store.exists(store.path_of(stored.asset.uri) or "")


@pytest.mark.parametrize("gateway", GATEWAYS)
async def test_a_moderated_failure_has_a_code(
    sandbox: SandboxServer, account: AccountMaker, store: Store, clock: Clock, gateway: str
) -> None:
    """The provider's own, else what its reason says, on every dialect: so that code and automations can tell it apart."""
    job = await bought(account, store, gateway)
    sandbox.fault(at="poll", kind="moderation", times=1)
    with pytest.raises(JobFailed, match="will be refused again") as caught:
        await Poller(account=account(gateway), store=store, clock=clock, sleep=clock.sleep).poll(job)
    assert gateway_facts(gateway).is_moderation(caught.value.code)


async def test_a_job_that_is_gone_expires_after_a_grace(sandbox: SandboxServer, account: AccountMaker, store: Store, clock: Clock) -> None:
    """A gateway that does not know a job just submitted may learn of it; later it is gone."""
    job = await bought(account, store)
    sandbox.fault(at="poll", kind="vanish", times=None)
    with pytest.raises(JobExpired):
        await Poller(account=account(), store=store, clock=clock, sleep=clock.sleep).poll(job)
    assert clock.now > 60
    entry = await Journal(store).read(job.digest)
    assert entry is not None
    assert entry.state == "expired"


@pytest.mark.parametrize("gateway", GATEWAYS)
async def test_a_passing_not_found_ends_no_old_job(
    sandbox: SandboxServer, account: AccountMaker, store: Store, clock: Clock, gateway: str
) -> None:
    """However old the job is, a few answers that it is not known, soon over, are a fault of the gateway and not its end."""
    sandbox.settings(job_s=600)
    job = await bought(account, store, gateway)
    await clock.sleep(300)
    old = job.model_copy(update={"submitted_at": job.submitted_at - timedelta(seconds=300)})
    sandbox.fault(at="poll", kind="vanish", times=3)
    result = await Poller(account=account(gateway), store=store, clock=clock, sleep=clock.sleep).poll(old)
    assert len(result.outputs) == 1
    entry = await Journal(store).read(job.digest)
    assert entry is not None
    assert entry.state == "succeeded"


@pytest.mark.slow
@pytest.mark.parametrize("gateway", ["ttapi", "uniall", "infiflow", "happyhorse"])  # Chanjing has no code for it: its jobs just stay open.
async def test_an_expired_job_that_the_gateway_knows_again_goes_on(
    sandbox: SandboxServer, account: AccountMaker, store: Store, clock: Clock, gateway: str
) -> None:
    """What was believed to be gone is asked for again by the next run, without being bought again."""
    sandbox.settings(job_s=3000)
    job = await bought(account, store, gateway)
    poller = Poller(account=account(gateway), store=store, clock=clock, sleep=clock.sleep)
    sandbox.fault(at="poll", kind="vanish", times=None)
    with pytest.raises(JobExpired, match="Asking once more is free"):
        await poller.poll(job)
    asked = sandbox.ledger()[0].polls
    with pytest.raises(JobExpired):
        await poller.poll(job)
    assert sandbox.ledger()[0].polls == asked, "the sandbox counts polls of jobs that it knows"
    sandbox.clear_faults()
    prepared = await prepare(HORSE if gateway == "happyhorse" else ride(gateway), account(gateway))
    assert await Submitter(store=store).submit(prepared) == job
    with pytest.raises(JobTimedOut):
        await Poller(account=account(gateway), store=store, deadline_s=1.0, clock=clock, sleep=clock.sleep).poll(job)
    entry = await Journal(store).read(job.digest)
    assert entry is not None
    assert (entry.state, entry.failure) == ("submitted", None), "it is open again, so that collecting finds it"
    assert (await poller.poll(job)).outputs
    assert len(sandbox.ledger()) == 1


async def test_a_job_that_outlived_its_keeping_is_believed_gone_at_once(
    sandbox: SandboxServer, account: AccountMaker, store: Store, clock: Clock
) -> None:
    """After the day for which a provider keeps jobs, that it does not know one is no surprise."""
    job = await bought(account, store)
    old = job.model_copy(update={"submitted_at": job.submitted_at - timedelta(days=2), "expires_at": job.submitted_at - timedelta(days=1)})
    sandbox.fault(at="poll", kind="vanish", times=None)
    with pytest.raises(JobExpired):
        await Poller(account=account(), store=store, deadline_s=1e9, clock=clock, sleep=clock.sleep).poll(old)
    assert clock.now == 0


async def test_a_refused_key_is_told_at_once(sandbox: SandboxServer, account: AccountMaker, store: Store, clock: Clock) -> None:
    """As what it is, a poll that was refused: the job is paid for, and stays open in the journal."""
    job = await bought(account, store)
    sandbox.fault(at="poll", kind="unauthorized", times=None)
    with pytest.raises(PollRejected, match="Check the key") as caught:
        await Poller(account=account(), store=store, clock=clock, sleep=clock.sleep).poll(job)
    assert (caught.value.money, caught.value.task_id) == ("spent", job.task_id)
    entry = await Journal(store).read(job.digest)
    assert entry is not None
    assert entry.state == "submitted"


async def test_answers_that_stay_strange_are_told(sandbox: SandboxServer, account: AccountMaker, store: Store, clock: Clock) -> None:
    """Five answers in a row that no document describes end the wait, with an excerpt, and the job stays open."""
    job = await bought(account, store)
    sandbox.fault(at="poll", kind="empty_result", times=None)
    with pytest.raises(ProtocolError, match="no result"):
        await Poller(account=account(), store=store, clock=clock, sleep=clock.sleep).poll(job)
    assert sandbox.ledger()[0].polls == 5


async def test_a_known_result_is_not_asked_for_again(sandbox: SandboxServer, account: AccountMaker, store: Store, naps: Naps) -> None:
    """The journal's result serves every later run."""
    job = await bought(account, store)
    poller = Poller(account=account(), store=store, sleep=naps)
    first = await poller.poll(job)
    assert await poller.poll(job) == first
    assert sandbox.ledger()[0].polls == 1


async def test_several_outputs_and_inline_outputs_are_told_apart(account: AccountMaker, store: Store, naps: Naps) -> None:
    """N pictures are n outputs; base64 comes inline and is never written to the journal."""
    request = TextToImage(model="gpt-image-2", prompt="A horse", n=3, options={"response_format": "b64_json"})
    job = await Submitter(store=store).submit(await prepare(request, account()))
    result = await Poller(account=account(), store=store, sleep=naps).poll(job)
    assert [output.is_inline for output in result.outputs] == [True] * 3
    assert all(output.inline for output in result.outputs)
    entry = await Journal(store).read(job.digest)
    assert entry is not None
    written = await store.read(Journal(store).path(job.digest, entry.revision))
    assert len(written) < 5000


async def test_another_key_ends_no_job(sandbox: SandboxServer, account: AccountMaker, store: Store, clock: Clock) -> None:
    """Its account knows nothing of the job, and the one that paid for it does: it stays open for that."""
    job = await bought(account, store)
    poller = Poller(account=account(key=SecretStr("another-key")), store=store, clock=clock, sleep=clock.sleep)
    with pytest.raises(PollRejected, match="It was submitted by another key than this one"):
        await poller.poll(job)
    entry = await Journal(store).read(job.digest)
    assert entry is not None
    assert entry.state == "submitted"
    assert (await Poller(account=account(), store=store, clock=clock, sleep=clock.sleep).poll(job)).job == job
