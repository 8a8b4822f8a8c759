"""Object stores: what they cannot do is refused, and their failures are told from missing files."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import botocore.session
import httpx
import pytest
from botocore.parsers import create_parser
from tests.engine.storage.conftest import StoreMaker

from prefect_happyhorse.engine.storage import fsspec_backend
from prefect_happyhorse.engine.storage.store import Store

_NAMED = (
    "<Contents><Key>outputs/a%2Bb%26c&amp;&#228;.json</Key><LastModified>2026-11-24T18:15:29.000Z</LastModified><ETag>&quot;9b2c&quot;</ETag>"
    "<Size>12</Size><StorageClass>STANDARD</StorageClass></Contents>"
)
_TRUNCATED = "<IsTruncated>true</IsTruncated><NextContinuationToken>a/b==</NextContinuationToken>"
_PREFIXES = "<CommonPrefixes><Prefix>outputs/ab/</Prefix></CommonPrefixes>"


async def test_wrong_key_is_not_missing(s3: StoreMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal by the store is not taken for the absence of a file."""
    store = s3()
    fs, _ = store._backend._opened  # pyright: ignore[reportAttributeAccessIssue]

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Access Denied")

    monkeypatch.setattr(fs, "info", refuse)
    with pytest.raises(PermissionError):
        await store.exists("a")


@pytest.mark.parametrize(("conflicts", "is_won"), [(1, True), (4, True), (5, None)])
async def test_conflict(conflicts: int, is_won: bool | None, s3: StoreMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """When S3 cannot tell who was first and asks to try again, that is done, a few times."""
    from botocore.exceptions import ClientError

    store = s3()
    fs, _ = store._backend._opened  # pyright: ignore[reportAttributeAccessIssue]
    pipe_file, left = fs.pipe_file, [None] * conflicts

    def conflict(*args: Any, **kwargs: Any) -> None:
        if left:
            left.pop()
            cause = ClientError({"Error": {"Code": "ConditionalRequestConflict", "Message": "Conflict"}}, "PutObject")
            raise OSError(errno.EBUSY, "Conflict") from cause
        pipe_file(*args, **kwargs)

    monkeypatch.setattr(fs, "pipe_file", conflict)
    if is_won is None:
        with pytest.raises(OSError, match="Conflict"):
            await store.create("claim", b"1")
    else:
        assert await store.create("claim", b"1") is is_won


async def test_presigned(s3: StoreMaker, tmp_path: Path) -> None:
    """A presigned address lets anybody read the file, with its media type, and the secret is not in it."""
    store = s3(presign_s=600)
    (tmp_path / "horse").write_bytes(b"horse")
    await store.keep(tmp_path / "horse", "a b/horse.png")
    url = await store.public_url("a b/horse.png")
    assert url is not None
    async with httpx.AsyncClient() as client:
        answer = await client.get(url)
    assert (answer.content, answer.headers["content-type"]) == (b"horse", "image/png")
    assert ("sesame" in url, "Expires" in url) == (False, True)


async def test_large_upload(s3: StoreMaker, tmp_path: Path) -> None:
    """A file that goes up in several parts is one file, and exclusive too."""
    store, content = s3(), os.urandom(1 << 20) * 20
    for part in (content, content):
        (tmp_path / "long").write_bytes(part)
        await store.keep(tmp_path / "long", "long.mp4")
    (tmp_path / "long").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(FileExistsError):
        await store.keep(tmp_path / "long", "long.mp4")
    assert await store.holds("long.mp4", length=len(content), sha256=hashlib.sha256(content).hexdigest())


async def test_two_machines(s3: StoreMaker) -> None:
    """Processes that share nothing but the bucket cannot both claim a file."""
    store = s3()
    code = (
        "import asyncio, json, sys; from prefect_happyhorse.engine.storage.store import Store;"
        "url, options, me = sys.argv[1:];"
        "print(asyncio.run(Store(url, options=json.loads(options)).create('claim', me.encode())))"
    )
    children = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, store.url, json.dumps(dict(store.options)), f"p{number}", stdout=subprocess.PIPE
        )
        for number in range(2)
    ]
    won = [(await child.communicate())[0].strip() for child in children]
    assert sorted(won) == [b"False", b"True"]
    assert await store.read("claim") == f"p{won.index(b'True')}".encode()


