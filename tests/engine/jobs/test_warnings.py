"""What is not as it was asked for is kept as it came, and told wherever the asset is shown."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.engine.conftest import AccountMaker
from tests.engine.download.conftest import JOB
from tests.engine.jobs.test_submit import HORSE
from tests.engine.media.test_blank import SILENT, STILL, film, hill
from tests.engine.media.test_c2pa import PLAIN, with_c2pa
from tests.engine.scripted_server import Wire, file

from prefect_happyhorse.artifacts.markdown import card
from prefect_happyhorse.cli.commands import main
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.jobs import JobResult, Output
from prefect_happyhorse.domain.requests import GenerationRequest, TextToImage, TextToVideo
from prefect_happyhorse.engine.jobs.results import OutputStore, StoredResult
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.journal.index import contents
from prefect_happyhorse.engine.journal.journal import Journal
from prefect_happyhorse.engine.journal.spend import spend
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gallery.views import job_view

RIDE = TextToVideo(model="happyhorse-1.1-t2v", prompt="It runs", resolution="720p", aspect_ratio="1:1", duration=5, watermark=False)
TOLD = (
    "duration: 5 s were asked for (got 3.00 s)",
    "resolution: 720p was asked for (got 256 x 144 px)",
    "aspect_ratio: 1:1 was asked for (got 256 x 144 px)",
)


async def stored(session: Session, request: GenerationRequest, *contents: bytes) -> StoredResult:
    """A job whose outputs are these files."""
    job = (await session.submit(await session.prepare(request))).job
    result = await session.poll(job)
    async with Wire([file(content) for content in contents]) as wire:
        outputs = tuple(Output(kind=result.outputs[0].kind, url=wire.url(f"/{number}")) for number in range(len(contents)))
        return await session.store_outputs(result.model_copy(update={"outputs": outputs}))


async def test_differences_are_told_everywhere(account: AccountMaker, store: Store) -> None:
    """In the asset, beside the file, in the journal, on the card, in the gallery, by the commands, and counted with what was spent."""
    session = Session(account(gateway="dashscope"), store)
    content = film(lambda _: hill(), frames=36, loudness=lambda _: 0.0)
    asset = (await stored(session, RIDE, content)).asset
    assert asset.warnings == (*TOLD, *STILL, *SILENT)
    assert asset.path is not None
    assert asset.path.read_bytes() == content
    assert tuple(json.loads(Path(f"{asset.path}.json").read_text())["warnings"]) == asset.warnings
    entry = await Journal(store).read(asset.job.digest if asset.job else "")
    assert entry is not None
    assert entry.asset == asset
    shown = card(asset, thumbnail=None, link="https://example.com/a.mp4")
    assert all(f"- **Warning:** {warning.split(' (')[0].replace('_', chr(92) + '_')}" in shown for warning in asset.warnings)
    (one,) = job_view(entry, store=None)["files"]
    assert (tuple(one["warnings"]), one["c2pa"]) == (asset.warnings, False)
    told = await asyncio.to_thread(CliRunner().invoke, main, ["jobs", "--store", store.url, "show", entry.digest])
    assert tuple(json.loads(told.stdout)["asset"]["warnings"]) == asset.warnings
    await stored(session, RIDE.model_copy(update={"duration": None, "resolution": None, "aspect_ratio": None}), film(hill))
    for _ in range(2):
        # Read from the entries, and then from the index.
        (group,) = spend((await contents(Journal(store))).lines, ["gateway"])
        assert (group.jobs, group.warned) == (2, 1)
    table = await asyncio.to_thread(CliRunner().invoke, main, ["spend", "--store", store.url, "--json"])
    assert json.loads(table.stdout)["warned"] == 1


async def test_what_is_stored_is_not_compared_again(account: AccountMaker, store: Store) -> None:
    """A second run finds the same warnings in the journal."""
    session = Session(account(), store)
    request = TextToImage(model="gpt-image-2", prompt="A horse", n=2, size="1024x1024")
    first = (await stored(session, request, PLAIN["png"])).asset
    assert first.warnings == ("size: 1024x1024 was asked for (got 640 x 480 px)", "n: 2 were asked for (got 1)")
    assert first.job is not None
    again = await session.store_outputs(await session.poll(first.job))
    assert again.asset == first


async def test_without_a_journal_entry_nothing_is_compared(account: AccountMaker, store: Store) -> None:
    """What was asked for is not known then; a gateway that is gone since is no reason to fail either."""
    async with Wire([file(PLAIN["mp4"])] * 2) as wire:
        result = JobResult(job=JOB, outputs=(Output(kind="video", url=wire.url()),), finished_at=JOB.submitted_at, polls=1)
        collector = OutputStore(account=account(), store=store)
        asset = (await collector.store_outputs(result)).asset
    assert asset.warnings == ()


async def test_warnings_are_few_and_short(account: AccountMaker, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much there would be to say."""
    monkeypatch.setattr("prefect_happyhorse.engine.jobs.results.find_differences", lambda *_, **__: ["x" * 999] * 99)
    asset = (await stored(Session(account(), store), HORSE, PLAIN["png"])).asset
    assert [len(text) for text in asset.warnings] == [200] * 10


async def test_without_thumbnails_only_what_is_measured_is_compared(
    account: AccountMaker, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing more is decoded then."""
    monkeypatch.setenv("HAPPYHORSE_THUMBNAILS", "false")
    asset = (await stored(Session(account(gateway="dashscope"), store), RIDE, film(lambda _: hill(), frames=36))).asset
    assert asset.warnings == TOLD


@pytest.mark.parametrize("form", ["png", "jpeg", "webp", "mp4", "mov"])
async def test_c2pa_data_are_kept_and_told(account: AccountMaker, store: Store, form: str) -> None:
    """Not a byte is changed, and the card says that they are there."""
    content = with_c2pa(form, PLAIN[form])  # type: ignore[arg-type, index]
    request = HORSE if form in {"png", "jpeg", "webp"} else RIDE
    gateway = "happyhorse" if request is HORSE else "dashscope"
    asset = (await stored(Session(account(gateway=gateway), store), request, content)).asset
    assert asset.path is not None
    assert asset.path.read_bytes() == content
    assert asset.c2pa is True
    assert "| C2PA data | in the file |" in card(asset, thumbnail=None, link="a")


def test_earlier_assets_are_read() -> None:
    """One that was written before there were warnings has none, and of C2PA data nothing is known."""
    before = {"kind": "image", "uri": "memory://a.png", "media_type": "image/png", "bytes": 3, "sha256": "00"}
    asset = MediaAsset.model_validate(before)
    assert (asset.warnings, asset.c2pa, asset.has_sound) == ((), None, None)
