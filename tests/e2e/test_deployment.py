"""Both flows, deployed to a process pool of a real Prefect server, run by a real worker against a sandbox of its own process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


def fetch(url: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, {"Content-Type": "application/json"}), timeout=30) as answer:
        return json.load(answer)


def wait_for(url: str) -> None:
    deadline = time.monotonic() + 180
    while True:
        try:
            fetch(url)
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            # Whether a server of another process listens can only be tried.
            time.sleep(0.2)


class Studio:
    """A Prefect server and a sandbox as processes, and how to call Prefect's command line there."""

    def __init__(self, folder: Path, processes: ExitStack, *, job_s: float = 0.5, **more: str) -> None:
        server, sandbox = free_port(), free_port()
        self.api = f"http://127.0.0.1:{server}/api"
        self.sandbox = f"http://127.0.0.1:{sandbox}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "HAPPYHORSE_"))}
        self.environment = kept | {
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "HAPPYHORSE_BASE_URL": f"{self.sandbox}/happyhorse",
            "HAPPYHORSE_API_KEY": "sesame-1234",
            "HAPPYHORSE_STORE": str(folder / "outputs"),
            **more,
        }
        start = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(server), "--no-ui"]
        emulate = [sys.executable, "-m", "prefect_happyhorse.sandbox", "--port", str(sandbox), "--job-s", str(job_s), "--media", "tiny"]
        for command in (start, emulate):
            running = subprocess.Popen(command, env=self.environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            processes.callback(running.wait, 30)
            processes.callback(running.terminate)
        wait_for(f"{self.api}/health")
        wait_for(f"{self.sandbox}/_sandbox/ledger")

    def prefect(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        done = subprocess.run(command, env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    with ExitStack() as processes:
        yield Studio(tmp_path_factory.mktemp("studio"), processes)


def test_the_blocks_are_registered(studio: Studio) -> None:
    """`prefect block register -m prefect_happyhorse` and `prefect block type ls` show both."""
    studio.prefect("block", "register", "-m", "prefect_happyhorse")
    listed = studio.prefect("block", "type", "ls")
    assert "happyhorse-gateway-credentials" in listed
    assert "happyhorse-media-store" in listed


def test_deployed_flows_run_on_a_worker(studio: Studio, tmp_path: Path) -> None:
    """Pool, deployments and runs by the commands of the README; files in the store, pictures and a table over the API."""
    manifest = tmp_path / "shots.jsonl"
    manifest.write_text(json.dumps({"capability": "text_to_image", "model": "gpt-image-2", "prompt": "A deployed horse"}))
    studio.prefect("work-pool", "create", "happyhorse", "--type", "process")
    studio.prefect("deploy", "flows/image_to_video_edit.py:image_to_video_edit", "--name", "studio", "--pool", "happyhorse")
    studio.prefect("deploy", "flows/batch.py:batch", "--name", "studio", "--pool", "happyhorse")
    small = json.dumps({"resolution": "720p", "duration": 3})
    studio.prefect("deployment", "run", "image-to-video-edit/studio", "-p", f"video={small}", "-p", f"edit={small}")
    studio.prefect("deployment", "run", "batch/studio", "-p", f"manifest={manifest}")
    studio.prefect("worker", "start", "--pool", "happyhorse", "--run-once")
    runs = fetch(f"{studio.api}/flow_runs/filter", {})
    assert [run["state"]["type"] for run in runs] == ["COMPLETED", "COMPLETED"], [run["state"] for run in runs]
    ledger = fetch(f"{studio.sandbox}/_sandbox/ledger")
    assert sorted(entry["capability"] for entry in ledger) == ["reference_to_video", "text_to_image", "text_to_image", "video_edit"]
    artifacts = fetch(f"{studio.api}/artifacts/filter", {})
    kinds = sorted((artifact["key"] or "").partition("-")[0] for artifact in artifacts if artifact["key"])
    assert {"batch", "card", "gallery", "link"} <= set(kinds)
    assert kinds.count("card") == 4
    gallery = next(artifact["data"] for artifact in artifacts if (artifact["key"] or "").startswith("gallery-image"))
    assert gallery.count("data:image/jpeg;base64,") == 3
    stored = Path(studio.environment["HAPPYHORSE_STORE"])
    assert len([file for file in stored.rglob("*") if file.suffix in {".png", ".mp4"}]) == 4
    assert "sesame" not in json.dumps([runs, artifacts])


@pytest.mark.parametrize("flow", ["image_to_video_edit", "batch"])
def test_the_flows_run_as_scripts(studio: Studio, tmp_path: Path, flow: str) -> None:
    """`python flows/NAME.py` prints where each file lies."""
    manifest = tmp_path / "shots.jsonl"
    manifest.write_text(json.dumps({"capability": "text_to_image", "model": "gpt-image-2", "prompt": "A scripted horse"}))
    arguments = [str(manifest)] if flow == "batch" else []
    command = [sys.executable, str(ROOT / "flows" / f"{flow}.py"), *arguments]
    done = subprocess.run(command, env=studio.environment, cwd=tmp_path, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("file://") == (1 if flow == "batch" else 3)
