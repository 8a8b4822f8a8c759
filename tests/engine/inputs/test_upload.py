"""How media get an address that the gateway can read."""

from __future__ import annotations

import base64
import hashlib
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from tests.engine.samples import movie, picture

from prefect_happyhorse.catalog import Route, find_route
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.errors import MediaUnreachable
from prefect_happyhorse.domain.requests import GenerationRequest, ReferenceToVideo, TextToVideo, VideoEdit, parse_request
from prefect_happyhorse.engine.inputs.upload import by_reference, upload_inputs
from prefect_happyhorse.engine.storage.store import Store

NOW = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)
PLAIN = find_route("ttapi", "reference_to_video", "happyhorse-1.1-r2v")
INLINE = find_route("infiflow", "reference_to_video", "happyhorse-1.1-r2v")
HORSE = picture("png")
NAME = f"inputs/{hashlib.sha256(HORSE).hexdigest()}.png"


def asking(*references: Any) -> ReferenceToVideo:
    return ReferenceToVideo(model="happyhorse-1.1-r2v", prompt="@1 runs", references=references, seed=7)


async def addresses(
    *references: Any, route: Route = PLAIN, store: Store | None = None, gateway_is_local: bool = False
) -> tuple[object, ...]:
    published = await upload_inputs(asking(*references), route, store, now=NOW, gateway_is_local=gateway_is_local)
    assert published == asking(*published.references)  # type: ignore[union-attr]
    return published.references  # type: ignore[union-attr]


async def problem(*references: Any, **facts: Any) -> MediaUnreachable:
    with pytest.raises(MediaUnreachable) as caught:
        await addresses(*references, **facts)
    assert (caught.value.money, caught.value.gateway, caught.value.model) == ("not spent", "ttapi", "happyhorse-1.1-r2v")
    return caught.value


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def identity(path: Path) -> tuple[int, int]:
    """What changes when a file is written anew."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


@pytest.fixture
def horse(tmp_path: Path) -> Path:
    return put(tmp_path / "horse.jpeg", HORSE)


@pytest.fixture
def public(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "outputs"), public_base_url="https://media.example.com/out")


def asset(uri: str = "s3://gone/horse.png", **facts: Any) -> MediaAsset:
    usual: dict[str, Any] = {"kind": "image", "media_type": "image/png", "bytes": len(HORSE), "sha256": "ab"}
    return MediaAsset(uri=uri, **(usual | facts))


async def test_web_addresses() -> None:
    """An address on the web stays as it is, signature and all."""
    url = "https://user:pw@example.com/a.png?X-Amz-Signature=1#x"
    assert await addresses(url, "http://93.184.215.14/b.png") == (url, "http://93.184.215.14/b.png")


async def test_no_media() -> None:
    """A request without media stays as it is."""
    request = TextToVideo(model="m", prompt="p")
    assert await upload_inputs(request, PLAIN, None, now=NOW, gateway_is_local=False) == request


@pytest.mark.parametrize("lives", [None, NOW + timedelta(minutes=11)])
async def test_living_asset(lives: datetime | None, public: Store) -> None:
    """An asset goes by the provider's own address while that lives, or as long as nobody knows that it does not."""
    assert await addresses(asset(url="https://p.example/a.png", url_expires_at=lives), store=public) == ("https://p.example/a.png",)


@pytest.mark.parametrize("dead", [NOW + timedelta(minutes=9), NOW - timedelta(days=1)])
async def test_dead_asset(dead: datetime, horse: Path, public: Store) -> None:
    """Once the provider's address is dead, or nearly so, the kept file is used."""
    medium = asset(uri=f"file://{horse}", url="https://p.example/a.png", url_expires_at=dead)
    assert await addresses(medium, store=public) == (f"https://media.example.com/out/{NAME}",)


async def test_asset_in_the_store(public: Store) -> None:
    """A file that lies in the store already is not put there a second time."""
    await public.write("2026/a horse.png", HORSE)
    assert await addresses(asset(uri=public.uri("2026/a horse.png")), store=public) == ("https://media.example.com/out/2026/a%20horse.png",)
    assert await public.list("inputs") == []


