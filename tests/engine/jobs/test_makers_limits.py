"""What the maker's own gateway documents of limits is kept to before anything is sent."""

from __future__ import annotations

import base64
import logging
from datetime import datetime, timezone
from pathlib import Path

import pytest
from tests.engine.conftest import AccountMaker
from tests.engine.samples import movie

from prefect_happyhorse.catalog import resolve
from prefect_happyhorse.domain.errors import MediaUnreachable
from prefect_happyhorse.domain.requests import ReferenceToVideo, TextToVideo, VideoExtension
from prefect_happyhorse.engine.inputs.upload import upload_inputs
from prefect_happyhorse.engine.jobs.prepare import prepare
from prefect_happyhorse.engine.jobs.shared import Shared
from prefect_happyhorse.engine.jobs.submit import Submitter
from prefect_happyhorse.engine.journal.journal import Journal
from prefect_happyhorse.engine.journal.owner import up_s
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.sandbox import SandboxServer


@pytest.mark.parametrize(("each", "fits"), [(8 * 1024**2, True), (8 * 1024**2 + 3, False)])
async def test_media_inside_a_request_are_counted_together(each: int, fits: bool) -> None:
    """Sixteen MiB in all, as they are decoded."""
    picture = "data:image/png;base64," + base64.b64encode(bytes(each)).decode()
    request = ReferenceToVideo(model="happyhorse-1.1-r2v", prompt="It runs", references=(picture, picture))
    route = resolve(request, "dashscope")
    if fits:
        assert (await upload_inputs(request, route, None, now=datetime.now(timezone.utc), gateway_is_local=False)).references == (
            picture,
            picture,
        )
        return
    with pytest.raises(MediaUnreachable, match=r"at most 16,777,216 bytes .* all together \(got 16,777,222\)"):
        await upload_inputs(request, route, None, now=datetime.now(timezone.utc), gateway_is_local=False)


async def test_submits_of_a_model_wait_for_their_turn(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """Through the limiter that the process has for account and model, and no other."""
    shared, payer = Shared(), account(gateway="dashscope")
    prepared = await prepare(TextToVideo(model="happyhorse-1.1-t2v", prompt="It runs"), payer)
    limiter = shared.submit_limiter(payer, prepared.route)
    assert limiter is not None
    assert shared.submit_limiter(account(), resolve(TextToVideo(model="kling-video", prompt="x"), "happyhorse")) is None
    turns: list[tuple[int, float]] = []

    async def wait() -> int:
        turns.append((len(sandbox.ledger()), up_s()))
        return 0

    limiter.wait = wait  # pyright: ignore[reportAttributeAccessIssue]
    job = await Submitter(store=store, shared=shared).submit(prepared)
    ((charged, waited_until_s),) = turns
    assert (charged, len(sandbox.ledger())) == (0, 1)
    # From when it may have been sent is told by its owner, and no wait before is part of that.
    entry = await Journal(store).read(job.digest)
    assert entry is not None
    assert entry.owner.up_s is not None
    assert entry.owner.up_s >= waited_until_s


async def test_advice_is_told_and_stops_nothing(account: AccountMaker, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A clip of a second where two to fifteen are advised."""
    (tmp_path / "clip.mp4").write_bytes(movie("mp4"))
    request = VideoExtension(model="wan2.7-i2v", prompt="On", clip=str(tmp_path / "clip.mp4"))
    with caplog.at_level(logging.WARNING):
        await prepare(request, account())
    assert "between 2 and 15 s is advised" in caplog.text
