"""What a person sees: the pages of Prefect's own UI, drawn by a browser without a screen."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from .test_deployment import ROOT, fetch, free_port, wait_for

pytestmark = pytest.mark.e2e

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Screen:
    """A Prefect server with its UI on which the chain has been run against a sandbox that draws."""

    def __init__(self, folder: Path, processes: ExitStack) -> None:
        server, sandbox = free_port(), free_port()
        self.url = f"http://127.0.0.1:{server}"
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "HAPPYHORSE_"))}
        environment = kept | {
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": f"{self.url}/api",
            "PREFECT_SERVER_UI_API_URL": f"{self.url}/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "HAPPYHORSE_STORE": str(folder / "outputs"),
            "HAPPYHORSE_API_KEY": "sesame-1234",
            "HAPPYHORSE_BASE_URL": f"http://127.0.0.1:{sandbox}/happyhorse",
        }
        start = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(server)]
        emulate = [sys.executable, "-m", "prefect_happyhorse.sandbox", "--port", str(sandbox), "--job-s", "1"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        for command in (start, emulate):
            running = subprocess.Popen(command, env=environment, cwd=folder, **quiet)
            processes.callback(running.wait, 30)
            processes.callback(running.terminate)
        wait_for(f"{self.url}/api/health")
        wait_for(f"http://127.0.0.1:{sandbox}/_sandbox/ledger")
        chain = [sys.executable, str(ROOT / "flows" / "image_to_video_edit.py")]
        subprocess.run(chain, env=environment, cwd=folder, check=True, timeout=180, **quiet)
        self.artifacts = fetch(f"{self.url}/api/artifacts/filter", {})

    def page(self, path: str) -> str:
        """The page as the browser has drawn it, as text."""
        assert BROWSER is not None
        command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1500,1300", "--virtual-time-budget=20000"]
        shown = [*command, f"--user-data-dir={self.folder / 'browser'}", "--dump-dom", f"{self.url}{path}"]
        return subprocess.run(shown, capture_output=True, text=True, timeout=120, check=True).stdout

    def artifact(self, begins: str) -> str:
        return next(one["id"] for one in self.artifacts if (one["key"] or "").startswith(begins))


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Screen]:
    if BROWSER is None:
        pytest.skip("There is no browser: apt-get install chromium")
    with ExitStack() as processes:
        yield Screen(tmp_path_factory.mktemp("screen"), processes)


def pictures(page: str) -> int:
    """How many inline pictures the page draws; one that is only printed is no element."""
    return len(re.findall(r'<img[^>]+src="data:image/jpeg;base64,', page))


@pytest.mark.parametrize("ui", ["", "/v2"], ids=["v1", "v2"])
def test_the_gallery_shows_the_chain(screen: Screen, ui: str) -> None:
    """Three pictures in the order of the chain, with their models and links, in both of Prefect's UIs."""
    page = screen.page(f"{ui}/artifacts/artifact/{screen.artifact('gallery')}")
    assert pictures(page) == 3
    text = re.sub(r"<[^>]+>", " ", page)
    shown = text[text.index(" edit ") :]
    places = [shown.find(model) for model in ("gpt-image-2", "happyhorse-1.0-r2v", "happyhorse-1.0-video-edit")]
    assert -1 not in places
    assert places == sorted(places)
    assert text.count(" open ") >= 3


@pytest.mark.parametrize("ui", ["", "/v2"], ids=["v1", "v2"])
def test_a_card_shows_what_was_made(screen: Screen, ui: str) -> None:
    """Picture, prompt, model, cost, ids and hash."""
    card = next(one for one in screen.artifacts if (one["key"] or "").startswith("card-happyhorse-1-0-video-edit"))
    page = screen.page(f"{ui}/artifacts/artifact/{card['id']}")
    assert pictures(page) == 1
    text = re.sub(r"<[^>]+>", " ", page)
    for told in ("Make it a snowy winter morning", "happyhorse-1.0-video-edit", "unknown", "sha256", "task id", "kept at"):
        assert told in text


def test_the_run_tells_its_steps_by_name(screen: Screen) -> None:
    """The page of the run is named after the model."""
    (run,) = fetch(f"{screen.url}/api/flow_runs/filter", {})
    page = screen.page(f"/runs/flow-run/{run['id']}")
    assert "image-to-video-edit happyhorse-1.0-r2v" in page
    assert "Completed" in page
