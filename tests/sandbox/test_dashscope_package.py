"""DashScope's own Python package, a client that this project did not write, runs jobs against the infiflow dialect."""

from __future__ import annotations

import io
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import dashscope
import httpx
import pytest
from dashscope import VideoSynthesis
from PIL import Image

from prefect_happyhorse.sandbox import SandboxServer, SandboxSettings


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxServer]:
    with SandboxServer(SandboxSettings(job_s=0)) as server:
        monkeypatch.setattr(dashscope, "base_http_api_url", f"{server.base_url('infiflow')}/dashscope/api/v1")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server


@pytest.fixture
def horse(server: SandboxServer) -> str:
    """The address of a picture that the sandbox made itself."""
    base, headers = server.base_url("happyhorse"), {"Authorization": "Bearer k"}
    with httpx.Client() as client:
        body = {"model": "gpt-image-2", "prompt": "A white horse"}
        task_id = client.post(f"{base}/v1/images/async/generations", headers=headers, json=body).json()["task_id"]
        return client.get(f"{base}/v1/images/async/{task_id}", headers=headers).json()["data"]["data"]["data"][0]["url"]


def ask(url: str, **more: Any) -> dict[str, Any]:
    return {
        "model": "happyhorse-1.1-r2v",
        "prompt": "[Image 1] runs",
        "media": [{"type": "reference_image", "url": url}],
        "resolution": "720P",
        "ratio": "16:9",
        "duration": 3,
        "api_key": "key-1",
        **more,
    }


def test_the_package_runs_a_job_to_its_end(server: SandboxServer, horse: str) -> None:
    """Submit, wait and result work as against the provider, and the video can be fetched."""
    submitted = VideoSynthesis.async_call(**ask(horse))
    assert (submitted.status_code, submitted.output.task_status) == (HTTPStatus.OK, "PENDING")
    finished = VideoSynthesis.wait(submitted, api_key="key-1")
    assert (finished.status_code, finished.output.task_status) == (HTTPStatus.OK, "SUCCEEDED")
    assert (finished.output.task_id, finished.usage["duration"], finished.usage.video_count) == (submitted.output.task_id, 3, 1)
    assert httpx.get(finished.output.video_url).content[4:8] == b"ftyp"
    assert [(e.gateway, e.model) for e in server.ledger()][1:] == [("infiflow", "happyhorse-1.1-r2v")]


def test_the_package_calls_and_waits_in_one(server: SandboxServer, horse: str) -> None:
    """The package's blocking call comes back with the result, and with another ratio another shape."""
    done = VideoSynthesis.call(**ask(horse, ratio="21:9"))
    assert (done.output.task_status, done.usage["ratio"]) == ("SUCCEEDED", "21:9")
    assert len(server.ledger()) == 2
    assert Image.open(io.BytesIO(httpx.get(horse).content)).format == "PNG"


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"api_key": "bad-key"}, HTTPStatus.UNAUTHORIZED, "InvalidApiKey"),
        ({"duration": 2}, HTTPStatus.BAD_REQUEST, "InvalidParameter"),
        ({"model": "other"}, HTTPStatus.NOT_FOUND, "ModelNotFound"),
    ],
)
def test_the_package_reads_refusals(server: SandboxServer, horse: str, change: dict[str, Any], status: HTTPStatus, code: str) -> None:
    """Refusals arrive with status, code, message and request id."""
    answer = VideoSynthesis.async_call(**ask(horse, **change))
    assert (answer.status_code, answer.code, answer.output) == (status, code, None)
    assert answer.message
    assert answer.request_id
    assert len(server.ledger()) == 1


def test_the_package_reads_faults_and_cancels(server: SandboxServer, horse: str) -> None:
    """Throttling, a failed job, an unknown job and a cancelled one look to the package as the provider's do."""
    server.fault(at="submit", kind="throttle")
    assert VideoSynthesis.async_call(**ask(horse)).code == "Throttling.RateQuota"
    server.fault(at="poll", kind="moderation")
    failed = VideoSynthesis.call(**ask(horse))
    assert (failed.output.task_status, failed.output["code"]) == ("FAILED", "DataInspectionFailed")
    assert VideoSynthesis.fetch("no-such-task", api_key="key-1").output.task_status == "UNKNOWN"
    server.settings(job_s=3600)
    waiting = VideoSynthesis.async_call(**ask(horse))
    assert VideoSynthesis.cancel(waiting, api_key="key-1").status_code == HTTPStatus.OK
    assert VideoSynthesis.fetch(waiting, api_key="key-1").output.task_status == "CANCELED"
    assert VideoSynthesis.cancel(waiting, api_key="key-1").code == "UnsupportedOperation"
