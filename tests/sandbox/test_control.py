"""The sandbox's own controls: ledger, settings, faults, clock, reset, the page, the process."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import subprocess
import sys
from importlib.resources import files as package_files
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

import prefect_happyhorse.sandbox as sandbox_package
from prefect_happyhorse.sandbox import SandboxServer, SandboxSettings

from .conftest import Caller, find_url, vector


def test_the_ledger_adds_up(gateways: Caller) -> None:
    """There is one charge per accepted job, none per refused one, and account and digest tell them apart without showing the key."""
    sent = vector("uniall", "text_to_video")
    wrong = vector("uniall", "text_to_video")
    wrong["body"]["duration"] = 99
    for key in ("secret-one", "secret-one", "secret-two"):
        assert gateways.submit(sent, key=key).status_code == 200
    assert gateways.submit(wrong, key="secret-one").status_code == 400
    text = gateways.client.get(f"{gateways.sandbox.url}/_sandbox/ledger").text
    entries = json.loads(text)
    accounts = [hashlib.sha256(key.encode()).hexdigest()[:8] for key in ("secret-one", "secret-one", "secret-two")]
    assert [entry["account"] for entry in entries] == accounts
    assert "secret-" not in text
    canonical = json.dumps(sent["body"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert {entry["digest"] for entry in entries} == {hashlib.sha256(canonical.encode()).hexdigest()}
    assert entries == [entry.model_dump() for entry in gateways.sandbox.ledger()]


def test_the_same_form_has_the_same_digest(gateways: Caller) -> None:
    """The digest of a form does not hang on its boundary."""
    for _ in range(2):
        gateways.submit(vector("happyhorse", "image_edit"))
    assert len({entry.digest for entry in gateways.sandbox.ledger()}) == 1


def test_settings_over_http(gateways: Caller) -> None:
    """Settings are read and changed over HTTP, keys stay hidden, nonsense is refused with its reason."""
    url = f"{gateways.sandbox.url}/_sandbox/settings"
    assert gateways.client.patch(url, json={"job_s": [1, 2], "bad_keys": ["x-key"]}).json()["job_s"] == [1, 2]
    assert gateways.sandbox.settings().job_s == (1, 2)
    assert "x-key" not in gateways.client.get(url).text
    assert gateways.submit(vector("uniall", "text_to_video"), key="x-key").status_code == 401
    refused = gateways.client.patch(url, json={"job_s": -1, "colour": "red"})
    assert refused.status_code == 422
    assert "colour" in refused.text
    assert gateways.sandbox.settings().job_s == (1, 2)
    with pytest.raises(ValidationError):
        gateways.sandbox.settings(fps=0)


def test_faults_over_http(gateways: Caller) -> None:
    """Rules are added, listed and lifted over HTTP; one that cannot strike is refused with its reason."""
    url = f"{gateways.sandbox.url}/_sandbox/faults"
    assert gateways.client.post(url, json={"at": "submit", "kind": "refuse"}).status_code == 201
    assert gateways.client.post(url, json={"at": "download", "kind": "refuse"}).status_code == 422
    gateways.submit(vector("uniall"))
    (rule,) = gateways.client.get(url).json()
    assert (rule["kind"], rule["struck"]) == ("refuse", 1)
    assert gateways.client.delete(url).status_code == 204
    assert gateways.client.get(url).json() == []


def test_clock_and_reset_over_http(gateways: Caller) -> None:
    """The clock finishes jobs without waiting, and a reset forgets everything but the settings."""
    gateways.sandbox.settings(job_s=3600)
    gateways.submit(vector("uniall", "text_to_video"))
    gateways.sandbox.fault(at="poll", kind="vanish")
    gateways.client.post(f"{gateways.sandbox.url}/_sandbox/clock", json={"seconds": 3600})
    assert [entry.state for entry in gateways.sandbox.ledger()] == ["succeeded"]
    assert gateways.client.post(f"{gateways.sandbox.url}/_sandbox/reset").status_code == 204
    assert (gateways.sandbox.ledger(), gateways.sandbox.faults(), gateways.sandbox.settings().job_s) == ([], [], 3600)


def test_jobs_take_as_long_as_the_range_says(gateways: Caller) -> None:
    """With a range every job draws its own duration from it."""
    gateways.sandbox.settings(job_s=(10_000, 20_000))
    for _ in range(20):
        gateways.submit(vector("uniall", "text_to_video"))
    gateways.sandbox.advance(9_900)
    assert {entry.state for entry in gateways.sandbox.ledger()} == {"running"}
    gateways.sandbox.advance(5_000)
    assert {entry.state for entry in gateways.sandbox.ledger()} == {"running", "succeeded"}
    gateways.sandbox.advance(5_200)
    assert {entry.state for entry in gateways.sandbox.ledger()} == {"succeeded"}


def test_the_page_shows_jobs_safely(gateways: Caller) -> None:
    """The page shows each job with its media, escapes what users wrote, and looking at it counts as no download."""
    sent = vector("uniall", "text_to_video")
    sent["body"]["prompt"] = "<script>alert(1)</script>"
    task_id = gateways.submit(sent).json()["id"]
    gateways.submit(vector("happyhorse", "text_to_image"))
    page = gateways.client.get(f"{gateways.sandbox.url}/_sandbox/")
    assert page.headers["content-type"].startswith("text/html")
    assert "<script>" not in page.text
    assert f'src="files/{task_id}-0.mp4"' in page.text
    assert "2 charged" in page.text
    assert gateways.client.get(f"{gateways.sandbox.url}/_sandbox/files/{task_id}-0.mp4").status_code == 200
    assert {entry.downloads for entry in gateways.sandbox.ledger()} == {0}


async def test_a_sandbox_in_asynchronous_code() -> None:
    """A sandbox serves as an asynchronous context, and many calls at once are all charged."""
    async with SandboxServer(SandboxSettings(job_s=0, media="tiny")) as server, httpx.AsyncClient() as client:
        sent = vector("uniall", "text_to_video")
        url, headers = server.base_url("uniall") + "/v1/video/generations", Caller.headers("uniall")
        answers = await asyncio.gather(*(client.post(url, headers=headers, json=sent["body"]) for _ in range(100)))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.json()["id"] for answer in answers}) == 100
        assert len(server.ledger()) == 100
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(server.url.rpartition(":")[2]))) != 0


def test_a_server_serves_once_and_knows_its_gateways() -> None:
    """A stopped or running server is not started again, a taken port and an unknown gateway are errors."""
    with SandboxServer() as server:
        with pytest.raises(RuntimeError, match="running already"):
            server.start()
        with pytest.raises(ValueError, match="no gateway 'other'"):
            server.base_url("other")
        with pytest.raises(OSError, match="in use"):
            SandboxServer(port=int(server.url.rpartition(":")[2])).start()
    server.stop()
    assert server.ledger() == []


def test_importing_the_package_costs_no_web_server_and_no_media() -> None:
    """The package names its parts without importing FastAPI, Pillow or PyAV."""
    code = (
        "import sys, prefect_happyhorse.sandbox as s; assert 'SandboxServer' in dir(s); "
        "print([n for n in ('fastapi', 'uvicorn', 'PIL', 'av') if n in sys.modules]); "
        "s.SandboxSettings(); print([n for n in ('fastapi', 'PIL', 'av') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sandbox_package.nothing  # type: ignore[attr-defined]


def test_the_sandbox_imports_no_gateway_code() -> None:
    """The sandbox shares nothing with the code that it is there to test."""
    folder = package_files("prefect_happyhorse.sandbox")
    texts = [path.read_text("utf-8") for path in Path(str(folder)).rglob("*.py")]
    assert len(texts) > 15
    for layer in ("gateways", "engine", "blocks", "tasks", "cli"):
        assert not any(f"prefect_happyhorse.{layer}" in text for text in texts)


def test_a_process_of_its_own(tmp_path: Path) -> None:
    """`python -m prefect_happyhorse.sandbox` says where it listens, serves there until it is ended, and leaves nothing behind."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "prefect_happyhorse.sandbox", "--port", str(port), "--job-s", "0", "--media", "tiny"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == f"sandbox on http://127.0.0.1:{port}/_sandbox/"
        base, headers = f"http://127.0.0.1:{port}/uniall", Caller.headers("uniall")
        with httpx.Client(transport=httpx.HTTPTransport(retries=8)) as client:
            task = client.post(f"{base}/v1/video/generations", headers=headers, json=vector("uniall", "text_to_video")["body"]).json()
            url = find_url(client.get(f"{base}/v1/videos/{task['id']}", headers=headers).json())
            assert client.get(url).status_code == 200
        assert len(list(tmp_path.glob("happyhorse-sandbox-*/*.mp4"))) == 1
        process.terminate()
        process.wait(20)
    assert list(tmp_path.iterdir()) == []


def test_a_command_line_that_makes_no_sense() -> None:
    """A setting that is not allowed ends the command with its name."""
    command = [sys.executable, "-m", "prefect_happyhorse.sandbox", "--job-s", "-1"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "job_s" in refused.stderr


def test_results_follow_the_address_that_the_client_used(gateways: Caller) -> None:
    """A client that reaches the sandbox under another name gets results under that name."""
    task_id = gateways.submit(vector("uniall", "text_to_video")).json()["id"]
    headers = {**gateways.headers("uniall"), "host": "sandbox.local:8808"}
    polled = gateways.client.get(f"{gateways.sandbox.base_url('uniall')}/v1/videos/{task_id}", headers=headers).json()
    assert find_url(polled).startswith("http://sandbox.local:8808/files/")
