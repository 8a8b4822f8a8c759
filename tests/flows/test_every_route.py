"""Random valid requests of every route go through gateway and sandbox, over real sockets, to a finished file."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from tests.engine.samples import movie, picture, sound

from prefect_happyhorse import Route, parse_request, routes
from prefect_happyhorse.catalog import WireField
from prefect_happyhorse.domain.requests import MEDIA_FIELDS
from prefect_happyhorse.engine.jobs.poll import Poller
from prefect_happyhorse.engine.jobs.prepare import prepare
from prefect_happyhorse.engine.jobs.results import OutputStore
from prefect_happyhorse.engine.jobs.submit import Submitter
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account
from prefect_happyhorse.sandbox import SandboxServer

_MANY = {"references": 9, "reference_videos": 1}
_WORDS = st.lists(
    st.sampled_from(["horse", "马", "🐎", "рысь", "dawn", "a@b.example", "it's", '"so"', "<b>", "\\n", "草原"]), min_size=1, max_size=6
)


def _option(field: WireField) -> st.SearchStrategy[Any]:
    if field.values:
        return st.sampled_from(field.values)
    if field.type == "boolean":
        return st.booleans()
    if field.type in {"integer", "number"}:
        return st.integers(int(field.minimum or 0), int(field.maximum or 100))
    return st.sampled_from(["auto", "origin"])


def _plain(name: str, field: WireField) -> st.SearchStrategy[Any]:
    if field.pixels:
        side = int((field.pixels[0] * field.pixels[1]) ** 0.25)
        return st.sampled_from([*field.values, f"{side}x{side}"])
    if field.values:
        return st.sampled_from([str(value).lower() if name == "resolution" else value for value in field.values])
    if name == "duration":
        return st.integers(int(field.minimum or 3), int(min(field.maximum or 8, 8)))
    if name in {"seed", "n"}:
        return st.integers(int(field.minimum or 0), int(min(field.maximum or 3, 3) if name == "n" else field.maximum or 9))
    if name == "watermark":
        return st.booleans()
    return {
        "resolution": st.sampled_from(["720p", "1080p"]),
        "aspect_ratio": st.sampled_from(["16:9", "1:1", "9:16"]),
        "size": st.sampled_from(["1K", "1024x1024", "1:1"]),
        "negative_prompt": st.just("blurry"),
    }[name]


@st.composite
def requests_of(draw: st.DrawFn, route: Route, media: dict[str, str]) -> dict[str, Any]:
    """A request that the route's own facts allow."""
    given_: dict[str, Any] = {"capability": route.capability, "model": route.model, "prompt": " ".join(draw(_WORDS)), "options": {}}
    for field in route.fields:
        if field.option is not None:
            if draw(st.booleans()):
                given_["options"][field.option] = draw(_option(field))
            continue
        for name in field.source:
            if name not in {"model", "prompt", *MEDIA_FIELDS} and name not in given_ and (field.required or draw(st.booleans())):
                given_[name] = draw(_plain(name, field))
        needed = (*field.source, *(item.source for item in field.items))
        for name in needed:
            if name in _MANY:
                most = (
                    1 if field.type == "url" and not any(other.pick == "rest" for other in route.fields) else min(field.max_items or 9, 4)
                )
                least = 0 if route.capability == "video_edit" else 1
                count = min(most, _MANY[name]) if least == most else draw(st.integers(least, min(most, _MANY[name])))
                given_.setdefault(name, [media[name]] * count)
            elif name in MEDIA_FIELDS and name not in given_:
                given_[name] = media[name]
    ignored = {name for field in route.fields if field.without and given_.keys() & set(field.without) for name in field.source}
    given_ = {name: value for name, value in given_.items() if name not in ignored}
    references = len(given_.get("references", ()))
    if references and route.reference_name and draw(st.booleans()):
        given_["prompt"] += f" @{draw(st.integers(1, references))}"
    return given_


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Addresses of a real picture, video and sound, for every media field."""
    folder = tmp_path_factory.mktemp("media")
    folder.joinpath("picture.png").write_bytes(picture("png", 640, 480))
    folder.joinpath("video.mp4").write_bytes(movie(width=640, height=480, frames=36, fps=12))
    folder.joinpath("sound.mp3").write_bytes(sound("mp3", 3))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        at = f"http://127.0.0.1:{server.server_address[1]}"
        pictures = dict.fromkeys(("image", "mask", "references", "first_frame", "last_frame"), f"{at}/picture.png")
        videos = dict.fromkeys(("clip", "video", "reference_videos"), f"{at}/video.mp4")
        yield pictures | videos | dict.fromkeys(("audio", "voice"), f"{at}/sound.mp3")
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("route", routes(), ids=lambda route: f"{route.gateway}-{route.capability}-{route.model}")
def test_a_random_valid_request_becomes_a_file(running_sandbox: SandboxServer, media: dict[str, str], route: Route) -> None:
    """The sandbox finds nothing to refuse, fetches every input, charges once, and the file is whole."""

    @settings(max_examples=3, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(data=requests_of(route, media))
    def run(data: dict[str, Any]) -> None:
        running_sandbox.settings(job_s=0, media="tiny", check_inputs="submit")
        account = Account(gateway=route.gateway, base_url=running_sandbox.base_url(route.gateway), key=SecretStr("k"))
        before = len(running_sandbox.ledger())

        async def through() -> int:
            with tempfile.TemporaryDirectory() as folder:
                store = Store(url=folder)
                job = await Submitter(store=store).submit(await prepare(parse_request(data), account))
                collected = await OutputStore(account=account, store=store).store_outputs(
                    await Poller(account=account, store=store).poll(job)
                )
                assets = [asset for asset, _ in collected.with_thumbnails()]
                assert all(Path(asset.uri.removeprefix("file://")).stat().st_size == asset.bytes > 0 for asset in assets)
                assert {asset.kind for asset in assets} == {route.kind}
                return len(assets)

        assumed = next((field.default for field in route.fields if "n" in field.source), None)
        assert asyncio.run(through()) == data.get("n", assumed or 1)
        assert len(running_sandbox.ledger()) == before + 1

    run()
