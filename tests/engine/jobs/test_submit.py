"""A request is submitted at most once, whatever goes wrong."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from pydantic import SecretStr
from tests.engine.conftest import AccountMaker, Naps
from tests.engine.samples import picture

from prefect_happyhorse.domain.errors import (
    AuthenticationFailed,
    GatewayUnavailable,
    InvalidRequest,
    JobFailed,
    MediaUnreachable,
    ModerationRejected,
    QuotaExceeded,
    RequestRejected,
    SubmissionUncertain,
)
from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.domain.requests import ReferenceToVideo, TextToImage
from prefect_happyhorse.engine.jobs import submit as submit_module
from prefect_happyhorse.engine.jobs.prepare import prepare
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.shared import Shared
from prefect_happyhorse.engine.jobs.submit import Submitter
from prefect_happyhorse.engine.journal.journal import Journal, JournalEntry, LeaseOwner
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account, get_gateway
from prefect_happyhorse.sandbox import SandboxServer

HORSE = TextToImage(model="gpt-image-2", prompt="A white horse")


def ride(gateway: str) -> ReferenceToVideo:
    model = "happy-horse-720p" if gateway == "uniall" else "happyhorse-1.0-r2v"
    return ReferenceToVideo(
        model=model, prompt="It runs", references=("https://example.com/a.png",), resolution="720p", aspect_ratio="16:9", duration=5
    )


@pytest.fixture
def submitter(store: Store, naps: Naps) -> Submitter:
    return Submitter(store=store, sleep=naps)


async def state_of(digest: str, store: Store) -> str | None:
    entry = await Journal(store).read(digest)
    return None if entry is None else entry.state


async def test_the_same_request_is_charged_once(sandbox: SandboxServer, account: AccountMaker, submitter: Submitter) -> None:
    """A second run with an equal request gets the first run's job."""
    first = await submitter.submit(await prepare(HORSE, account()))
    second = await submitter.submit(await prepare(HORSE, account()))
    assert second == first
    assert len(sandbox.ledger()) == 1


