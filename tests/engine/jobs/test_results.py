"""What was paid for is kept: once, whole, with where it came from beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.engine.conftest import AccountMaker
from tests.engine.jobs.test_submit import HORSE

from prefect_happyhorse.domain.errors import DownloadFailed, JobExpired
from prefect_happyhorse.domain.jobs import JobResult, Output
from prefect_happyhorse.domain.requests import TextToImage
from prefect_happyhorse.engine.download.download import DownloadOptions, StoredOutput
from prefect_happyhorse.engine.jobs import results
from prefect_happyhorse.engine.jobs.poll import Poller
from prefect_happyhorse.engine.jobs.prepare import prepare
from prefect_happyhorse.engine.jobs.results import OutputStore, stored_thumbnail
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.submit import Submitter
from prefect_happyhorse.engine.journal.index import open_entries
from prefect_happyhorse.engine.journal.journal import Journal
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.sandbox import SandboxServer


async def finished(account: AccountMaker, store: Store, request: TextToImage = HORSE) -> JobResult:
    job = await Submitter(store=store).submit(await prepare(request, account()))
    return await Poller(account=account(), store=store).poll(job)


def file_of(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


async def test_an_output_is_kept_with_its_source_and_picture(account: AccountMaker, store: Store) -> None:
    """The file, a JSON beside it, a small picture, and the asset in the journal."""
    result = await finished(account, store)
    collected = await OutputStore(account=account(), store=store).store_outputs(result)
    asset = collected.asset
    beside = json.loads(file_of(f"{asset.uri}.json").read_text())
    assert (beside["sha256"], beside["job"]["task_id"], beside["job"]["prompt"]) == (asset.sha256, result.job.task_id, HORSE.prompt)
    assert await stored_thumbnail(asset, store) == collected.thumbnails[asset.sha256]
    entry = await Journal(store).read(result.job.digest)
    assert entry is not None
    assert (entry.state, entry.asset) == ("kept", asset)


async def test_a_kept_output_is_not_fetched_again(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """A second run finds the file and its picture."""
    result = await finished(account, store)
    collector = OutputStore(account=account(), store=store)
    assert await collector.store_outputs(result) == await collector.store_outputs(result)
    assert sandbox.ledger()[0].downloads == 1


async def test_a_file_that_is_gone_is_fetched_again(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """What the journal calls kept is looked at before it is believed."""
    result = await finished(account, store)
    collector = OutputStore(account=account(), store=store)
    first = (await collector.store_outputs(result)).asset
    file_of(first.uri).unlink()
    again = (await collector.store_outputs(result)).asset
    assert (again.uri, again.sha256) == (first.uri, first.sha256)
    assert file_of(again.uri).stat().st_size == again.bytes
    assert sandbox.ledger()[0].downloads == 2


async def test_a_dead_address_is_asked_for_anew(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """The gateway gives a fresh address, nobody said how long it lives, and nothing is bought."""
    result = await finished(account, store)
    sandbox.fault(at="download", kind="expire")
    asset = (await OutputStore(account=account(), store=store).store_outputs(result)).asset
    assert asset.url != result.outputs[0].url
    assert asset.url_expires_at is None
    assert len(sandbox.ledger()) == 1


async def test_what_came_inside_the_answer_is_asked_for_again(account: AccountMaker, store: Store) -> None:
    """Base64 is never written down, so a later run asks the gateway once more; three pictures are an asset and two siblings."""
    request = TextToImage(model="gpt-image-2", prompt="A horse", n=3, options={"response_format": "b64_json"})
    result = JobResult.model_validate_json((await finished(account, store, request)).model_dump_json())
    assert [output.inline for output in result.outputs] == [None] * 3
    asset = (await OutputStore(account=account(), store=store).store_outputs(result)).asset
    assert len({asset.uri, *(sibling.uri for sibling in asset.siblings)}) == 3
    assert all(file_of(one.uri).stat().st_size == one.bytes for one in (asset, *asset.siblings))


@pytest.mark.parametrize("error", [JobExpired, DownloadFailed])
async def test_a_result_that_is_lost_says_which_job(
    sandbox: SandboxServer, account: AccountMaker, store: Store, error: type[Exception]
) -> None:
    """The job is in the error, and no half file is seen."""
    result = await finished(account, store)
    sandbox.fault(at="download", kind="expire" if error is JobExpired else "wrong_type", times=None)
    if error is JobExpired:
        sandbox.fault(at="poll", kind="vanish", times=None)
    limits = DownloadOptions(retries=0, refreshes=1, backoff_s=0.0)
    with pytest.raises(error) as caught:
        await OutputStore(account=account(), store=store, limits=limits).store_outputs(result)
    assert getattr(caught.value, "task_id", None) == result.job.task_id
    assert getattr(caught.value, "digest", None) == result.job.digest
    assert [file for file in file_of(store.url).rglob("*.png") if ".partial" not in file.parts] == []


async def test_a_job_that_was_finished_and_is_not_is_odd(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """A gateway that takes its word back is told, and the job is not given up."""
    result = await finished(account, store)
    sandbox.fault(at="download", kind="expire", times=None)
    sandbox.fault(at="poll", kind="unknown_status", times=None)
    with pytest.raises(Exception, match="now the gateway says"):
        await OutputStore(account=account(), store=store).store_outputs(result)
    entry = await Journal(store).read(result.job.digest)
    assert entry is not None
    assert entry.state == "succeeded"


async def test_of_several_outputs_each_is_kept_by_itself(
    sandbox: SandboxServer, account: AccountMaker, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that cannot be fetched hides no other, which is stored, recorded and given back; a later run gets the one that is missing."""
    session = Session(account(), store)
    job = (await session.submit(await session.prepare(HORSE.model_copy(update={"n": 2})))).job
    result = await session.poll(job)
    assert len(result.outputs) == 2
    fetch = results.download

    async def second_is_gone(output: Output, **facts: Any) -> StoredOutput:
        if facts["index"] == 1:
            raise DownloadFailed("It is gone.")
        return await fetch(output, **facts)

    with monkeypatch.context() as patch:
        patch.setattr(results, "download", second_is_gone)
        stored = await session.store_outputs(result)
    assert stored.failure is not None
    assert "Output 2 of 2: It is gone. Stored: 1 of 2." in str(stored.failure)
    assert stored.failure.task_id == job.task_id
    assert await store.exists(store.path_of(stored.asset.uri) or "")
    entry = await Journal(store).read(job.digest)
    assert entry is not None
    assert (entry.state, entry.asset) == ("succeeded", stored.asset)
    whole = await session.resume(entry)
    assert (whole.failure, len(whole.asset.siblings), whole.asset.sha256) == (None, 1, stored.asset.sha256)
    kept = await Journal(store).read(job.digest)
    assert kept is not None
    assert kept.state == "kept"


