"""Media that a gateway takes as files: their bytes are read wherever they lie, looked into, and are those of the digest."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import httpx
import pytest
from tests.engine.samples import picture
from tests.engine.scripted_server import Wire, chunked, coded, cut, file, redirect, refuse
from tests.vault import registered

from prefect_happyhorse.catalog import Route, check, find_route
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.errors import InvalidRequest, MediaUnreachable
from prefect_happyhorse.domain.requests import ImageToVideo
from prefect_happyhorse.engine.download.medium import fetch_medium
from prefect_happyhorse.engine.http.connections import Client
from prefect_happyhorse.engine.http.urls import content_fingerprint
from prefect_happyhorse.engine.inputs.preflight import inspect_media
from prefect_happyhorse.engine.inputs.upload import upload_inputs
from prefect_happyhorse.engine.storage.store import Store

HORSE = picture("png")
URL = "data:image/png;base64," + base64.b64encode(HORSE).decode()
NOW = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)


@pytest.fixture
async def route() -> AsyncIterator[Route]:
    with registered():
        yield find_route("vault", "image_to_video", "coin")


async def read(image: MediaAsset | str, route: Route, store: Store | None = None, **more: object) -> object:
    """What becomes of a medium, with a client that may fetch from this machine."""
    request = ImageToVideo(model="coin", prompt="A horse", image=image)
    async with httpx.AsyncClient(trust_env=False) as client:
        fetch = partial(fetch_medium, client=Client(lambda **_: client), local_allowed=True)
        facts = {"now": NOW, "gateway_is_local": False, "fetch": fetch}
        uploaded = await upload_inputs(request, route, store, **(facts | more))  # pyright: ignore[reportArgumentType]
    assert isinstance(uploaded, ImageToVideo)
    return uploaded.image


async def test_a_file_is_read_wherever_it_lies(route: Route, tmp_path: Path) -> None:
    """On this machine, in any store, inside the request, as what another job made; a public address of the store is not needed."""
    store = Store(url=str(tmp_path / "outputs"), public_base_url="https://cdn.example")
    (tmp_path / "horse.png").write_bytes(HORSE)
    await store.write("made/horse.png", HORSE)
    sha256 = hashlib.sha256(HORSE).hexdigest()
    asset = MediaAsset(
        kind="image",
        uri=store.uri("made/horse.png"),
        url="https://gone.example/a.png",
        media_type="image/png",
        bytes=len(HORSE),
        sha256=sha256,
    )
    for medium in (str(tmp_path / "horse.png"), f"file://{tmp_path}/horse.png", URL, asset):
        assert await read(medium, route, store) == URL
    assert [path for path in tmp_path.rglob("*") if "inputs" in path.parts] == []


async def test_a_file_is_fetched_from_the_web(route: Route) -> None:
    """As an output is: through redirects, and by whatever coding."""
    for step in (file(HORSE), chunked(HORSE), coded(HORSE, "gzip")):
        async with Wire([redirect("/moved"), step]) as wire:
            assert await read(wire.url("/horse.png"), route) == URL


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (refuse(404), "could not be fetched: the server answered 404"),
        (refuse(206, "", HORSE), "could not be fetched: the server answered 206"),
        (cut(HORSE, 500), "could not be fetched: the connection broke"),
        (file(bytes(300_000)), "could not be fetched: it must have at most 200,000 bytes"),
        (file(b"<html>"), "it must be a picture in png or jpeg"),
        (file(picture("png", 200, 400)), "at least 300 px on each side"),
    ],
)
async def test_what_comes_from_the_web_is_held_to_the_routes_limits(route: Route, step: object, told: str) -> None:
    """Before anything is sent."""
    async with Wire([step]) as wire:  # type: ignore[list-item]
        with pytest.raises(MediaUnreachable, match=told) as caught:
            await read(wire.url("/horse.png"), route)
    assert caught.value.money == "not spent"


async def test_the_private_network_is_not_fetched_from(route: Route) -> None:
    """An address may come from anybody's manifest."""
    async with Wire([file(HORSE)]) as wire, httpx.AsyncClient(trust_env=False) as client:
        fetch = partial(fetch_medium, client=Client(lambda **_: client), local_allowed=False)
        with pytest.raises(MediaUnreachable, match="not on the public internet"):
            await read(wire.url(), route, fetch=fetch)
        assert wire.received == []
    with pytest.raises(MediaUnreachable, match="nothing fetches it here"):
        await read("https://example.com/a.png", route, fetch=None)


async def test_a_file_that_changed_is_not_sent(route: Route, tmp_path: Path) -> None:
    """It would be known for ever by the digest of another."""
    path = tmp_path / "horse.png"
    path.write_bytes(picture("png", colour="green"))
    prints = {("image", None): content_fingerprint(hashlib.sha256(HORSE).hexdigest())}
    with pytest.raises(MediaUnreachable, match="it has changed since it was checked"):
        await read(str(path), route, fingerprints=prints)
    async with Wire([file(HORSE)]) as wire:
        # What is known by its address alone may change behind it.
        assert await read(wire.url(), route, fingerprints={("image", None): "url:http://127.0.0.1/"}) == URL


@pytest.mark.parametrize("image", ["nowhere.png", "data:image/png;base64,????", "memory://nowhere/horse.png"])
async def test_a_file_that_is_not_there_is_told(route: Route, image: str) -> None:
    """Where it was looked for."""
    with pytest.raises(MediaUnreachable, match="image=") as caught:
        await read(image, route)
    assert "It is sent as a file" in str(caught.value)


async def test_a_file_is_checked_with_the_rest_of_the_request(route: Route) -> None:
    """All problems at once, and a data URL is taken though the route takes none in a body."""
    request = ImageToVideo(model="coin", prompt="A horse", image=URL)
    check(request, route, more=(await inspect_media(request, route)).problems)
    small = ImageToVideo(model="coin", image="data:image/png;base64," + base64.b64encode(picture("png", 200, 200)).decode())
    with pytest.raises(InvalidRequest) as caught:
        check(small, route, more=(await inspect_media(small, route)).problems)
    assert len(caught.value.problems) == 2
