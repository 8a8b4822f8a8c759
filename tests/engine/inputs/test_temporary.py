"""Inputs in a gateway's own temporary storage: only where that was asked for, without the key, and before anything is bought."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from tests.engine.conftest import AccountMaker, Naps
from tests.engine.samples import picture
from tests.engine.scripted_server import Received, Wire, raw

from prefect_happyhorse.domain.errors import (
    AuthenticationFailed,
    GatewayUnavailable,
    GenerationError,
    InvalidRequest,
    MediaUnreachable,
    Money,
    RateLimited,
    RequestRejected,
)
from prefect_happyhorse.domain.requests import ImageToVideo
from prefect_happyhorse.engine.http.auth import TokenStore
from prefect_happyhorse.engine.http.connections import Connections
from prefect_happyhorse.engine.inputs.temporary import upload_temporarily
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.shared import Shared
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account, CallRejected, get_gateway
from prefect_happyhorse.sandbox import SandboxServer

KEY = "sesame-1234"
FORM = {
    "oss_access_key_id": "LTAI-policy-key-id",
    "signature": "signature-of-the-policy",
    "policy": "cG9saWN5LWluLWJhc2U2NA==",
    "x_oss_object_acl": "private",
    "x_oss_forbid_overwrite": "true",
    "upload_dir": "dashscope-instant/a",
}


@pytest.fixture
def horse(tmp_path: Path) -> Path:
    path = tmp_path / "horse.png"
    path.write_bytes(picture("png", 640, 480))
    return path


@pytest.fixture
def session(account: AccountMaker, store: Store, naps: Naps) -> Session:
    return Session(account("dashscope", temporary_upload=True), store, sleep=naps, shared=Shared())


def gallop(horse: Path, **more: Any) -> ImageToVideo:
    return ImageToVideo(model="wan2.7-i2v", prompt="It gallops", image=str(horse), duration=2, resolution="720p", **more)


async def submit(session: Session, horse: Path, take: int = 1) -> str:
    return (await session.submit(await session.prepare(gallop(horse), take=take))).job.task_id


def inputs_of(sandbox: SandboxServer) -> list[str]:
    state: Any = sandbox._state
    return [wire.url for job in state.jobs.values() for wire in job.body.inputs]


async def test_a_file_is_uploaded_and_named_by_its_address(sandbox: SandboxServer, session: Session, horse: Path) -> None:
    """Each submit has an address of its own; the digest goes by what the file holds, and the journal knows nothing of the address."""
    first = await session.prepare(gallop(horse))
    await session.submit(first)
    await submit(session, horse, take=2)
    one, other = inputs_of(sandbox)
    assert one.startswith("oss://dashscope-instant/")
    assert one != other
    assert (await session.prepare(gallop(horse))).digest == first.digest
    journal = [path.read_text() for path in (session.store.folder or Path()).rglob("*.json")]
    assert journal
    assert not [text for text in journal if "oss://" in text]


async def test_a_job_of_an_uploaded_picture_is_made_and_kept(session: Session, horse: Path) -> None:
    """What lies in the temporary storage is read as any other input."""
    job = (await session.submit(await session.prepare(gallop(horse)))).job
    assert (await session.store_outputs(await session.poll(job))).asset.kind == "video"


async def test_nothing_is_uploaded_unasked(sandbox: SandboxServer, account: AccountMaker, store: Store, horse: Path) -> None:
    """The picture goes inside the request, as the route accepts it."""
    session = Session(account("dashscope"), store, shared=Shared())
    sandbox.fault(at="policy", kind="unauthorized", times=None)
    await submit(session, horse)
    assert [url[:5] for url in inputs_of(sandbox)] == ["data:"]


async def test_the_store_s_own_address_comes_first(sandbox: SandboxServer, account: AccountMaker, tmp_path: Path, horse: Path) -> None:
    """What is meant for trials stands in only where the store has no address."""
    sandbox.settings(check_inputs="never")
    store = Store(url=str(tmp_path / "outputs"), public_base_url="https://media.example.com/out")
    await submit(Session(account("dashscope", temporary_upload=True), store, shared=Shared()), horse)
    assert inputs_of(sandbox)[0].startswith("https://media.example.com/out/inputs/")


async def test_the_key_stays_at_the_gateway(sandbox: SandboxServer, session: Session, horse: Path) -> None:
    """Whoever takes the upload gets the form and the bytes, the file last."""
    bodies: list[bytes] = []

    async def take(request: Received, reader: Any, writer: Any) -> None:
        bodies.append(await reader.readexactly(int(request.headers["content-length"])))
        await raw(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")(request, reader, writer)

    async with Wire([take]) as storage:
        sandbox.settings(public_url=storage.url(""))
        # The sandbox does not know what went elsewhere, and refuses the submit: a missing object is not passed over.
        with pytest.raises(InvalidRequest, match="no such object"):
            await submit(session, horse)
    (received,), (body,) = storage.received, bodies
    assert KEY not in str(received.headers)
    assert KEY.encode() not in body
    assert not {"authorization", "cookie"} & set(received.headers)
    names = [part.split(b'"')[1].decode() for part in body.split(b"form-data; ")[1:]]
    assert names[-1] == "file"
    assert {"OSSAccessKeyId", "Signature", "policy", "key", "success_action_status", "x-oss-object-acl"} < set(names)
    assert horse.read_bytes() in body
    assert sandbox.ledger() == []


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ({"at": "upload", "kind": "unauthorized", "message": "No."}, MediaUnreachable, "refused its upload with 403: .*No"),
        ({"at": "upload", "kind": "http", "status": 503}, GatewayUnavailable, "temporary storage of dashscope answered 503"),
        ({"at": "upload", "kind": "throttle"}, GatewayUnavailable, "answered 429"),
        ({"at": "upload", "kind": "drop_before"}, GatewayUnavailable, "The upload to 127.0.0.1 broke: RemoteProtocolError"),
        ({"at": "upload", "kind": "drop_after"}, GatewayUnavailable, "The upload to 127.0.0.1 broke"),
        ({"at": "policy", "kind": "unauthorized"}, AuthenticationFailed, "No upload to the temporary storage was allowed"),
        ({"at": "policy", "kind": "throttle"}, RateLimited, "No upload to the temporary storage was allowed"),
        ({"at": "policy", "kind": "http", "status": 500}, GatewayUnavailable, "No upload"),
        ({"at": "policy", "kind": "drop_after"}, GatewayUnavailable, "No upload"),
        ({"at": "policy", "kind": "garbage"}, GatewayUnavailable, "No upload"),
    ],
)
async def test_what_is_not_uploaded_is_not_bought(
    sandbox: SandboxServer, session: Session, horse: Path, fault: dict[str, Any], kind: type[GenerationError], words: str
) -> None:
    """The error says that no money is spent and what to do; the next run uploads anew and buys."""
    sandbox.fault(**fault)
    with pytest.raises(kind, match=words) as caught:
        await submit(session, horse)
    assert caught.value.money is Money.NOT_SPENT
    assert "public_base_url" in (caught.value.advice or "")
    assert sandbox.ledger() == []
    assert (await session.journal.entries())[0] == []
    await submit(session, horse)
    assert len(sandbox.ledger()) == 1


async def test_a_policy_that_expired(sandbox: SandboxServer, session: Session, horse: Path) -> None:
    """It is good for a few minutes; each submit asks for its own."""
    sandbox.settings(policy_ttl_s=0)
    with pytest.raises(MediaUnreachable, match="Policy expired") as caught:
        await submit(session, horse)
    assert caught.value.money is Money.NOT_SPENT
    assert sandbox.ledger() == []
    sandbox.settings(policy_ttl_s=300)
    await submit(session, horse)
    sandbox.advance(400)
    await submit(session, horse, take=2)
    assert len(sandbox.ledger()) == 2


async def test_a_file_that_changes_meanwhile(
    sandbox: SandboxServer, session: Session, horse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was bought would be known for ever under the digest of another picture."""
    prepared = await session.prepare(gallop(horse))
    horse.write_bytes(picture("png", 480, 640))
    with pytest.raises(MediaUnreachable, match="changed since it was checked"):
        await session.submit(prepared)
    monkeypatch.setattr("prefect_happyhorse.engine.inputs.upload.hash_file", _other_hashes())
    with pytest.raises(MediaUnreachable, match="changed while it was uploaded"):
        await session.submit(prepared)
    assert sandbox.ledger() == []


