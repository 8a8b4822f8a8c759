"""A gallery as plain files: what is in it, what it links to, and what it says is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.engine.storage.conftest import StoreMaker
from tests.gallery.entries import SIGNED, digest_of, kept, place, submitted, uncertain

from prefect_happyhorse.cli import main
from prefect_happyhorse.domain.requests import ReferenceToVideo
from prefect_happyhorse.engine.journal.journal import Journal
from prefect_happyhorse.engine.storage.local import LocalFolder
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gallery.export import export_gallery


def export(folder: Path, target: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["gallery", "--store", str(folder), "--export", str(target), *options])


def data(target: Path) -> dict[str, Any]:
    return json.loads((target / "data.js").read_text().removeprefix("window.happyhorseExport = ").rstrip().removesuffix(";"))


def job(target: Path, name: object) -> dict[str, Any]:
    digest = digest_of(name)
    text = (target / "jobs" / f"{digest[:2]}.js").read_text()
    return json.loads(text.removeprefix(f'happyhorse.chunk("{digest[:2]}", ').rstrip().removesuffix(");"))[digest]


def names(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "site"


@pytest.fixture
def made(folder: Path) -> Path:
    """A picture, two takes of a video of it, one that is open, and one of unknown outcome."""
    horse = kept(folder, "horse", "A horse", content=b"horse", thumbnail=b"small", url=SIGNED, labels={"project": "film"})
    assert horse.asset is not None
    ride = ReferenceToVideo(model="happyhorse-1.1-r2v", prompt="It runs", references=(horse.asset,))
    rides = [kept(folder, f"ride {take}", ride, at=take, take=take, media_type="video/mp4", content=b"v" * take) for take in (1, 2)]
    place(folder, horse, *rides, submitted("open", at=3), uncertain("doubt", at=4))
    return folder


def test_it_links_to_the_files_of_a_folder(made: Path, target: Path) -> None:
    """Relative to itself, so that both may be copied together; thumbnails lie in it."""
    done = export(made, target)
    assert (done.exit_code, done.stdout) == (0, f"{target / 'index.html'}\n")
    assert "5 jobs" in done.stderr
    assert "0 files copied, 3 linked" in done.stderr
    row = next(row for row in data(target)["rows"] if row["digest"] == digest_of("ride 2"))
    assert row["sources"] == ["../outputs/2026-11-20/ride%202.mp4"]
    assert [row["prompt"] for row in data(target)["rows"]] == ["A horse", "A horse", "It runs", "It runs", "A horse"]
    assert len([name for name in names(target) if name.startswith("thumbnails/")]) == 1


def test_it_holds_the_files_where_they_are_copied(made: Path, target: Path) -> None:
    """Each once, by its content; again only what is new is copied, and what is gone from the journal goes."""
    assert export(made, target, "--copy").exit_code == 0
    media = sorted((target / "media").iterdir())
    assert sorted(file.read_bytes() for file in media) == [b"horse", b"v", b"vv"]
    assert job(target, "ride 1")["sources"] == [f"media/{job(target, 'ride 1')['files'][0]['sha256']}.mp4"]
    before = {file: file.stat().st_mtime_ns for file in media}
    (entry,) = made.glob(f"journal/??/{digest_of('ride 2')}.1.json")
    entry.unlink()
    assert export(made, target, "--copy").exit_code == 0
    after = {file: file.stat().st_mtime_ns for file in (target / "media").iterdir()}
    assert len(after) == 2
    assert after.items() <= before.items()
    assert digest_of("ride 2") not in (target / "data.js").read_text()


def test_takes_and_lineage_are_in_it(made: Path, target: Path) -> None:
    """By their digests."""
    export(made, target)
    assert job(target, "ride 1")["takes"] == [digest_of("ride 1"), digest_of("ride 2")]
    assert job(target, "horse")["made_of_it"] == [digest_of("ride 1"), digest_of("ride 2")]
    assert job(target, "ride 2")["inputs"][0]["job"]["digest"] == digest_of("horse")
    assert job(target, "ride 2")["inputs"][0]["thumbnail"] in str(names(target))


def test_nothing_of_the_machine_or_a_signature_is_in_it(made: Path, target: Path) -> None:
    """A gallery may be put where everybody reads it: no path of this machine, no host, no address that can be opened by it."""
    export(made, target, "--copy")
    owner = json.loads(next(made.glob("journal/??/*.json")).read_text())["owner"]
    for file in target.rglob("*.js"):
        for secret in (str(made), "c2lnbmF0dXJl", owner["host"], owner["machine"], owner["run"]):
            assert secret not in file.read_text(), file


def test_an_input_of_this_machine_is_called_by_its_name(folder: Path, target: Path) -> None:
    """Not by where it lies; one of the web is called by its address, and one inside the request by its type."""
    media = ("/home/me/a.png", "file:///home/me/b.png", r"C:\me\c.png", "https://example.com/d.png?width=1", "data:image/png;base64,AAAA")
    place(folder, submitted("ride", ReferenceToVideo(model="m", prompt="It runs", references=media)))
    export(folder, target)
    shown = [one["text"] for one in job(target, "ride")["inputs"]]
    assert shown == ["a.png", "b.png", "c.png", "https://example.com/d.png?…", "data:image/png;base64, 26 characters"]


def test_what_is_missing_is_said(made: Path, target: Path) -> None:
    """On the terminal, in the exit code and on the page: a file that is gone, one that was cut, and an entry that cannot be read."""
    (made / "2026-11-20" / "horse.png").unlink()
    (made / "2026-11-20" / "ride 1.mp4").write_bytes(b"")
    (made / "journal" / "ab").mkdir(exist_ok=True)
    (made / "journal" / "ab" / f"ab{'0' * 62}.1.json").write_text("{")
    done = export(made, target)
    assert done.exit_code == 1
    assert "horse.png is left out. It is not in the store." in done.stderr
    assert "ride 1.mp4 is left out. It has 0 bytes, and had 1 when it was kept." in done.stderr
    assert f"ab{'0' * 62}.1.json cannot be read" in done.stderr
    assert "3 files or journal entries were left out." in done.stderr
    assert data(target)["problems"] == ["1 entries of the journal could not be read and are not shown."]
    assert job(target, "horse")["files"][0]["problem"] == "It is not in the store."
    assert job(target, "horse")["sources"] == [None]


@pytest.mark.parametrize("made_before", ["file.txt", "index.html"])
def test_other_files_are_not_written_among(made: Path, target: Path, made_before: str) -> None:
    """Only an empty folder, or one that holds a gallery."""
    target.mkdir()
    (target / made_before).write_text("mine")
    done = export(made, target)
    assert (done.exit_code, names(target)) == (1, {made_before})
    assert "must be empty or hold an earlier gallery" in done.stderr
    done = export(made, target / made_before)
    assert "must be a folder (got a file). Nothing was written." in done.stderr


def test_a_bucket_is_no_folder(made: Path) -> None:
    """It says how a gallery comes there."""
    done = CliRunner().invoke(main, ["gallery", "--store", str(made), "--export", "s3://bucket/site"])
    assert done.exit_code == 2
    assert "--export takes a folder on this machine" in done.stderr
    assert "--copy goes with --export" in CliRunner().invoke(main, ["gallery", "--store", str(made), "--copy"]).stderr


def test_an_empty_journal_makes_an_empty_gallery(folder: Path, target: Path) -> None:
    """As the served page has it."""
    done = export(folder, target)
    assert (done.exit_code, data(target)["rows"]) == (0, [])


def test_a_released_lease_is_no_job(folder: Path, target: Path) -> None:
    """It is in the export, for whoever filters for it, and is not counted: nothing was bought."""
    place(folder, submitted("open"), uncertain("refused").model_copy(update={"state": "released", "failure": None}))
    assert "1 jobs from" in export(folder, target).stderr
    assert sorted(row["state"] for row in data(target)["rows"]) == ["released", "submitted"]
    assert data(target)["about"].startswith("1 jobs, exported")


def test_a_journal_that_may_not_be_listed_makes_none(made: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what it takes."""

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Access Denied")

    monkeypatch.setattr(LocalFolder, "folders", refuse)
    done = export(made, target)
    assert done.exit_code == 1
    assert "cannot be listed: Access Denied" in done.stderr
    assert names(target) == set()


