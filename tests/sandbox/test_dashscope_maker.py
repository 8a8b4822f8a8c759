"""DashScope's own Python package runs every capability of the maker's gateway on the sandbox, and its bodies are ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import dashscope
import httpx
import pytest
import requests
from dashscope import ImageSynthesis, VideoSynthesis
from dashscope.aigc.image_generation import ImageGeneration
from dashscope.common.error import UploadFileException
from dashscope.utils.oss_utils import OssUtils
from tests.contract.facts import VECTORS, name_of

from prefect_happyhorse.catalog import resolve
from prefect_happyhorse.domain.requests import parse_request
from prefect_happyhorse.gateways import build_body
from prefect_happyhorse.sandbox import SandboxServer, SandboxSettings

MAKERS = [vector for vector in VECTORS if vector["gateway"] == "dashscope"]
OF_THE_PACKAGE = {"extend_prompt", "function", "is_async"}
"""What its calls add by themselves, and no page names."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxServer]:
    # The addresses of the vectors lead nowhere.
    with SandboxServer(SandboxSettings(job_s=0, check_inputs="never")) as server:
        monkeypatch.setattr(dashscope, "base_http_api_url", f"{server.base_url('dashscope')}/api/v1")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server


@pytest.fixture
def bodies(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the package sends."""
    sent: list[Any] = []
    send = requests.Session.send

    def watch(self: requests.Session, request: requests.PreparedRequest, **more: Any) -> requests.Response:
        if request.body:
            sent.append(json.loads(request.body))
        return send(self, request, **more)

    monkeypatch.setattr(requests.Session, "send", watch)
    return sent


def call(body: dict[str, Any]) -> tuple[Any, Any]:
    """The package's class for a body, and its answer to a submit of it."""
    inputs, parameters = body["input"], body.get("parameters", {})
    if "messages" in inputs:
        return ImageGeneration, ImageGeneration.async_call(model=body["model"], messages=inputs["messages"], api_key="key-1", **parameters)
    kind = VideoSynthesis if "video" in body["model"] or "2v" in body["model"] else ImageSynthesis
    return kind, kind.async_call(model=body["model"], api_key="key-1", **inputs, **parameters)


@pytest.mark.parametrize("vector", MAKERS, ids=name_of)
def test_the_package_runs_every_capability(server: SandboxServer, bodies: list[Any], vector: dict[str, Any]) -> None:
    """Submit, poll and result work as against the provider; but for what the package always adds, its body is the vector's and ours."""
    kind, submitted = call(vector["body"])
    assert submitted.status_code == HTTPStatus.OK, submitted
    assert submitted.output.task_status == "PENDING"
    finished = kind.fetch(submitted.output.task_id, api_key="key-1")
    assert (finished.status_code, finished.output.task_status) == (HTTPStatus.OK, "SUCCEEDED")
    assert [entry.model for entry in server.ledger()] == [vector["model"]]
    sent = bodies[0]
    for part in ("input", "parameters"):
        sent[part] = {name: value for name, value in sent[part].items() if name not in OF_THE_PACKAGE}
    request = parse_request(vector["request"])
    ours = build_body(request, resolve(request, "dashscope"))
    assert sent == vector["body"] == ours


@pytest.mark.parametrize("vector", MAKERS, ids=name_of)
def test_what_is_made_can_be_fetched(server: SandboxServer, vector: dict[str, Any]) -> None:
    """A picture or a video at the address where each page says that it stands."""
    base, headers = server.base_url("dashscope"), {"Authorization": "Bearer key-1", "X-DashScope-Async": "enable"}
    with httpx.Client(trust_env=False) as client:
        path = vector["submit"].partition(" ")[2]
        task_id = client.post(f"{base}{path}", headers=headers, json=vector["body"]).json()["output"]["task_id"]
        output = client.get(f"{base}/api/v1/tasks/{task_id}", headers=headers).json()["output"]
        if "choices" in output:
            url = output["choices"][0]["message"]["content"][0]["image"]
        else:
            url = output.get("video_url") or output["results"][0]["url"]
        content = client.get(url).content
    is_video = "video-generation" in path
    assert content[4:8] == b"ftyp" if is_video else content[1:4] == b"PNG"


def test_the_package_uploads_a_file(server: SandboxServer, tmp_path: Path) -> None:
    """What its own upload puts into the temporary storage can be named by a submit of that model and key, for two days, and by no other."""
    file = tmp_path / "horse.png"
    file.write_bytes(b"\x89PNG")
    address, certificate = OssUtils.upload(model="wan2.7-i2v", file_path=str(file), api_key="key-1")
    assert address.startswith("oss://dashscope-instant/")
    with pytest.raises(UploadFileException, match="FileAlreadyExists"):
        OssUtils.upload(model="wan2.7-i2v", file_path=str(file), api_key="key-1", upload_certificate=certificate)
    with pytest.raises(UploadFileException, match="SignatureDoesNotMatch"):
        OssUtils.upload(model="wan2.7-i2v", file_path=str(file), api_key="key-1", upload_certificate={**certificate, "signature": "x"})
    with pytest.raises(UploadFileException, match="Invalid according to Policy"):
        OssUtils.upload(
            model="wan2.7-i2v", file_path=str(file), api_key="key-1", upload_certificate={**certificate, "oss_access_key_id": "x"}
        )
    with pytest.raises(UploadFileException, match="certificate failed"):
        OssUtils.upload(model="nothing", file_path=str(file), api_key="key-1")
    path = "/api/v1/services/aigc/video-generation/video-synthesis"
    resolving = {"X-DashScope-Async": "enable", "X-DashScope-OssResourceResolve": "enable"}
    with httpx.Client(trust_env=False, base_url=server.base_url("dashscope")) as client:

        def submit(model: str = "wan2.7-i2v", key: str = "key-1", **headers: str) -> int:
            body = {"model": model, "input": {"prompt": "It runs", "media": [{"type": "first_frame", "url": address}]}}
            return client.post(path, json=body, headers={"Authorization": f"Bearer {key}", **resolving, **headers}).status_code

        assert submit() == HTTPStatus.OK
        assert submit(model="happyhorse-1.1-i2v") == HTTPStatus.BAD_REQUEST
        assert submit(key="key-2") == HTTPStatus.BAD_REQUEST
        assert submit(**{"X-DashScope-OssResourceResolve": ""}) == HTTPStatus.BAD_REQUEST
        server.advance(172_801)
        assert submit() == HTTPStatus.BAD_REQUEST
        assert len(server.ledger()) == 1


def test_an_upload_carries_no_key(server: SandboxServer) -> None:
    """A form that is signed twice is refused, as is what is no form or does not end with its file."""
    upload = f"{server.url}/uploads"
    with httpx.Client(trust_env=False) as client:
        assert client.post(upload, headers={"Authorization": "Bearer key-1"}).status_code == HTTPStatus.BAD_REQUEST
        assert client.post(upload, content=b"x", headers={"Content-Type": "multipart/form-data"}).status_code == HTTPStatus.BAD_REQUEST
        assert client.post(upload, data={"key": "a"}, files={"other": b"x"}).status_code == HTTPStatus.BAD_REQUEST
        server.settings(input_max_bytes=1)
        assert "EntityTooLarge" in client.post(upload, files={"file": b"xy"}).text
