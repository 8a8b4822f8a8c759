"""What a submit's answer says at its worst, from the wire to the journal."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from tests.engine.conftest import Naps
from tests.engine.samples import picture, with_padding
from tests.engine.scripted_server import Received, Wire, raw, refuse

from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.errors import DownloadFailed, SubmissionUncertain
from prefect_happyhorse.domain.jobs import Job, Output
from prefect_happyhorse.domain.requests import ReferenceToVideo, TextToImage
from prefect_happyhorse.engine.download.download import DownloadOptions, download
from prefect_happyhorse.engine.jobs.prepare import Prepared, prepare
from prefect_happyhorse.engine.jobs.results import _origin
from prefect_happyhorse.engine.jobs.submit import Submitter
from prefect_happyhorse.engine.journal.journal import Journal
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account

HORSE = TextToImage(model="gpt-image-2", prompt="A white horse")
ERROR = {"error": {"code": "rate_limit_exceeded", "message": "Slow down."}, "task_id": "t-$(1)", "request_id": "r-1"}


def ok(body: object) -> Any:
    content = json.dumps(body).encode()
    return raw(f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)


async def prepared_at(wire: Wire) -> Prepared:
    return await prepare(HORSE, Account(gateway="happyhorse", base_url=wire.url("").rstrip("/"), key=SecretStr("sesame-1234")))


@pytest.mark.parametrize("status", [200, 400, 409, 429, 500, 503])
async def test_a_job_beside_an_error_is_told_and_not_sent_again(store: Store, naps: Naps, status: int) -> None:
    """Not by this run and not by the next; both say how the job is adopted, by an id that a shell reads as one word."""
    step = ok(ERROR) if status == 200 else refuse(status, body=json.dumps(ERROR).encode())
    async with Wire([step]) as wire:
        prepared = await prepared_at(wire)
        submitter = Submitter(store=store, sleep=naps)
        for _ in range(2):
            with pytest.raises(SubmissionUncertain) as caught:
                await submitter.submit(prepared)
            assert caught.value.task_id == "t-$(1)"
            assert f"happyhorse jobs adopt 't-$(1)' {prepared.digest[:12]}" in str(caught.value)
            assert '"code": "rate_limit_exceeded"' in str(caught.value)
        assert len(wire.received) == 1
    entry = await Journal(store).read(prepared.digest)
    assert entry is not None
    assert entry.failure is not None
    assert (entry.state, entry.failure.task_id) == ("uncertain", "t-$(1)")
    assert '"code": "rate_limit_exceeded"' in entry.failure.message


async def test_the_request_id_of_such_an_answer_is_told(store: Store, naps: Naps) -> None:
    """The provider can find the call by it."""
    async with Wire([ok(ERROR)]) as wire:
        with pytest.raises(SubmissionUncertain) as caught:
            await Submitter(store=store, sleep=naps).submit(await prepared_at(wire))
    assert caught.value.request_id == "r-1"


async def test_the_answer_with_an_id_of_a_megabyte_is_kept_in_part(store: Store, naps: Naps) -> None:
    """Nothing is sent again, and the journal stays small."""
    async with Wire([ok({"task_id": "t" * 1_000_000})]) as wire:
        prepared = await prepared_at(wire)
        with pytest.raises(SubmissionUncertain, match="must be 1 to 256 characters") as caught:
            await Submitter(store=store, sleep=naps).submit(prepared)
    entry = await Journal(store).read(prepared.digest)
    assert entry is not None
    assert entry.failure is not None
    assert (caught.value.task_id, entry.failure.task_id) == (None, None)
    assert '{"task_id": "ttt' in entry.failure.message
    assert len(entry.model_dump_json()) < 3_000


async def test_the_journal_keeps_a_data_url_by_reference(store: Store, naps: Naps) -> None:
    """The gateway gets the bytes, and the journal stays small."""
    content = with_padding(picture("png"), 2_000_000)
    inline = "data:image/png;base64," + base64.b64encode(content).decode()
    ride = ReferenceToVideo(model="happyhorse-1.1-r2v", prompt="@1 runs", references=(inline,))
    bodies: list[bytes] = []

    async def take(request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bodies.append(await reader.readexactly(int(request.headers["content-length"])))
        await ok({"output": {"task_id": "t-1", "task_status": "PENDING"}})(request, reader, writer)

    async with Wire([take]) as wire:
        account = Account(gateway="infiflow", base_url=wire.url("").rstrip("/"), key=SecretStr("sesame-1234"))
        prepared = await prepare(ride, account)
        await Submitter(store=store, sleep=naps).submit(prepared)
    assert inline.encode() in bodies[0]
    entry = await Journal(store).read(prepared.digest)
    assert entry is not None
    kept = entry.request.model_dump()["references"][0]
    assert kept == f"data:image/png;sha256={hashlib.sha256(content).hexdigest()};bytes={len(content)}"
    assert len(entry.model_dump_json()) < 3_000


async def test_a_signature_stands_in_no_file_beside_a_result_and_in_no_message(store: Store, tmp_path: Path) -> None:
    """Of whatever kind: not every provider's is known by its name."""
    signed = "https://cdn.example/horse.png?ticket=c2lnbmF0dXJl"
    asset = MediaAsset(kind="image", uri=store.uri("horse.png"), url=signed, media_type="image/png", bytes=3, sha256="00")
    beside = json.loads(_origin(asset))
    assert (beside["url"], asset.url) == ("https://cdn.example/horse.png?…", signed)
    async with Wire([refuse(404)]) as wire, httpx.AsyncClient() as client:
        job = Job(
            gateway="happyhorse",
            account="a",
            capability="text_to_image",
            model="m",
            task_id="t-1",
            digest="d",
            submitted_at=datetime(2026, 11, 20, tzinfo=timezone.utc),
        )
        output = Output(kind="image", url=wire.url("/horse.png?ticket=c2lnbmF0dXJl"))
        options = DownloadOptions(refreshes=0)

        async def same() -> Output:
            return output

        with pytest.raises(DownloadFailed) as caught:
            await download(output, job=job, store=store, client=client, refresh=same, local_allowed=True, options=options)
    assert "/horse.png?…" in str(caught.value)
    assert "c2lnbmF0dXJl" not in str(caught.value)
