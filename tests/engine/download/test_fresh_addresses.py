"""Addresses that have expired or came inside the response: the gateway is asked for the output once more."""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime, timedelta, timezone

import pytest
from tests.engine.download.conftest import JOB, NOW, PLACE, VIDEO, Gateway, Get, lying
from tests.engine.scripted_server import Wire, cut, file, refuse

from prefect_happyhorse.domain.errors import DownloadFailed, GatewayUnavailable, JobExpired
from prefect_happyhorse.domain.jobs import Output
from prefect_happyhorse.engine.download.download import DownloadOptions
from prefect_happyhorse.engine.storage.store import Store


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
async def test_fresh_address(status: int, get: Get, store: Store) -> None:
    """Where the address works no longer, the gateway is asked for a fresh one; the part that is there is used."""
    async with Wire([cut(VIDEO, 100_000), refuse(status), file(VIDEO)]) as wire:
        gateway = Gateway(Output(kind="video", url=wire.url("/fresh")))
        kept = await get(wire.url("/stale"), refresh=gateway)
    assert [(request.target, request.headers.get("range")) for request in wire.received] == [
        ("/stale", None),
        ("/stale", "bytes=100000-"),
        ("/fresh", "bytes=100000-"),
    ]
    assert (kept.url, gateway.asked) == (wire.url("/fresh"), 1)
    assert lying(store) == {PLACE: VIDEO}


async def test_fresh_addresses_end(get: Get) -> None:
    """The gateway is asked for a fresh address twice, not for ever."""
    async with Wire([refuse(403)] * 9) as wire:
        gateway = Gateway(*[Output(kind="video", url=wire.url())] * 9)
        with pytest.raises(DownloadFailed, match=r"the server answered 403 \(2 fresh addresses tried too\)"):
            await get(wire.url(), refresh=gateway)
    assert (len(wire.received), gateway.asked) == (3, 2)


async def test_known_to_be_expired(get: Get, store: Store) -> None:
    """An address that is known to have expired is not even tried."""
    async with Wire([file(VIDEO)]) as wire:
        await get(wire.url("/old"), expires_at=NOW, now=lambda: NOW, refresh=Gateway(Output(kind="video", url=wire.url("/new"))))
    assert [request.target for request in wire.received] == ["/new"]
    assert lying(store) == {PLACE: VIDEO}


async def test_job_expired(get: Get) -> None:
    """When the gateway no longer knows the job, that is what is raised, with the job's facts."""
    async with Wire([refuse(404)]) as wire:
        with pytest.raises(JobExpired, match="The job is gone") as caught:
            await get(wire.url())
    assert (caught.value.task_id, caught.value.model) == (JOB.task_id, JOB.model)


async def test_gateway_fails_too(get: Get) -> None:
    """When the gateway has no fresh address to give, the error names both failures."""
    async with Wire([refuse(404)]) as wire:
        with pytest.raises(DownloadFailed, match="the server answered 404, and the gateway gave no fresh address: It is down"):
            await get(wire.url(), refresh=Gateway(GatewayUnavailable("It is down.", status_code=502)))


async def test_no_address_at_all(get: Get, store: Store) -> None:
    """What is no address is asked for anew."""
    async with Wire([file(VIDEO)]) as wire:
        with pytest.raises(DownloadFailed, match=r"could not be downloaded from http://.*the address is not valid"):
            await get("http://[::1?a=secret", options=DownloadOptions(refreshes=0))
        await get("http://[::1", refresh=Gateway(Output(kind="video", url=wire.url())))
    assert lying(store) == {PLACE: VIDEO}


async def test_usual_clock(get: Get) -> None:
    """An address that expires in the future is used."""
    async with Wire([file(VIDEO)]) as wire:
        await get(wire.url(), expires_at=datetime.now(timezone.utc) + timedelta(hours=1))
    assert len(wire.received) == 1


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(VIDEO).decode(),
        "data:video/mp4;base64," + base64.b64encode(VIDEO).decode(),
        base64.b64encode(VIDEO).decode().rstrip("="),
        base64.encodebytes(VIDEO).decode(),
    ],
    ids=["base64", "data URL", "no padding", "lines"],
)
async def test_inline(text: str, get: Get, store: Store) -> None:
    """Bytes that came inside the gateway's answer go the same way as those from an address."""
    kept = await get(Output(kind="video", inline=text))
    assert (kept.path, kept.url, kept.sha256) == (PLACE, None, hashlib.sha256(VIDEO).hexdigest())
    assert lying(store) == {PLACE: VIDEO}


@pytest.mark.parametrize(
    "output", [Output(kind="video", inline="!!!!"), Output(kind="video"), Output(kind="video", url="data:;base64,AAA*")]
)
async def test_inline_lost(output: Output, get: Get, store: Store) -> None:
    """Bytes that were not kept, or are damaged, are asked for again."""
    gateway = Gateway(Output(kind="video", inline=base64.b64encode(VIDEO).decode()))
    await get(output, refresh=gateway)
    assert gateway.asked == 1
    assert lying(store) == {PLACE: VIDEO}


def test_a_data_url_is_no_address() -> None:
    """Its bytes are taken, and nothing of them is written where addresses are: into journal, logs and errors."""
    output = Output(kind="video", url="data:video/mp4;base64,AAAA")
    assert (output.url, output.is_inline, output.inline) == (None, True, "data:video/mp4;base64,AAAA")
    assert "AAAA" not in repr(output) + output.model_dump_json()
