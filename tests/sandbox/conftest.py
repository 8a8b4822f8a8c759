"""A sandbox per module, reset before every test, and what the tests send to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from prefect_happyhorse.sandbox import SandboxServer, SandboxSettings

VECTORS: list[dict[str, Any]] = json.loads(Path(__file__).parents[1].joinpath("data", "vectors.json").read_text("utf-8"))
DEFAULTS = SandboxSettings(job_s=0, check_inputs="never", media="tiny", seed=7)


@pytest.fixture(scope="module")
def running() -> Iterator[SandboxServer]:
    with SandboxServer(DEFAULTS) as server:
        yield server


@pytest.fixture
def sandbox(running: SandboxServer) -> SandboxServer:
    running.reset()
    running.settings(**{name: getattr(DEFAULTS, name) for name in SandboxSettings.model_fields})
    return running


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30) as client:
        yield client


@pytest.fixture
def gateways(sandbox: SandboxServer, client: httpx.Client) -> Caller:
    return Caller(sandbox, client)


class Caller:
    """Speaks to a sandbox by hand: nothing here knows the project's own gateways.

    Args:
        sandbox: The sandbox.
        client: The HTTP client.
    """

    def __init__(self, sandbox: SandboxServer, client: httpx.Client) -> None:
        self.sandbox = sandbox
        self.client = client

    @staticmethod
    def headers(gateway: str, key: str = "key-1") -> dict[str, str]:
        """The head of a request: the key, and what else the gateway wants."""
        if gateway == "ttapi":
            return {"TT-API-KEY": key}
        if gateway == "chanjing":
            return {"access_token": key}
        return {"Authorization": f"Bearer {key}", **({"X-DashScope-Async": "enable"} if gateway == "infiflow" else {})}

    def submit(
        self, vector: dict[str, Any], body: dict[str, Any] | None = None, *, key: str = "key-1", path: str | None = None
    ) -> httpx.Response:
        """Send a vector, or another body in its place."""
        gateway = vector["gateway"]
        sent = vector["body"] if body is None else body
        url = self.sandbox.base_url(gateway) + (path or vector["submit"].split(" ")[1])
        headers = self.headers(gateway, key)
        if vector["encoding"] == "json":
            return self.client.post(url, headers=headers, json=sent)
        return self.client.post(url, headers=headers, files={name: (None, value) for name, value in sent.items()})

    def poll(self, gateway: str, path: str, *, key: str = "key-1") -> httpx.Response:
        """Poll a job."""
        return self.client.get(self.sandbox.base_url(gateway) + path, headers=self.headers(gateway, key))

    def poll_path(self, vector: dict[str, Any], task_id: str) -> str:
        """The path at which the source says that a job is polled."""
        gateway, submit, kind = vector["gateway"], vector["submit"], vector["capability"]
        if gateway == "ttapi":
            return f"/happyhorse/api/v1/tasks/{task_id}"
        if gateway == "infiflow":
            return f"/dashscope/api/v1/tasks/{task_id}"
        if gateway == "chanjing":
            return f"/open/v1/ai_creation/task?unique_id={task_id}"
        if kind in {"text_to_image", "image_edit", "reference_to_image"}:
            return f"/v1/images/async/{task_id}"
        if gateway == "happyhorse" and submit.endswith("/v1/videos/generations"):
            return f"/v1/videos/{'grok' if vector['model'].startswith('grok') else 'notevideo'}/{task_id}"
        return f"/v1/videos/{task_id}"


def vector(gateway: str, capability: str = "reference_to_video", model: str | None = None) -> dict[str, Any]:
    """The first vector of a gateway and capability."""
    found = (v for v in VECTORS if (v["gateway"], v["capability"]) == (gateway, capability) and model in {None, v["model"]})
    return json.loads(json.dumps(next(found)))


def name_of(vector: dict[str, Any]) -> str:
    return f"{vector['gateway']}-{vector['capability']}-{vector['model']}"


ONE_EACH = [
    vector("ttapi"),
    vector("infiflow"),
    vector("chanjing"),
    vector("uniall"),
    vector("happyhorse", "text_to_image"),
    vector("happyhorse"),
]


def find_task_id(answer: dict[str, Any]) -> str:
    """The task id, wherever an answer to a submit holds it."""
    found = answer.get("id") or answer.get("task_id") or (answer.get("output") or {}).get("task_id") or answer.get("data")
    assert isinstance(found, str)
    assert found
    return found


def find_status(answer: dict[str, Any]) -> str:
    """The status word, wherever an answer to a poll holds it."""
    output, data = answer.get("output") or {}, answer.get("data")
    inside = data if isinstance(data, dict) else {}
    found = answer.get("status") or output.get("task_status") or inside.get("status") or inside.get("progress_desc")
    assert isinstance(found, str)
    return found


def find_url(answer: dict[str, Any]) -> str:
    """The result's address, wherever an answer to a poll holds it."""
    data = answer.get("data") if isinstance(answer.get("data"), dict) else {}
    for place in (answer, answer.get("output") or {}, answer.get("metadata") or {}, *(answer.get("results") or [])):
        for name in ("video_url", "media_url", "result_url", "url"):
            if isinstance(place.get(name), str):
                return place[name]
    if data.get("output_url"):
        return data["output_url"][0]
    return data["data"]["data"][0]["url"]