def _other_hashes() -> Any:
    hashes = iter(range(100))
    return lambda _: f"{next(hashes):064x}"


@pytest.mark.parametrize(
    ("host", "base_url", "words"),
    [
        ("http://oss.example.com", "https://dashscope.aliyuncs.com", "it must be https"),
        ("https://127.0.0.1:8443", "https://dashscope.aliyuncs.com", "not on the public internet"),
        ("https://10.0.0.7", "https://dashscope.aliyuncs.com", "not on the public internet"),
        ("https://100.100.100.200", "http://127.0.0.1:1", "cloud's metadata"),
        ("https://user:pw@oss.example.com", "https://dashscope.aliyuncs.com", "host, port and path alone"),
        ("https://oss.example.com/?a=b", "https://dashscope.aliyuncs.com", "host, port and path alone"),
        ("ftp://oss.example.com", "https://dashscope.aliyuncs.com", "host, port and path alone"),
        ("https://oss.example.com\\@evil.example", "https://dashscope.aliyuncs.com", "no backslash"),
    ],
)
async def test_an_upload_goes_to_the_public_internet_by_https(host: str, base_url: str, words: str, horse: Path, tmp_path: Path) -> None:
    """No answer of a gateway leads into a private network; only one of this machine may name it, and nobody a cloud's metadata."""
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, json={"data": {**FORM, "upload_host": host}})

    account = Account("dashscope", base_url, key=SecretStr(KEY), temporary_upload=True)
    async with Connections().client(lambda: httpx.AsyncClient(transport=httpx.MockTransport(answer), trust_env=False)) as client:
        with pytest.raises(CallRejected, match=words) as caught:
            await upload_temporarily(
                horse, "a.png", client=client, gateway=get_gateway("dashscope"), account=account, model="m", tokens=TokenStore(tmp_path)
            )
    assert asked == ["/api/v1/uploads"]
    assert "public_base_url" in (caught.value.advice or "")


