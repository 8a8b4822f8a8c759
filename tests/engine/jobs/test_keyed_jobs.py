"""A whole job at a gateway of files, keyed results and deletes: what is bought, kept, and what a cancel may not take away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from tests.engine.conftest import AccountMaker
from tests.engine.samples import picture
from tests.vault import registered

from prefect_happyhorse.domain.errors import CatalogError, JobFailed, PollRejected
from prefect_happyhorse.domain.jobs import JobSnapshot, JobStatus
from prefect_happyhorse.domain.requests import GenerationRequest, ImageToVideo, TextToVideo
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.journal.index import Line
from prefect_happyhorse.engine.journal.journal import JournalEntry
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Gateway
from prefect_happyhorse.sandbox import SandboxServer

KEY = "sesame-open-sesame-1234"
RIDE = TextToVideo(model="coin", prompt="A horse")


@pytest.fixture(autouse=True)
async def _vault() -> AsyncIterator[None]:
    with registered():
        yield


@pytest.fixture
def session(account: AccountMaker, store: Store) -> Session:
    return Session(account("vault", key=SecretStr(KEY)), store)


async def bought(session: Session, request: GenerationRequest = RIDE) -> JournalEntry:
    job = (await session.submit(await session.prepare(request))).job
    entry = await session.journal.read(job.digest)
    assert entry is not None
    return entry


async def after(session: Session, entry: JournalEntry) -> JournalEntry:
    found = await session.journal.read(entry.digest)
    assert found is not None
    return found


async def test_a_job_with_a_file_is_bought_once_and_its_result_kept(sandbox: SandboxServer, session: Session, tmp_path: Path) -> None:
    """The sandbox looks into the file, the key opens the result, and stands in nothing that is written."""
    sandbox.settings(check_inputs="submit")
    (tmp_path / "horse.png").write_bytes(picture())
    request = ImageToVideo(model="coin", prompt="A horse", image=str(tmp_path / "horse.png"))
    entry = await bought(session, request)
    kept = await session.resume(entry)
    assert (kept.asset.url, kept.asset.media_type) == (None, "video/mp4")
    assert (await bought(session, request)).job == entry.job
    (charged,) = sandbox.ledger()
    assert (charged.capability, charged.inputs, charged.downloads) == ("image_to_video", 1, 1)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 4
    assert not [path for path in written if KEY.encode() in path.read_bytes()]
    result = (await after(session, entry)).result
    assert result is not None
    assert result.outputs[0].keyed


async def test_another_process_opens_the_result_with_its_own_account(
    sandbox: SandboxServer, session: Session, account: AccountMaker
) -> None:
    """The address of then may be another's by now: it is asked for anew, below the base URL of today."""
    entry = await bought(session)
    assert entry.job is not None
    result = await session.poll(entry.job)
    moved = result.outputs[0].model_copy(update={"url": f"http://127.0.0.1:9/vault/videos/{entry.job.task_id}/content"})
    stale = result.model_copy(update={"outputs": (moved,)})
    wrong = Session(account("vault", key=SecretStr("bad-key")), session.store)
    with pytest.raises(Exception, match="401"):
        await wrong.store_outputs(result)
    assert (await Session(session.account, session.store).store_outputs(stale)).asset.bytes > 0
    assert len(sandbox.ledger()) == 1


async def test_a_job_whose_dialect_does_not_work_any_more_stays_open(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is paid for, which is said; nothing new is bought meanwhile."""
    entry = await bought(session)
    assert entry.job is not None
    broken = "The dialect 'whinny' cannot be used."

    def fails(name: str) -> Gateway:
        raise CatalogError(broken)

    for module in ("poll", "submit"):
        monkeypatch.setattr(f"prefect_happyhorse.engine.jobs.{module}.get_gateway", fails)
    with pytest.raises(PollRejected, match=broken) as caught:
        await session.poll(entry.job)
    assert caught.value.money == "spent"
    with pytest.raises(CatalogError, match=broken):
        await session.submit(await session.prepare(RIDE, take=2))
    assert (await after(session, entry)).state == "submitted"


async def test_a_deleted_job_has_ended_and_is_perhaps_charged(sandbox: SandboxServer, session: Session) -> None:
    """It is gone when it is asked for, which is what was asked for; nothing buys it again until a person says so."""
    sandbox.settings(job_s=3600)
    entry = await bought(session)
    assert entry.job is not None
    answer = await session.cancel(entry.job)
    assert (answer.accepted, answer.may_be_charged, "deleted the job" in answer.message) == (True, True, True)
    ended = await after(session, entry)
    assert (ended.state, ended.may_be_bought_again, ended.is_open) == ("cancelled", False, False)
    assert Line.of(ended).cost is None
    for again in (session.poll(entry.job), bought(session)):
        with pytest.raises(JobFailed, match="deleted the job") as caught:
            await again
        assert "happyhorse jobs forget" in str(caught.value)
        assert caught.value.money == "may be spent"
    await session.journal.forget(ended)
    assert (await bought(session)).state == "submitted"
    assert [charged.refunded for charged in sandbox.ledger()] == [False, False]


async def test_a_finished_job_is_not_deleted(sandbox: SandboxServer, session: Session) -> None:
    """Its result would go with it; nor one of which nobody can say whether it is finished."""
    entry = await bought(session)
    assert entry.job is not None
    answer = await session.cancel(entry.job)
    assert (answer.accepted, "with all that it has made" in answer.message) == (False, True)
    sandbox.fault(at="poll", kind="http", status=503)
    assert "could not be asked how it stands" in (await session.cancel(entry.job)).message
    assert (await after(session, entry)).state == "submitted"
    assert (await session.resume(entry)).asset.bytes > 0


async def test_a_running_job_is_not_deleted(sandbox: SandboxServer, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by us, nor by a gateway that refuses since it has begun meanwhile: it goes on."""
    sandbox.settings(job_s=3600)
    entry = await bought(session)
    assert entry.job is not None
    sandbox.advance(1800)
    answer = await session.cancel(entry.job)
    assert (answer.accepted, "happyhorse jobs resume" in answer.message) == (False, True)

    async def poll_once(*_: object) -> JobSnapshot:
        return JobSnapshot(status=JobStatus.QUEUED)

    monkeypatch.setattr(Session, "poll_once", poll_once)
    answer = await session.cancel(entry.job)
    assert (answer.accepted, "Failed to cancel" in answer.message) == (False, True)
    assert (await after(session, entry)).state == "submitted"


@pytest.mark.parametrize(
    ("says", "gone"), [(JobStatus.CANCELLED, True), (JobStatus.EXPIRED, True), (JobStatus.RUNNING, False), (JobStatus.SUCCEEDED, False)]
)
async def test_what_a_deleted_job_is_said_to_be(
    sandbox: SandboxServer, session: Session, monkeypatch: pytest.MonkeyPatch, says: JobStatus, gone: bool
) -> None:
    """Another word for gone counts as well, and costs perhaps the same; a job that is still there was not deleted."""
    sandbox.settings(job_s=3600)
    entry = await bought(session)
    assert entry.job is not None
    said = [JobStatus.QUEUED, says]

    async def poll_once(*_: object) -> JobSnapshot:
        return JobSnapshot(status=said.pop(0))

    monkeypatch.setattr(Session, "poll_once", poll_once)
    answer = await session.cancel(entry.job)
    assert (answer.accepted, answer.may_be_charged) == (gone, gone)