async def test_uploaded_once(horse: Path, public: Store, tmp_path: Path) -> None:
    """A local file is put into the store under its content, once for all who use it, and stays where it was."""
    twin = put(tmp_path / "twin.png", HORSE)
    inline = "data:image/png;base64," + base64.b64encode(HORSE).decode()
    assert await addresses(str(horse), str(twin), inline, f"file://{horse}", store=public) == (f"https://media.example.com/out/{NAME}",) * 4
    before = identity(tmp_path / "outputs" / NAME)
    await addresses(str(horse), store=public)
    assert await public.list("inputs") == [NAME.removeprefix("inputs/")]
    assert identity(tmp_path / "outputs" / NAME) == before
    assert await Store(str(tmp_path)).read(horse.name) == HORSE


async def test_from_another_store(public: Store) -> None:
    """A file in another store is copied over."""
    other = Store(f"memory://{os.urandom(6).hex()}")
    await other.write("clip.mp4", movie())
    request = VideoEdit(model="m", prompt="p", video=other.uri("clip.mp4"))
    published = await upload_inputs(request, PLAIN, public, now=NOW, gateway_is_local=False)
    name = f"inputs/{hashlib.sha256(movie()).hexdigest()}.mp4"
    assert published.video == f"https://media.example.com/out/{name}"  # type: ignore[union-attr]
    assert await public.read(name) == movie()


async def test_inline(horse: Path) -> None:
    """Where the route takes data URLs and no store has an address, the file goes inside the request; a data URL stays as it is."""
    expected = "data:image/png;base64," + base64.b64encode(HORSE).decode()
    assert await addresses(str(horse), "data:x", route=INLINE) == (expected, "data:x")


async def test_store_before_inline(horse: Path, public: Store) -> None:
    """An address is better than a long request."""
    assert await addresses(str(horse), route=INLINE, store=public) == (f"https://media.example.com/out/{NAME}",)


async def test_too_long_for_inline(horse: Path) -> None:
    """What is longer than the route takes is not put inside the request."""
    route = INLINE.model_copy(update={"media": (INLINE.media[0].model_copy(update={"max_bytes": 100}),)})
    with pytest.raises(MediaUnreachable, match=rf"inside the request it must have at most 100 bytes \(got {len(HORSE):,}\)"):
        await addresses(str(horse), route=route)


async def test_local_gateway(horse: Path, tmp_path: Path) -> None:
    """A gateway on this machine reads addresses on this machine; a local path is still none."""
    local = "http://127.0.0.1:8808/files/a.png"
    store = Store(str(tmp_path / "outputs"), public_base_url="http://localhost:9000")
    expected = (local, local, f"http://localhost:9000/{NAME}")
    assert await addresses(local, asset(url=local), str(horse), store=store, gateway_is_local=True) == expected
    error = await problem(str(horse), gateway_is_local=True)
    assert "there is no store to upload it to" in error.message


@pytest.mark.parametrize("host", ["127.0.0.1:8808", "localhost", "192.168.1.5", "[::1]:80", "169.254.169.254", "2130706433"])
async def test_private_addresses(host: str) -> None:
    """A public gateway cannot read an address on this machine or a private network, so nothing is sent."""
    url = f"http://{host}/a.png"
    error = await problem(url)
    assert error.message == (
        f"ttapi cannot read 1 of the media. Nothing was sent. references[0]='{url}': it lies on a private network,"
        " where the gateway cannot read it."
    )


async def test_asset_of_a_local_gateway(horse: Path, public: Store) -> None:
    """An asset whose provider's address is on this machine, as the sandbox's, goes by its kept file to a public gateway."""
    medium = asset(uri=f"file://{horse}", url="http://127.0.0.1:8808/a.png")
    assert await addresses(medium, store=public) == (f"https://media.example.com/out/{NAME}",)