async def test_few_of_many_submits_are_in_doubt_at_once(
    sandbox: SandboxServer, account: AccountMaker, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of sixty that begin together, those that wait for a connection hold no lease: a kill would leave each of these to a person."""
    many, payer, shared = 60, account(), Shared()
    asked = [await prepare(HORSE, payer, take=take) for take in range(1, many + 1)]
    slots, goes_on = shared.submit_slots(payer, asked[0].route), asyncio.Event()
    begun = ended = most = 0
    acquire, send = Journal.acquire, submit_module.send

    async def acquiring(journal: Journal, *given: Any) -> JournalEntry | None:
        nonlocal begun, most
        acquired = await acquire(journal, *given)
        begun += 1
        most = max(most, begun - ended)
        if begun == many or (slots.locked() and begun == 16):
            goes_on.set()
        return acquired

    async def sending(*given: Any, **how: Any) -> httpx.Response:
        nonlocal ended
        await goes_on.wait()
        answer = await send(*given, **how)
        ended += 1
        return answer

    monkeypatch.setattr(Journal, "acquire", acquiring)
    monkeypatch.setattr(submit_module, "send", sending)
    await asyncio.gather(*(Submitter(store=store, shared=shared).submit(one) for one in asked))
    assert (most, len(sandbox.ledger())) == (16, many)


async def test_a_session_says_whether_a_job_is_new(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """Of twenty submits of one request at once exactly one bought it; the others, and later ones, go on with it."""
    session = Session(account(), store)
    prepared = await session.prepare(HORSE)
    made = await asyncio.gather(*(session.submit(prepared) for _ in range(20)))
    assert sorted(submitted.is_new for submitted in made) == [False] * 19 + [True]
    assert (await session.submit(prepared)).is_new is False
    assert (await session.submit(await session.prepare(HORSE, take=2))).is_new is True
    assert len(sandbox.ledger()) == 2


async def test_another_take_account_or_prompt_is_another_job(sandbox: SandboxServer, account: AccountMaker, submitter: Submitter) -> None:
    """What makes a request another one is its content, its account and its take; a new key is none of them."""
    await submitter.submit(await prepare(HORSE, account()))
    await submitter.submit(await prepare(HORSE, account(), take=2))
    await submitter.submit(await prepare(HORSE, account(label="other")))
    await submitter.submit(await prepare(HORSE.model_copy(update={"prompt": "A black horse"}), account()))
    await submitter.submit(await prepare(HORSE, account(key=SecretStr("rotated"))))
    assert len(sandbox.ledger()) == 4


async def test_equal_requests_at_the_same_moment_share_a_job(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """Of twenty runs at once, one submits and the others wait for its job."""
    prepared = await prepare(HORSE, account())
    jobs = await asyncio.gather(*(Submitter(store=store).submit(prepared) for _ in range(20)))
    assert len({job.task_id for job in jobs}) == 1
    assert len(sandbox.ledger()) == 1


@pytest.mark.parametrize("reads", [lambda: None, lambda: "t-1", lambda: 1 / 0])
async def test_an_answer_that_a_dialect_cannot_read_is_uncertain(
    reads: Callable[[], Any], sandbox: SandboxServer, account: AccountMaker, submitter: Submitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dialect is a stranger's code: whatever it does, the job may be there."""
    monkeypatch.setattr(type(get_gateway("happyhorse")), "read_submit", lambda *_: reads())
    prepared = await prepare(HORSE, account())
    for _ in range(2):
        with pytest.raises(SubmissionUncertain):
            await submitter.submit(prepared)
    assert len(sandbox.ledger()) == 1


async def test_the_intent_is_written_before_the_request_is_sent(
    sandbox: SandboxServer, account: AccountMaker, submitter: Submitter, store: Store
) -> None:
    """A request that nobody answered stands in the journal, so the next run does not send it again."""
    sandbox.fault(at="submit", kind="drop_after")
    prepared = await prepare(HORSE, account())
    for _ in range(2):
        with pytest.raises(SubmissionUncertain) as caught:
            await submitter.submit(prepared)
        assert caught.value.digest == prepared.digest
        assert caught.value.money == "may be spent"
        entry = await Journal(store).read(prepared.digest)
        assert entry is not None
        assert (entry.state, entry.job) == ("uncertain", None)
        assert entry.failure is not None
        assert "broke after it was sent" in entry.failure.message
    assert len(sandbox.ledger()) == 1


@pytest.mark.parametrize("gateway", ["ttapi", "uniall", "chanjing", "infiflow", "happyhorse"])
@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "http", "html", "garbage", "no_task_id"])
async def test_an_unknown_outcome_is_never_sent_again(
    sandbox: SandboxServer, account: AccountMaker, submitter: Submitter, naps: Naps, gateway: str, kind: str
) -> None:
    """Whatever leaves the outcome open raises SubmissionUncertain after one request, and keeps the intent."""
    sandbox.fault(at="submit", kind=kind, times=None)
    with pytest.raises(SubmissionUncertain, match="resubmit"):
        await submitter.submit(await prepare(ride(gateway), account(gateway)))
    assert sandbox.faults()[0]["struck"] == 1
    assert naps.taken == []


@pytest.mark.parametrize("gateway", ["ttapi", "uniall", "chanjing", "infiflow", "happyhorse"])
async def test_throttling_is_waited_out(
    sandbox: SandboxServer, account: AccountMaker, submitter: Submitter, naps: Naps, gateway: str
) -> None:
    """A request that was refused for its rate did no work: it is sent again, no sooner than the gateway asks."""
    sandbox.fault(at="submit", kind="throttle", times=2, retry_after_s=7)
    job = await submitter.submit(await prepare(ride(gateway), account(gateway)))
    assert [entry.task_id for entry in sandbox.ledger()] == [job.task_id]
    assert len(naps.taken) == 2
    assert min(naps.taken) >= (0.5 if gateway == "chanjing" else 7.0)


async def test_patience_ends(sandbox: SandboxServer, account: AccountMaker, store: Store, naps: Naps) -> None:
    """A gateway that keeps throttling ends as GatewayUnavailable, which a task may retry; no lease stays."""
    sandbox.fault(at="submit", kind="throttle", times=None, retry_after_s=50)
    prepared = await prepare(HORSE, account())
    with pytest.raises(GatewayUnavailable) as caught:
        await Submitter(store=store, sleep=naps).submit(prepared)
    assert (caught.value.money, caught.value.retryable) == ("not spent", True)
    assert len(naps.taken) == 2
    assert await state_of(prepared.digest, store) == "released"


