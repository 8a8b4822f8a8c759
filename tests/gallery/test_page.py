"""What a person sees: the page in Chromium, served and from a disk, with nothing in the browser's log."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.engine.samples import movie, picture
from tests.gallery.browser import CHROMIUM, Tab, chromium
from tests.gallery.entries import digest_of, kept, place, submitted, uncertain
from tests.gallery.test_command import serving

from prefect_happyhorse.cli import main
from prefect_happyhorse.domain.requests import ReferenceToVideo
from prefect_happyhorse.engine.media.thumbnail import thumbnail

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="There is no browser: apt-get install chromium")]

NASTY = '<img src=x onerror=alert(1)><script>document.title="taken"</script> 🐴 "quoted" `code` &amp; \u202egnp'
MANY = 2000
TILES = "document.querySelectorAll('#grid .tile').length"


@pytest.fixture(scope="module")
def movie_bytes() -> bytes:
    return movie(frames=24, form="webm")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with chromium(tmp_path_factory.mktemp("chromium")) as tab:
        yield tab


@pytest.fixture
def tab(browser: Tab) -> Iterator[Tab]:
    """The browser, whose log is empty before and after each test."""
    browser.open("about:blank")
    browser.log.clear()
    yield browser
    assert browser.evaluate("document.title") != "taken"
    assert browser.log == []


@pytest.fixture
def journal(folder: Path, movie_bytes: bytes) -> Path:
    """A picture, two takes of a video of it, a job that is open and a submit of unknown outcome."""
    horse = picture(width=320, height=240)
    image = kept(folder, "horse", NASTY, content=horse, thumbnail=thumbnail(horse, "image"))
    assert image.asset is not None
    ride = ReferenceToVideo(model="happyhorse-1.1-r2v", prompt="It runs", references=(image.asset,), duration=5)
    rides = [
        kept(folder, f"ride {take}", ride, at=take, take=take, media_type="video/webm", content=movie_bytes, labels={"project": "film"})
        for take in (1, 2)
    ]
    place(folder, image, *rides, submitted("open", "Still made", at=3), uncertain("doubt", "Nobody knows", at=4))
    return folder


def choose(tab: Tab, name: str, value: str) -> None:
    tab.evaluate(
        f"(() => {{ const one = document.getElementById({name!r}); one.value = {value!r}; one.dispatchEvent(new Event('change')); }})()"
    )


def search(tab: Tab, words: str) -> None:
    tab.evaluate(f"(() => {{ const q = document.getElementById('q'); q.value = {words!r}; q.dispatchEvent(new Event('input')); }})()")


def look_around(tab: Tab, *, name: str) -> None:
    """What a served page and an exported one have in common."""
    tab.until(f"{TILES} === 5")
    tab.until("[...document.querySelectorAll('#grid img')].every((one) => one.complete && one.naturalWidth > 0)")
    assert tab.evaluate("[...document.querySelectorAll('.prompt')].some((one) => one.textContent.startsWith('<img src=x onerror'))")
    assert tab.evaluate("document.querySelectorAll('#grid script, #grid [onerror]').length") == 0
    choose(tab, "state", "kept")
    tab.until(f"{TILES} === 3")
    choose(tab, "model", "happyhorse-1.1-r2v")
    tab.until(f"{TILES} === 2")
    choose(tab, "model", "")
    choose(tab, "state", "open")
    tab.until(f"{TILES} === 2")
    choose(tab, "state", "")
    tab.until(f"{TILES} === 5")
    choose(tab, "label", "project=film")
    tab.until(f"{TILES} === 2")
    choose(tab, "label", "")
    search(tab, "still MADE")
    tab.until(f"{TILES} === 1 && document.querySelector('.prompt').textContent === 'Still made'")
    search(tab, "zebra")
    tab.until("document.querySelector('.empty')?.textContent === 'No job fits.'")
    search(tab, "")
    tab.until(f"{TILES} === 5")
    tab.evaluate(f"location.hash = '#/job/{digest_of('ride 2')}'")
    tab.until("document.querySelectorAll('.side figure').length === 2")
    played = "const video = document.querySelector('.files video'); video.muted = true; await video.play();"
    tab.evaluate(f"(async () => {{ {played} }})()")
    tab.until("document.querySelector('.files video').currentTime > 0.2")
    tab.evaluate("[...document.querySelectorAll('.side button')].concat(...document.querySelectorAll('#job button'))[0].click()")
    tab.until("[...document.querySelectorAll('.side video')].every((one) => one.currentTime > 0)")
    text = tab.text()
    for told in ("Take 2, this one", "3.50 CNY", "references @1", "Made by gpt-image-2", "list price of 2026-08-01", "task-ride 2", name):
        assert told in text
    tab.evaluate("document.querySelectorAll('#job video').forEach((one) => one.pause())")
    tab.evaluate(f"location.hash = '#/job/{digest_of('horse')}'")
    tab.until("document.querySelector('.files img')?.naturalWidth === 320")
    assert "What was made of it" in tab.text()
    assert tab.evaluate("document.querySelector('#job .words').textContent").startswith("<img src=x onerror=alert(1)>")
    tab.evaluate(f"location.hash = '#/job/{digest_of('doubt')}'")
    tab.until("document.querySelector('#job').innerText.includes('Nobody knows whether this submit was accepted')")
    assert f"adopt t-1 {digest_of('doubt')[:12]}" in tab.evaluate("document.querySelector('#job code').textContent")
    tab.evaluate("document.querySelector('#job a').click()")
    tab.until(f"!document.getElementById('list').hidden && {TILES} === 5")


def test_a_served_page(tab: Tab, journal: Path) -> None:
    """Filters, search, a job's page, videos that play, and what is hostile is text."""
    with serving(journal) as address:
        tab.open(address)
        look_around(tab, name=f"file://{journal}")
        tab.open("about:blank")