@pytest.mark.parametrize(
    ("store", "said"),
    [
        (None, "it lies here, where the gateway cannot read it, and there is no store to upload it to"),
        (Store("/srv/x"), "it lies here, where the gateway cannot read it, and the store file:///srv/x has no public address"),
        (Store("/srv/x", public_base_url="http://10.0.0.5/x"), "the public address of the store file:///srv/x is on a private network"),
    ],
)
async def test_no_way(store: Store | None, said: str, horse: Path) -> None:
    """When there is no way, the error names the medium, the reason and the ways out, and nothing is put anywhere."""
    error = await problem(str(horse), store=store)
    assert said in error.message
    assert error.advice == (
        "Ways out: give http(s) addresses that anybody can read; use a MediaStore with public_base_url, or an object store with presign_s;"
        " or use a gateway that accepts media inside the request, which ttapi does not here."
    )
    assert store is None or not await store.exists(NAME)


async def test_every_one_is_named(horse: Path) -> None:
    """All media without an address are named at once, those that have one are not."""
    error = await problem(str(horse), "https://example.com/a.png", "http://10.0.0.1/b.png")
    assert error.message.startswith("ttapi cannot read 2 of the media.")
    assert (error.message.count("references["), "references[1]" in error.message) == (2, False)


async def test_vanished(public: Store, tmp_path: Path) -> None:
    """A file that is gone by now, or a store that fails, is an unreachable medium too."""
    gone = asset(uri=public.uri("gone.png"))
    assert "there is no such file" in (await problem(str(tmp_path / "gone.png"), gone, store=public)).message
    options = {"key": "x", "secret": "sesame", "endpoint_url": "http://127.0.0.1:9", "config_kwargs": {"retries": {"max_attempts": 0}}}
    down = Store("s3://b", options=options, public_base_url="https://media.example.com")
    error = await problem(asset(uri="s3://b/x.png"), store=down)
    assert "the store failed" in error.message
    assert "sesame" not in str(error)


async def test_of_no_known_format(tmp_path: Path, public: Store) -> None:
    """A file of no known format is published as it is, but never as a data URL, which must name its format."""
    notes = put(tmp_path / "x", b"notes")
    published = await addresses(str(notes), store=public)
    assert published == (f"https://media.example.com/out/inputs/{hashlib.sha256(b'notes').hexdigest()}.bin",)
    with pytest.raises(MediaUnreachable, match="its media format is not known"):
        await addresses(str(notes), route=INLINE)


async def test_other_fields_stay(horse: Path, public: Store) -> None:
    """Every media field is replaced in its own place, and no other field is touched."""
    request: GenerationRequest = VideoEdit(
        model="m", prompt="@1 and @2", video="https://example.com/v.mp4", references=[str(horse), "https://example.com/r.png"], duration=5
    )
    published = await upload_inputs(request, PLAIN, public, now=NOW, gateway_is_local=False)
    assert published == request.model_copy(update={"references": (f"https://media.example.com/out/{NAME}", "https://example.com/r.png")})


async def test_public_store_at_work(public: Store, horse: Path) -> None:
    """What was published can be read at its place in the store."""
    await addresses(str(horse), store=public)
    assert await public.read(NAME) == HORSE


def test_a_data_url_is_kept_by_reference() -> None:
    """Its type, the hash of its bytes, and how many there are; every other medium stays."""
    content = os.urandom(8_000_000)
    inline = "data:image/png;base64," + base64.b64encode(content).decode()
    request = ReferenceToVideo(model="m", prompt="@1", references=(inline, "https://example.com/a.png"))
    kept = by_reference(request)
    assert kept.references == (
        f"data:image/png;sha256={hashlib.sha256(content).hexdigest()};bytes=8000000",
        "https://example.com/a.png",
    )
    assert parse_request(kept.model_dump_json()) == kept
    assert by_reference(request.model_copy(update={"references": ("data:,white%20horse",)})).references == (
        f"data:;sha256={hashlib.sha256(b'white horse').hexdigest()};bytes=11",
    )