async def test_a_gateway_that_is_down_is_tried_again(account: AccountMaker, submitter: Submitter, naps: Naps, store: Store) -> None:
    """A refused connection bought nothing: it is tried five times, and then the lease is released."""
    prepared = await prepare(HORSE, account(base_url="http://127.0.0.1:9"))
    with pytest.raises(GatewayUnavailable, match="never reached"):
        await submitter.submit(prepared)
    assert len(naps.taken) == 4
    assert await state_of(prepared.digest, store) == "released"


@pytest.mark.parametrize(
    ("kind", "error"),
    [("refuse", InvalidRequest), ("unauthorized", AuthenticationFailed), ("quota", QuotaExceeded), ("moderation", ModerationRejected)],
)
@pytest.mark.parametrize("gateway", ["ttapi", "infiflow", "uniall", "happyhorse"])
async def test_a_refusal_is_final_and_frees_the_claim(
    sandbox: SandboxServer, account: AccountMaker, submitter: Submitter, store: Store, gateway: str, kind: str, error: type[RequestRejected]
) -> None:
    """A refused request did no work, is not sent again by itself, and may be sent again by hand."""
    sandbox.fault(at="submit", kind=kind, accept=False)
    prepared = await prepare(ride(gateway), account(gateway))
    with pytest.raises(error) as caught:
        await submitter.submit(prepared)
    assert (caught.value.money, caught.value.gateway, caught.value.model) == ("not spent", gateway, prepared.request.model)
    assert await state_of(prepared.digest, store) == "released"
    await submitter.submit(prepared)
    assert len(sandbox.ledger()) == 1


async def test_a_dead_owner_on_this_machine_is_seen_at_once(account: AccountMaker, submitter: Submitter, store: Store, naps: Naps) -> None:
    """A process that died between lease and answer leaves an uncertain submit, told without waiting."""
    prepared = await prepare(HORSE, account())
    dead = LeaseOwner(process=_process_that_ended(), run="another")
    await Journal(store).acquire(_entry(prepared.digest, dead))
    with pytest.raises(SubmissionUncertain, match="nobody knows"):
        await submitter.submit(prepared)
    assert naps.taken == []


def _process_that_ended() -> int:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def _entry(digest: str, owner: LeaseOwner) -> JournalEntry:
    return JournalEntry(digest=digest, state="intent", gateway="happyhorse", account="default", take=1, request=HORSE, owner=owner)


async def test_resubmit_pays_again_when_told_to(sandbox: SandboxServer, account: AccountMaker, store: Store, naps: Naps) -> None:
    """on_uncertain="resubmit" drops the old lease and submits."""
    prepared = await prepare(HORSE, account())
    await Journal(store).acquire(_entry(prepared.digest, LeaseOwner()))
    job = await Submitter(store=store, on_uncertain="resubmit", sleep=naps).submit(prepared)
    assert [entry.task_id for entry in sandbox.ledger()] == [job.task_id]


