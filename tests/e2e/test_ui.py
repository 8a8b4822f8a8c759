"""What a person sees: the pages of Prefect's own UI, drawn by a browser without a screen."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from .stack import ROOT, Stack, fetch, nothing_left_behind

pytestmark = pytest.mark.e2e

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Screen(Stack):
    """A stack whose server shows its UI, in which the chain has been run."""

    def __init__(self, folder: Path, processes: ExitStack) -> None:
        super().__init__(folder, processes, job_s=1, ui=True)
        self.python(str(ROOT / "flows" / "image_to_video_edit.py"), cwd=folder)
        self.artifacts = fetch(f"{self.api}/artifacts/filter", {})

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
    with nothing_left_behind() as processes:
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
    for told in ("Make it a snowy winter morning", "happyhorse-1.0-video-edit", "not your contract", "sha256", "task id", "kept at"):
        assert told in text


def test_the_run_tells_its_steps_by_name(screen: Screen) -> None:
    """The page of the run is named after the model."""
    (run,) = screen.runs("image-to-video-edit")
    page = screen.page(f"/runs/flow-run/{run['id']}")
    assert "image-to-video-edit happyhorse-1.0-r2v" in page
    assert "Completed" in page