async def test_no_safe_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store whose filesystem only pretends to create exclusively refuses to claim, rather than let two submit."""
    from fsspec.implementations.memory import MemoryFileSystem
    from fsspec.spec import AbstractFileSystem

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", AbstractFileSystem.pipe_file)
    with pytest.raises(OSError, match="cannot create a file exclusively") as caught:
        await Store("memory://x").create("claim", b"")
    assert caught.value.errno == errno.ENOTSUP


async def test_upload_without_exclusive_creation(tmp_path: Path) -> None:
    """Where a filesystem has no exclusive upload, it is looked first, and a different file is refused all the same."""
    store = Store(f"memory://{os.urandom(6).hex()}")
    (tmp_path / "a").write_bytes(b"horse")
    await store.keep(tmp_path / "a", "a")
    (tmp_path / "a").write_bytes(b"other")
    with pytest.raises(FileExistsError):
        await store.keep(tmp_path / "a", "a")
    with pytest.raises(OSError, match="no presigned addresses"):
        await Store(store.url, presign_s=60).public_url("a")


async def test_missing_package() -> None:
    """A store whose package is not installed says which one is missing."""
    with pytest.raises(ImportError, match="adlfs"):
        await Store("abfs://container/outputs", options={"account_name": "x"}).exists("a")


@pytest.mark.parametrize(
    "listed",
    [
        _NAMED * 3 + _PREFIXES * 2 + _TRUNCATED,
        f"{_TRUNCATED}<EncodingType>url</EncodingType>{_PREFIXES}{_NAMED}{_PREFIXES}{_NAMED}",
        f"<Name>bench</Name>{_NAMED}{_TRUNCATED}{_NAMED}<KeyCount>2</KeyCount>",
        _NAMED,
        _PREFIXES,
        "",
        "<Contents><Key>a</Key><LastModified>Tue, 24 Nov 2026 18:15:29 GMT</LastModified><Size>1</Size></Contents>",
    ],
)
@pytest.mark.parametrize("namespace", [' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"', ""])
def test_names_are_read_as_the_client_reads_them(namespace: str, listed: str) -> None:
    """And all else of an answer by the client itself: above all whether there are more, for a name that is missed may be a paid job."""
    answer: dict[str, Any] = {"status_code": 200, "headers": {}, "context": {}}
    answer["body"] = f"<ListBucketResult{namespace}>{listed}</ListBucketResult>".encode()
    shape = botocore.session.get_session().get_service_model("s3").operation_model("ListObjectsV2").output_shape
    parser, ours = create_parser("rest-xml"), dict[str, Any]()
    expected = parser.parse(dict(answer), shape)
    answer["body"] = answer["body"].replace(b"</StorageClass>", b"</StorageClass><ChecksumAlgorithm>CRC32</ChecksumAlgorithm>")
    fsspec_backend._read_contents(answer, ours)  # pyright: ignore[reportPrivateUsage] -- no store answers in all these ways
    found = parser.parse(dict(answer), shape) | ours
    assert found == expected
    assert (b"<Key>" in answer["body"], "Contents" in ours) == (False, "Contents" in expected) or "GMT" in listed


@pytest.mark.parametrize("body", [b"", b"<ListBucketResult><Contents>", b"<Error><Code>SlowDown</Code></Error>", b"\xff"])
def test_what_is_no_list_is_left_to_the_client(body: bytes) -> None:
    """Which says what is wrong, and asks again."""
    answer, ours = {"body": body}, dict[str, Any]()
    fsspec_backend._read_contents(answer, ours)  # pyright: ignore[reportPrivateUsage]
    assert (answer, ours) == ({"body": body}, {})


async def test_a_file_is_read_in_one_request_and_a_list_past_the_client(s3: StoreMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large journal is looked at in as few, and nearly all of the time goes into names."""
    asked: list[str] = []
    listed: list[int] = []
    read_contents = fsspec_backend._read_contents  # pyright: ignore[reportPrivateUsage]

    def noted(*, customized_response_dict: dict[str, Any], **facts: Any) -> None:
        read_contents(customized_response_dict=customized_response_dict, **facts)
        listed.append(len(customized_response_dict["Contents"]))

    monkeypatch.setattr(fsspec_backend, "_read_contents", noted)
    store = s3()
    fs, _ = store._backend._opened  # pyright: ignore[reportAttributeAccessIssue]
    names = ["a b.json", "a%20b.json", "a+b&c.json", "\u00e4<\u4e2d>.json"]
    for name in names:
        await store.write(f"journal/{name}", name.encode())
    fs.s3.meta.events.register("before-call.s3", lambda model, **_: asked.append(model.name))
    assert await store.list("journal") == sorted(names)
    assert await store.read("journal/a b.json") == b"a b.json"
    assert {path async for path, _ in store.read_all([f"journal/{name}" for name in names])} == {f"journal/{name}" for name in names}
    assert (asked, listed) == (["ListObjectsV2", *["GetObject"] * 5], [4])