async def test_a_lease_that_is_given_back_is_taken(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """A run that waits for another's lease submits itself once the other's request was refused."""
    prepared = await prepare(HORSE, account())
    journal = Journal(store)
    intent = await journal.acquire(_entry(prepared.digest, LeaseOwner()))
    assert intent is not None
    released: list[None] = []

    async def release(seconds: float) -> None:
        if not released:
            released.append(await journal.release(intent, None))

    with intent.owner.submitting():
        job = await Submitter(store=store, sleep=release).submit(prepared)
    assert [entry.task_id for entry in sandbox.ledger()] == [job.task_id]


async def test_a_journal_entry_that_cannot_be_read_stops_the_submit(
    sandbox: SandboxServer, account: AccountMaker, submitter: Submitter, store: Store
) -> None:
    """A damaged entry may stand for a paid job, so it is never taken for none."""
    prepared = await prepare(HORSE, account())
    await store.write(Journal(store).path(prepared.digest, 1), b"{")
    with pytest.raises(SubmissionUncertain, match="cannot be read"):
        await submitter.submit(prepared)
    assert sandbox.ledger() == []


async def test_a_job_that_failed_is_not_bought_again(account: AccountMaker, submitter: Submitter, store: Store) -> None:
    """A job that the provider ended stays ended until another take is asked for."""
    prepared = await prepare(HORSE, account())
    job = await submitter.submit(prepared)
    await Journal(store).known_failure(JobFailed("It was too dark."), job)
    with pytest.raises(JobFailed, match=r"too dark.*take") as caught:
        await submitter.submit(prepared)
    assert caught.value.task_id == job.task_id


async def _by_its_task(running: Coroutine[Any, Any, Job], accepted: Callable[[], Awaitable[None]], times: int) -> None:
    """Cancel as asyncio does: once for each call."""
    task = asyncio.create_task(running)
    await accepted()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task


async def _by_a_scope(running: Coroutine[Any, Any, Job], accepted: Callable[[], Awaitable[None]], times: int) -> None:
    """Cancel as a time-out of anyio, of Prefect and of a server does: again and again, until it is heard."""

    async def cancel(scope: anyio.CancelScope) -> None:
        await accepted()
        scope.cancel()

    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            group.start_soon(cancel, scope)
            await running
    assert scope.cancelled_caught


@pytest.mark.parametrize(("cancelled", "times"), [(_by_its_task, 1), (_by_its_task, 3), (_by_a_scope, 1)])
async def test_a_cancelled_submit_still_writes_its_job_down(
    sandbox: SandboxServer, account: AccountMaker, store: Store, cancelled: Callable[..., Awaitable[None]], times: int
) -> None:
    """A run that is cancelled while its request is under way waits for the answer: the task id stands nowhere else."""
    sandbox.fault(at="submit", kind="stall_after", seconds=600)
    prepared = await prepare(HORSE, account())

    async def accepted() -> None:
        while not sandbox.ledger():  # noqa: ASYNC110 -- the ledger is another thread's, and has no event to wait for
            await asyncio.sleep(0.01)
        # The answer comes after many turns of the event loop, in each of which it may be cancelled again.
        asyncio.get_running_loop().call_later(0.2, sandbox.release)

    await cancelled(Submitter(store=store).submit(prepared), accepted, times)
    entry = await Journal(store).read(prepared.digest)
    assert entry is not None
    assert entry.job is not None
    assert [charged.task_id for charged in sandbox.ledger()] == [entry.job.task_id]


def test_the_end_of_the_event_loop_waits_for_the_answer(
    sandbox: SandboxServer, account: AccountMaker, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """`asyncio.run` cancels all that is under way, where another part of a script fails or a signal ends it."""
    sandbox.fault(at="submit", kind="stall_after", seconds=600)
    digests: list[str] = []

    async def script() -> None:
        prepared = await prepare(HORSE, account())
        digests.append(prepared.digest)
        submitting = asyncio.create_task(Submitter(store=store).submit(prepared))
        while not sandbox.ledger():  # noqa: ASYNC110 -- the ledger is another thread's, and has no event to wait for
            await asyncio.sleep(0.01)
        threading.Timer(0.2, sandbox.release).start()
        raise RuntimeError(f"{submitting} goes on")

    with pytest.raises(RuntimeError, match="goes on"):
        asyncio.run(script())
    assert f"The submit of {digests[0][:12]} is under way, and its answer is waited for" in caplog.text
    entry = asyncio.run(Journal(store).read(digests[0]))
    assert entry is not None
    assert entry.job is not None
    assert [charged.task_id for charged in sandbox.ledger()] == [entry.job.task_id]


async def test_a_submit_that_is_cancelled_between_two_sends_sends_nothing_more(
    sandbox: SandboxServer, account: AccountMaker, store: Store
) -> None:
    """Nobody waits for what it would buy, and nothing was bought yet."""
    sandbox.fault(at="submit", kind="throttle", times=1)
    prepared = await prepare(HORSE, account())
    pausing = asyncio.Event()

    async def pause(seconds: float) -> None:
        pausing.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(Submitter(store=store, sleep=pause).submit(prepared))
    await pausing.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sandbox.ledger() == []
    assert (await Submitter(store=store).submit(prepared)).task_id == sandbox.ledger()[0].task_id


async def test_a_store_that_cannot_be_written_stops_the_submit(sandbox: SandboxServer, account: AccountMaker, tmp_path: Path) -> None:
    """Without a journal nothing is bought."""
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="file"):
        await Submitter(store=Store(url=str(tmp_path / "file"))).submit(await prepare(HORSE, account()))
    assert sandbox.ledger() == []


async def test_every_problem_is_told_before_anything_is_sent(sandbox: SandboxServer, account: AccountMaker, tmp_path: Path) -> None:
    """Problems of fields and of media stand in one error, which names route and allowed ranges."""
    text = tmp_path / "notes.png"
    text.write_text("not a picture")
    request = ReferenceToVideo(
        model="happyhorse-1.1-r2v",
        prompt="@9 " + "x" * 6000,
        references=(str(text), str(tmp_path / "missing.png"), "ftp://example.com/a.png", *["https://example.com/a.png"] * 7),
        duration=2,
        seed=-1,
        options={"quality": "high"},
    )
    with pytest.raises(InvalidRequest) as caught:
        await prepare(request, account("ttapi"))
    told = str(caught.value)
    for expected in (
        "ttapi",
        "happyhorse-1.1-r2v",
        "10",
        "duration must be between 3 and 15 seconds (got 2)",
        "seed must be between 0 and 2147483647 (got -1)",
        "5000",
        "notes.png",
        "missing.png",
        "ftp",
        "options.quality",
    ):
        assert expected in told
    assert sandbox.ledger() == []


async def test_a_call_never_leaves_the_gateways_address(sandbox: SandboxServer, account: AccountMaker, submitter: Submitter) -> None:
    """A path that would lead to another host is refused, since the key would go there."""
    stray = account(base_url=sandbox.url, submit_path="@evil.example/steal")
    with pytest.raises(RequestRejected, match="take the key away"):
        await submitter.submit(await prepare(HORSE, stray))


async def test_without_a_key_nothing_is_sent(sandbox: SandboxServer, account: AccountMaker, submitter: Submitter) -> None:
    """An account without a key is told how to get one."""
    with pytest.raises(AuthenticationFailed, match="HAPPYHORSE_API_KEY"):
        await submitter.submit(await prepare(HORSE, account(key=None)))
    assert sandbox.ledger() == []


def test_every_transport_error_has_one_meaning() -> None:
    """Httpx's transport errors are sorted completely, each into one class."""
    from prefect_happyhorse.engine.http.client import NEVER_DELIVERED, OUTCOME_UNKNOWN

    def leaves(kind: type[Exception]) -> set[type[Exception]]:
        children = [child for child in kind.__subclasses__() if child.__module__.partition(".")[0] == "httpx"]
        return {kind} if not children else {leaf for child in children for leaf in leaves(child)}

    for leaf in leaves(httpx.TransportError):
        assert issubclass(leaf, NEVER_DELIVERED) != issubclass(leaf, OUTCOME_UNKNOWN), leaf


def test_the_account_never_shows_its_key() -> None:
    """Neither repr nor str of an account holds a secret."""
    account = Account(gateway="ttapi", base_url="https://api.ttapi.io", key=SecretStr("sesame-1234"), secret_key=SecretStr("sesame-5678"))
    assert "sesame" not in f"{account!r} {account}"


@pytest.mark.parametrize("public", [True, False])
async def test_a_medium_that_changes_before_it_is_sent_is_refused(
    sandbox: SandboxServer, account: AccountMaker, tmp_path: Path, public: bool
) -> None:
    """Red must not be bought as green, and be given for green ever after."""
    store = Store(str(tmp_path / "outputs"), public_base_url="https://media.example.com" if public else None)
    horse = tmp_path / "horse.png"
    horse.write_bytes(picture(colour="green"))
    request = ride("infiflow").model_copy(update={"references": (str(horse),)})
    prepared = await prepare(request, account("infiflow"), store=store)
    horse.write_bytes(picture(colour="red"))
    with pytest.raises(MediaUnreachable, match="has changed since it was checked") as caught:
        await Submitter(store=store).submit(prepared)
    assert caught.value.money == "not spent"
    assert sandbox.ledger() == []
