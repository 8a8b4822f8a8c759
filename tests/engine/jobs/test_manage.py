"""What a person does with the jobs of a journal: choose, adopt, forget, resume, cancel."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest
from pydantic import SecretStr
from tests.engine.conftest import AccountMaker, Naps
from tests.engine.jobs.test_submit import HORSE, ride
from tests.engine.journal.test_lease import elsewhere, ended, intent_of

from prefect_happyhorse.domain.errors import JobExpired, JobFailed, SubmissionUncertain
from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.engine.jobs import manage as jobs
from prefect_happyhorse.engine.jobs.poll import Poller
from prefect_happyhorse.engine.jobs.prepare import Prepared, prepare
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.shared import Shared
from prefect_happyhorse.engine.jobs.submit import Submitter
from prefect_happyhorse.engine.journal.index import open_entries
from prefect_happyhorse.engine.journal.journal import Cancellation, Failure, Journal, JournalEntry, LeaseOwner
from prefect_happyhorse.engine.journal.owner import LEASE_TTL_S
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account
from prefect_happyhorse.sandbox import SandboxServer

ALL = ["ttapi", "uniall", "chanjing", "infiflow", "happyhorse"]


async def bought(store: Store, account: Account, *, take: int = 1) -> JournalEntry:
    job = await Submitter(store=store).submit(await prepare(ride(account.gateway), account, take=take))
    return await entry_of(store, job.digest)


async def entry_of(store: Store, digest: str) -> JournalEntry:
    entry = await Journal(store).read(digest)
    assert entry is not None
    return entry


async def left_uncertain(sandbox: SandboxServer, store: Store, account: Account, *, kind: str = "drop_after") -> Prepared:
    """Submit into a broken connection."""
    sandbox.fault(at="submit", kind=kind)
    prepared = await prepare(ride(account.gateway), account)
    with pytest.raises(SubmissionUncertain):
        await Submitter(store=store).submit(prepared)
    return prepared


@pytest.mark.parametrize("gateway", ALL)
async def test_an_adopted_job_is_collected_and_never_bought_again(
    sandbox: SandboxServer, account: AccountMaker, store: Store, gateway: str
) -> None:
    """The task id from the provider's console makes an uncertain submit a job like any other: one charge, one file."""
    prepared = await left_uncertain(sandbox, store, account(gateway))
    (charged,) = sandbox.ledger()
    entry = await Session(account(gateway), store).adopt(await entry_of(store, prepared.digest), charged.task_id)
    assert (entry.state, entry.job and entry.job.task_id) == ("submitted", charged.task_id)
    assert (await Submitter(store=store).submit(prepared)).task_id == charged.task_id
    collected = await Session(account(gateway), store).resume(entry)
    assert await store.exists(store.path_of(collected.asset.uri) or "")
    assert len(sandbox.ledger()) == 1


async def test_a_job_that_an_error_named_is_kept_beside_the_one_that_is_adopted(
    sandbox: SandboxServer, account: AccountMaker, store: Store
) -> None:
    """A resubmit may leave two at the provider: the one that a person finds first does not hide the other."""
    prepared = await prepare(HORSE, account())
    journal = Journal(store)
    intent = await journal.acquire(intent_of(prepared.digest, ended()))
    assert intent is not None
    await journal.give_up(intent, Failure(message="oops", task_id="named-1"))
    uncertain = await entry_of(store, prepared.digest)
    adopted = await jobs.adopt(journal, uncertain, "found-1")
    assert (adopted.job and adopted.job.task_id, len(adopted.aside)) == ("found-1", 1)
    listing = await journal.entries()
    assert {entry.job.task_id for entry in listing.entries if entry.job is not None} == {"found-1", "named-1"}