def test_an_exported_page_from_a_disk(tab: Tab, journal: Path, tmp_path: Path) -> None:
    """The same, from files alone that link to those of the store."""
    done = CliRunner().invoke(main, ["gallery", "--store", str(journal), "--export", str(tmp_path / "site")])
    assert done.exit_code == 0, done.output
    tab.open(f"file://{tmp_path / 'site' / 'index.html'}")
    look_around(tab, name="exported")


def test_an_exported_page_from_a_bucket(tab: Tab, journal: Path, tmp_path: Path) -> None:
    """The same over HTTP from a server that knows nothing but files, with the files copied."""
    done = CliRunner().invoke(main, ["gallery", "--store", str(journal), "--export", str(tmp_path / "site"), "--copy"])
    assert done.exit_code == 0, done.output

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "site"))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            tab.open(f"http://127.0.0.1:{server.server_port}/index.html")
            look_around(tab, name="exported")
            tab.open("about:blank")
        finally:
            server.shutdown()
            thread.join()


def test_it_is_live_while_a_batch_runs(tab: Tab, journal: Path, movie_bytes: bytes) -> None:
    """A job appears, and its file when it is kept, without a reload; a video plays while it is pointed at."""
    with serving(journal) as address:
        tab.open(address)
        tab.until(f"{TILES} === 5")
        place(journal, submitted("new", "Brand new", at=9))
        tab.until(f"{TILES} === 6 && document.querySelector('.prompt').textContent === 'Brand new'")
        tab.evaluate("window.sameTile = document.querySelectorAll('.tile')[3]")
        place(journal, kept(journal, "new", "Brand new", at=9, revision=2, media_type="video/webm", content=movie_bytes))
        tab.until("document.querySelector('.tile .state').textContent === 'kept'")
        assert tab.evaluate("window.sameTile === document.querySelectorAll('.tile')[3]")
        tab.evaluate("document.querySelector('.tile').dispatchEvent(new PointerEvent('pointerenter'))")
        tab.until("document.querySelector('.tile video')?.currentTime > 0.1")
        tab.evaluate("document.querySelector('.tile').dispatchEvent(new PointerEvent('pointerleave'))")
        assert tab.evaluate("document.querySelector('.tile video')") is None
        tab.open("about:blank")


def test_what_is_wrong_is_said_on_the_page(tab: Tab, folder: Path) -> None:
    """An empty journal, a file that cannot be read, a job and a file that are not there."""
    with serving(folder, warned="There is no journal") as address:
        tab.open(address)
        tab.until(f"document.querySelector('.empty')?.textContent === 'No job stands in the journal of file://{folder} yet.'")
        place(folder, kept(folder, "gone", media_type="video/webm"))
        (folder / "2026-11-20" / "gone.webm").unlink()
        (folder / "journal" / "ab").mkdir(exist_ok=True)
        (folder / "journal" / "ab" / f"ab{'0' * 62}.1.json").write_text("{")
        tab.until("document.querySelector('#problems summary').textContent === '1 problem'")
        assert f"happyhorse jobs forget ab{'0' * 62}.1.json" in tab.evaluate("document.querySelector('#problems').textContent")
        tab.evaluate("document.querySelector('.tile').dispatchEvent(new PointerEvent('pointerenter'))")
        tab.evaluate(f"location.hash = '#/job/{digest_of('gone')}'")
        tab.until("document.querySelector('#job').innerText.includes('It is no longer there.')")
        tab.evaluate(f"location.hash = '#/job/{digest_of('never')}'")
        tab.until("document.querySelector('#trouble').textContent.includes('stands in the journal of')")
        tab.open("about:blank")


def test_two_thousand_assets(tab: Tab, folder: Path) -> None:
    """Every page of them, with all pictures, and nothing in the log."""
    small = thumbnail(picture(), "image")
    place(
        folder, *(kept(folder, number, f"Picture {number}", at=number, content=b"%d" % number, thumbnail=small) for number in range(MANY))
    )
    with serving(folder) as address:
        tab.open(address)
        tab.until(f"{TILES} === 60 && document.querySelector('#pager span').textContent === 'page 1 of 34'")
        seen: set[str] = set()
        for number in range(1, 35):
            tab.until(f"document.querySelector('#pager span').textContent === 'page {number} of 34'")
            tab.until("[...document.querySelectorAll('#grid img')].slice(0, 5).every((one) => one.complete && one.naturalWidth > 0)")
            seen |= set(tab.evaluate("[...document.querySelectorAll('.prompt')].map((one) => one.textContent)"))
            tab.evaluate("document.querySelector('#pager button:last-child').click()")
        assert len(seen) == MANY
        search(tab, f"picture {MANY - 1}")
        tab.until(f"{TILES} === 1")
        tab.open("about:blank")