async def _in_bucket(made: Path, bucket: Store) -> None:
    """The same store as if its runs had written into a bucket."""
    for file in made.rglob("*"):
        if file.is_file():
            content = file.read_bytes().replace(f"file://{made}".encode(), bucket.url.encode())
            await bucket.write(file.relative_to(made).as_posix(), content)


async def test_files_of_a_bucket_are_copied_or_linked_by_its_public_address(
    made: Path, target: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Without either, their thumbnails are shown, and it is said how many files are not in it."""
    make: StoreMaker = request.getfixturevalue("s3")
    await _in_bucket(made, make())
    plain = await export_gallery(Journal(make()), target)
    assert (plain.jobs, plain.copied, plain.linked, plain.unlinked, plain.problems) == (5, 0, 0, 3, [])
    assert job(target, "horse")["files"][0]["problem"].endswith("it was exported without --copy.")
    copied = await export_gallery(Journal(make()), target, copy=True)
    assert (copied.copied, copied.problems) == (3, [])
    assert sorted(file.read_bytes() for file in (target / "media").iterdir()) == [b"horse", b"v", b"vv"]
    public = await export_gallery(Journal(make(public_base_url="https://media.example/x")), tmp_path / "public")
    assert (public.linked, public.copied) == (3, 0)
    assert job(tmp_path / "public", "horse")["sources"] == ["https://media.example/x/2026-11-20/horse.png"]
    page = (tmp_path / "public" / "index.html").read_text()
    assert "media-src 'self' https://media.example;" in page
    assert "script-src 'self';" in page