async def test_the_form_is_shown_nowhere(sandbox: SandboxServer, session: Session, horse: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its signature opens the storage for as long as the policy lives."""
    async with Wire([_echo]) as storage:
        sandbox.settings(public_url=storage.url(""))
        with caplog.at_level(logging.DEBUG), pytest.raises(MediaUnreachable, match="403") as caught:
            await submit(session, horse)
    state: Any = sandbox._state
    (grant,) = state.uploads._grants.values()
    for secret in (grant.signature, grant.policy, grant.key_id, KEY):
        assert secret not in str(caught.value)
        assert secret not in caplog.text
    assert "***" in str(caught.value)


async def _echo(request: Received, reader: Any, writer: Any) -> None:
    body = await reader.readexactly(int(request.headers["content-length"]))
    said = body.partition(b"Content-Type")[0]
    await raw(b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said))(request, reader, writer)


async def test_a_redirect_is_not_followed(sandbox: SandboxServer, session: Session, horse: Path) -> None:
    """Elsewhere nobody was checked."""

    async def lead(request: Received, reader: Any, writer: Any) -> None:
        await reader.readexactly(int(request.headers["content-length"]))
        await raw(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n")(request, reader, writer)

    async with Wire([lead]) as storage:
        sandbox.settings(public_url=storage.url(""))
        with pytest.raises(MediaUnreachable, match="307"):
            await submit(session, horse)
    assert len(storage.received) == 1


@pytest.mark.parametrize(
    ("head", "body", "words"),
    [
        (b"307 X\r\nLocation: http://xn--zzzzzz/", b"", "not valid"),
        (b"200 X\r\nContent-Encoding: gzip, gzip", gzip.compress(gzip.compress(bytes(10_000_000))), "coded once at most"),
    ],
)
async def test_an_answer_that_is_nonsense_buys_nothing(
    head: bytes, body: bytes, words: str, sandbox: SandboxServer, session: Session, horse: Path
) -> None:
    """And costs no memory."""

    async def answer(request: Received, reader: Any, writer: Any) -> None:
        await reader.readexactly(int(request.headers["content-length"]))
        await raw(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (head, len(body), body))(request, reader, writer)

    async with Wire([answer] * 9) as storage:
        sandbox.settings(public_url=storage.url(""))
        with pytest.raises(GatewayUnavailable, match=words) as caught:
            await submit(session, horse)
    assert caught.value.money is Money.NOT_SPENT
    assert sandbox.ledger() == []


async def test_the_submit_must_ask_for_it(sandbox: SandboxServer, session: Session, horse: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its header the sandbox refuses, as the provider does."""
    monkeypatch.setattr("prefect_happyhorse.gateways.dashscope._RESOLVE", {})
    with pytest.raises(RequestRejected, match="not asked to be resolved"):
        await submit(session, horse)
    assert sandbox.ledger() == []