@pytest.mark.parametrize("gateway", ALL)
async def test_a_job_that_the_gateway_does_not_know_is_not_adopted(
    sandbox: SandboxServer, account: AccountMaker, store: Store, gateway: str
) -> None:
    """A mistyped id is told before it hides an uncertain submit; a person who knows better may insist."""
    prepared = await left_uncertain(sandbox, store, account(gateway))
    journal = Journal(store)
    entry = await entry_of(store, prepared.digest)
    with pytest.raises(JobExpired, match="does not know"):
        await Session(account(gateway), store).adopt(entry, "typo-1")
    assert await entry_of(store, prepared.digest) == entry
    assert (await jobs.adopt(journal, entry, "typo-1")).state == "submitted"


async def test_what_cannot_be_adopted(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """An entry with a job, one that is being submitted at this moment, a job that is another entry's, and what is no id."""
    journal = Journal(store)
    paid = await bought(store, account())
    assert paid.job is not None
    with pytest.raises(ValueError, match="has a job already"):
        await jobs.adopt(journal, paid, "t-2")
    owner = LeaseOwner()
    facts = {"digest": "0" * 64, "state": "intent", "job": None, "owner": owner, "revision": 0}
    under_way = await journal.acquire(paid.model_copy(update=facts))
    assert under_way is not None
    with owner.submitting(), pytest.raises(ValueError, match="right now"):
        await jobs.adopt(journal, under_way, "t-2")
    uncertain = await journal.create(under_way.becoming("uncertain"))
    assert uncertain is not None
    # The same id at another gateway is another job.
    facts = {"digest": "1" * 64, "gateway": "ttapi", "owner": elsewhere(at=paid.begun_at - timedelta(days=1)), "revision": 0}
    assert await journal.create(paid.model_copy(update=facts)) is not None
    with pytest.raises(ValueError, match=f"stands under {paid.digest[:12]}"):
        await jobs.adopt(journal, uncertain, paid.job.task_id)
    for nothing in ("", " ", "a b"):
        with pytest.raises(ValueError, match="The task id must be 1 to 256 characters"):
            await jobs.adopt(journal, uncertain, nothing)
    assert len(sandbox.ledger()) == 1


async def test_a_submit_of_a_process_that_hangs_is_adopted_after_a_long_silence(
    sandbox: SandboxServer, account: AccountMaker, store: Store, naps: Naps
) -> None:
    """Adopting buys nothing, and its owner, should it go on, finds its lease lost; while the owner is heard it is left alone."""
    journal = Journal(store)
    prepared = await prepare(ride("happyhorse"), account())
    hanging = LeaseOwner(process=os.getppid(), run="another")
    intent = await journal.acquire(intent_of(prepared.digest, hanging))
    assert intent is not None
    adopted = await jobs.adopt(journal, intent, "t-1", sleep=naps)
    assert (adopted.state, adopted.job and adopted.job.task_id) == ("submitted", "t-1")
    assert sum(naps.taken) > LEASE_TTL_S
    assert (await Submitter(store=store).submit(prepared)).task_id == "t-1"
    assert sandbox.ledger() == []


async def test_a_forgotten_submit_is_bought_anew(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """What the provider's console does not show was never accepted: forgotten, it is submitted by the next run."""
    prepared = await left_uncertain(sandbox, store, account(), kind="drop_before")
    journal = Journal(store)
    await jobs.forget(journal, await entry_of(store, prepared.digest))
    job = await Submitter(store=store).submit(prepared)
    assert [entry.task_id for entry in sandbox.ledger()] == [job.task_id]


async def test_a_submit_under_way_is_not_forgotten(account: AccountMaker, store: Store) -> None:
    """Forgetting it would let another run submit at the same time; a dead process's may be forgotten."""
    journal = Journal(store)
    paid = await bought(store, account())
    owner = LeaseOwner()
    facts = {"digest": "0" * 64, "state": "intent", "job": None, "revision": 0}
    under_way = await journal.acquire(paid.model_copy(update=facts | {"owner": owner}))
    assert under_way is not None
    with owner.submitting(), pytest.raises(ValueError, match="right now"):
        await jobs.forget(journal, under_way)
    assert await entry_of(store, under_way.digest) == under_way
    left = await journal.acquire(paid.model_copy(update=facts | {"digest": "1" * 64, "owner": ended()}))
    assert left is not None
    await jobs.forget(journal, left)
    assert (await entry_of(store, left.digest)).state == "forgotten"


async def test_another_machines_submit_is_forgotten_only_after_a_long_silence(account: AccountMaker, store: Store, naps: Naps) -> None:
    """Whatever its clock says: whoever is still heard is at work."""
    journal = Journal(store)
    paid = await bought(store, account())
    facts = {"digest": "0" * 64, "state": "intent", "job": None, "revision": 0, "owner": elsewhere()}
    intent = await journal.acquire(paid.model_copy(update=facts))
    assert intent is not None

    async def renewed_once(seconds: float) -> None:
        await naps(seconds)
        if len(naps.taken) == 40:
            await store.write(f"journal/leases/{intent.digest}.1.json", b"1")

    await jobs.forget(journal, intent, sleep=renewed_once)
    assert sum(naps.taken) > sum(naps.taken[:40]) + LEASE_TTL_S


async def test_a_paid_job_that_is_forgotten_is_still_listed_and_stored(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """The same request buys another; both are paid for, so both are kept."""
    entry = await bought(store, account())
    await jobs.forget(Journal(store), entry)
    session = Session(account(), store, shared=Shared())
    again = await session.submit(await session.prepare(ride("happyhorse")))
    assert again.is_new
    listed = (await open_entries(session.journal)).entries
    assert {one.job.task_id for one in listed if one.job} == {charged.task_id for charged in sandbox.ledger()}
    uris = {(await session.resume(one)).asset.uri for one in listed}
    assert len(uris) == 2
    assert (await open_entries(session.journal)).entries == []


@pytest.mark.parametrize("gateway", ["ttapi", "infiflow"])
async def test_a_waiting_job_is_cancelled_and_may_be_bought_again(
    sandbox: SandboxServer, account: AccountMaker, store: Store, gateway: str
) -> None:
    """The gateway takes it back, the journal says so, a wait for it ends, and the same request buys it anew."""
    sandbox.settings(job_s=3600)
    entry = await bought(store, account(gateway))
    assert entry.job is not None
    answer = await Session(account(gateway), store).cancel(entry.job)
    assert answer.accepted
    entry = await entry_of(store, entry.digest)
    assert (entry.state, entry.cancellation) == ("cancelled", answer)
    assert entry.job is not None
    with pytest.raises(JobFailed, match="cancelled before it began") as caught:
        await Poller(account=account(gateway), store=store).poll(entry.job)
    assert caught.value.money == "not spent"
    again = await bought(store, account(gateway))
    assert again.state == "submitted"
    assert [charged.refunded for charged in sandbox.ledger()] == [True, False]


@pytest.mark.parametrize("gateway", ALL)
async def test_a_running_job_goes_on(sandbox: SandboxServer, account: AccountMaker, store: Store, gateway: str) -> None:
    """Where the gateway refuses, or has no way, the answer is written down and the job stays what it is: paid for, and open."""
    sandbox.settings(job_s=3600)
    entry = await bought(store, account(gateway))
    sandbox.advance(1800)
    assert entry.job is not None
    answer = await Session(account(gateway), store).cancel(entry.job)
    assert not answer.accepted
    # Where the call is the maker's, and the gateway's own document names none, a refusal says so.
    assert ("The call is DashScope's: " in answer.message) == (gateway in {"ttapi", "infiflow"})
    after = await entry_of(store, entry.digest)
    assert (after.state, after.cancellation) == ("submitted", answer)
    sandbox.advance(3600)
    await Session(account(gateway), store).resume(after)
    assert (await entry_of(store, entry.digest)).state == "kept"


async def test_a_cancel_that_is_answered_well_and_means_no(
    sandbox: SandboxServer, account: AccountMaker, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job is cancelled only once the gateway says so of the job itself: else the next run would pay for it a second time."""
    sandbox.settings(job_s=3600)
    entry = await bought(store, account("infiflow"))
    assert entry.job is not None

    async def polite(self: Session, job: Job) -> Cancellation:
        return Cancellation(accepted=True, message="200: the task can not be canceled")

    monkeypatch.setattr(Session, "_send_cancel", polite)
    answer = await Session(account("infiflow"), store).cancel(entry.job)
    assert not answer.accepted
    assert "is not taken to be cancelled" in answer.message
    assert (await bought(store, account("infiflow"))).job == entry.job
    assert len(sandbox.ledger()) == 1


async def test_a_gateway_that_is_down_cancels_nothing(account: AccountMaker, store: Store) -> None:
    """Nobody heard the cancel, so the job is open as before."""
    entry = await bought(store, account("ttapi"))
    assert entry.job is not None
    answer = await Session(account("ttapi", base_url="http://127.0.0.1:9"), store).cancel(entry.job)
    assert (answer.accepted, "could not be asked" in answer.message) == (False, True)
    assert (await entry_of(store, entry.digest)).state == "submitted"


async def test_a_job_is_found_by_what_people_see(account: AccountMaker, store: Store) -> None:
    """A task id from a log, or the start of a digest from a list; nothing vague is taken."""
    journal = Journal(store)
    one, two = await bought(store, account()), await bought(store, account(), take=2)
    assert one.job is not None
    assert (await jobs.find_entry(journal, one.job.task_id)).digest == one.digest
    assert (await jobs.find_entry(journal, two.digest[:6])).digest == two.digest
    for vague in (one.digest[:5], "", "no-such-job"):
        with pytest.raises(ValueError, match="No job"):
            await jobs.find_entry(journal, vague)
    await journal.create(two.model_copy(update={"job": one.job}))
    with pytest.raises(ValueError, match="means 2 jobs"):
        await jobs.find_entry(journal, one.job.task_id)


async def test_jobs_are_chosen_by_state_payer_run_and_age(account: AccountMaker, store: Store) -> None:
    """Every filter that is given has to fit."""
    one = await bought(store, account())
    two = (await bought(store, account("ttapi", label="other"))).model_copy(update={"flow_run_id": "run"})
    two = two.model_copy(update={"owner": two.owner.model_copy(update={"at": two.owner.at - timedelta(hours=2)})})
    both = [one, two]
    assert jobs.select(both) == both
    assert jobs.select(both, states=["kept"]) == []
    assert jobs.select(both, gateway="ttapi") == jobs.select(both, account="other") == [two]
    assert jobs.select(both, older_than=timedelta(hours=1)) == [two]
    assert jobs.select(both, younger_than=timedelta(hours=1)) == [one]


async def test_resuming_needs_a_job(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """An uncertain submit has nothing to wait for; a person is told what to do."""
    prepared = await left_uncertain(sandbox, store, account())
    with pytest.raises(SubmissionUncertain, match="jobs adopt"):
        await Session(account(), store).resume(await entry_of(store, prepared.digest))


async def test_the_key_of_the_canceller_stays_with_the_gateway(account: AccountMaker, store: Store) -> None:
    """No answer, journal entry or error about a cancel holds it."""
    key = SecretStr("sesame-9999")
    entry = await bought(store, account("ttapi", key=key))
    assert entry.job is not None
    answer = await Session(account("ttapi", key=key), store).cancel(entry.job)
    assert "sesame" not in answer.model_dump_json() + (await entry_of(store, entry.digest)).model_dump_json()


async def test_jobs_of_the_journal_are_jobs(account: AccountMaker, store: Store) -> None:
    """What was written comes back as it was."""
    entry = await bought(store, account())
    assert isinstance(entry.job, Job)
    assert (await Journal(store).entries()).entries == [entry]
    assert HORSE.capability == "text_to_image"