@pytest.mark.parametrize(("defect", "told"), [(ValueError("a defect"), ValueError), (OSError("no space left"), DownloadFailed)])
async def test_what_is_stored_is_recorded_whatever_befell_the_others(
    account: AccountMaker, store: Store, monkeypatch: pytest.MonkeyPatch, defect: Exception, told: type[Exception]
) -> None:
    """A defect in the way of one output is raised as it is; the other is in the journal by then, and is not fetched again."""
    session = Session(account(), store)
    job = (await session.submit(await session.prepare(HORSE.model_copy(update={"n": 2})))).job
    result = await session.poll(job)
    fetch = results.download

    async def first_is_defect(output: Output, **facts: Any) -> StoredOutput:
        if facts["index"] == 0:
            raise defect
        return await fetch(output, **facts)

    monkeypatch.setattr(results, "download", first_is_defect)
    with pytest.raises(told, match=str(defect)):
        await session.store_outputs(result)
    entry = await Journal(store).read(job.digest)
    assert entry is not None
    assert entry.state == "succeeded"
    assert entry.asset is not None
    assert await store.exists(store.path_of(entry.asset.uri) or "")


async def test_an_address_that_is_none_hides_no_other_output(account: AccountMaker, store: Store) -> None:
    """Its host only looks like an international name: it is told as what it is, and the other output is recorded."""
    session = Session(account(), store)
    job = (await session.submit(await session.prepare(HORSE.model_copy(update={"n": 2})))).job
    result = await session.poll(job)
    nonsense = result.outputs[1].model_copy(update={"url": "http://xn--zzzzzz/y.png"})
    limits = DownloadOptions(retries=0, refreshes=0, backoff_s=0.0)
    collector = OutputStore(account=account(), store=store, limits=limits)
    stored = await collector.store_outputs(result.model_copy(update={"outputs": (result.outputs[0], nonsense)}))
    assert "Output 2 of 2" in str(stored.failure)
    assert "the address is not valid" in str(stored.failure)
    entry = await Journal(store).read(job.digest)
    assert entry is not None
    assert (entry.state, entry.asset) == ("succeeded", stored.asset)


async def test_a_result_that_nobody_has_any_more_is_not_open_for_ever(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """The gateway forgot the job and its address is dead: that is tried once, written down, and not tried again by every collector."""
    session = Session(account(), store)
    job = (await session.submit(await session.prepare(HORSE))).job
    await session.poll(job)
    sandbox.fault(at="poll", kind="vanish", times=None)
    sandbox.fault(at="download", kind="expire", times=None)
    entry = await Journal(store).read(job.digest)
    assert entry is not None
    with pytest.raises(JobExpired):
        await session.resume(entry)
    assert (await open_entries(Journal(store))).entries == []
    gone = await Journal(store).read(job.digest)
    assert gone is not None
    assert (gone.state, gone.result) == ("expired", entry.result)


async def test_the_result_of_another_job_of_the_request_is_not_given_for_it(account: AccountMaker, store: Store) -> None:
    """A run that still holds the first job goes on with that, though a person had it forgotten and a second is stored since."""
    session = Session(account(), store)
    first = await session.poll((await session.submit(await session.prepare(HORSE))).job)
    entry = await Journal(store).read(first.job.digest)
    assert entry is not None
    await session.journal.forget(entry)
    second = await session.store_outputs(await session.poll((await session.submit(await session.prepare(HORSE))).job))
    again = await session.store_outputs(first)
    assert again.asset.job == first.job
    assert second.asset.job != first.job
