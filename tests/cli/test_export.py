"""`happyhorse export`: what was made as a data set, from the terminal."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result
from tests.cli.journal import HORSE, bought, riding
from tests.cli.journal import run as jobs

from prefect_happyhorse.cli import main
from prefect_happyhorse.datasets import Row, read_manifest
from prefect_happyhorse.domain.errors import GenerationError
from prefect_happyhorse.engine.journal.journal import JournalEntry
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.sandbox import SandboxServer


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


@pytest.fixture
def horse(store: Store) -> JournalEntry:
    """A job whose file is kept; another is open."""
    entry = bought(store)
    assert jobs("resume", entry.digest[:12]).exit_code == 0
    riding(store)
    return entry


def test_rows_are_written_and_counted(horse: JournalEntry, store: Store, tmp_path: Path) -> None:
    """Where the ending says no other format as Parquet; standard output names the file alone, and the rest is told beside it."""
    done = run(tmp_path / "shots.parquet")
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path}/shots.parquet\n")
    assert f"1 rows from {store.url}; 1 jobs have no file." in done.stderr
    (row,) = pyarrow.parquet.read_table(tmp_path / "shots.parquet").to_pylist()
    assert (row["id"], row["digest"]) == (horse.digest, horse.digest)
    assert list(read_manifest(str(tmp_path / "shots.parquet"))) == [Row(row=1, id="1", request=HORSE)]


def test_rows_have_their_own_ids(horse: JournalEntry, tmp_path: Path) -> None:
    """Of a file that gives them by digest."""
    ids = tmp_path / "ids.json"
    ids.write_text(json.dumps({horse.digest: "horse-1"}))
    summary = json.loads(run(tmp_path / "shots.jsonl", "--ids", ids, "--json").stdout)
    assert summary == {
        "format": "jsonl",
        "files": [f"file://{tmp_path}/shots.jsonl"],
        "rows": 1,
        "without_file": 1,
        "left_out": 0,
        "problems": [],
    }
    assert json.loads((tmp_path / "shots.jsonl").read_text())["id"] == "horse-1"


@pytest.mark.parametrize("name", ["shots.csv", "shots.jsonl.gz"])
def test_an_ending_that_cannot_be_written(name: str, horse: JournalEntry, tmp_path: Path) -> None:
    """Is refused with those that can, unless the format is said; nothing is written. Without an ending it is Parquet."""
    told = run(tmp_path / name)
    assert (told.exit_code, list(tmp_path.glob("shots*"))) == (1, [])
    assert "must end with one of .parquet, .jsonl, .ndjson, .tar" in told.stderr
    assert "format must be one of parquet, jsonl, webdataset" in told.stderr
    assert run(tmp_path / name, "--format", "jsonl").exit_code == 0
    assert run(tmp_path / "shots").exit_code == 0
    assert pyarrow.parquet.read_table(tmp_path / "shots").num_rows == 1


@pytest.mark.parametrize("content", ["[]", "{", '{"a": 1}'])
def test_a_file_of_ids_that_cannot_be_read_is_refused(content: str, store: Store, tmp_path: Path) -> None:
    """Before anything is read."""
    (tmp_path / "ids.json").write_text(content)
    done = run(tmp_path / "shots.jsonl", "--ids", tmp_path / "ids.json")
    assert (done.exit_code, "ids.json" in done.stderr) == (2, True)
    assert run(tmp_path / "shots.jsonl", "--ids", tmp_path / "none.json").exit_code == 2


def test_a_released_lease_is_no_job_without_a_file(sandbox_env: SandboxServer, store: Store, tmp_path: Path) -> None:
    """Nothing was bought under it."""
    sandbox_env.fault(at="submit", kind="refuse", accept=False)
    with pytest.raises(GenerationError, match="400"):
        bought(store)
    assert f"0 rows from {store.url}; 0 jobs have no file." in run(tmp_path / "shots.jsonl").stderr


def test_what_is_left_out_is_told_and_fails(horse: JournalEntry, store: Store, tmp_path: Path) -> None:
    """The rest is written all the same."""
    (file,) = (store.folder or tmp_path).rglob("*.png")
    file.unlink()
    done = run(tmp_path / "shots.tar")
    assert done.exit_code == 1
    assert "is not there any more" in done.stderr
    assert "1 files or journal entries were left out." in done.stderr


def test_what_is_there_stays(horse: JournalEntry, tmp_path: Path) -> None:
    """Unless it is to be overwritten."""
    assert run(tmp_path / "shots.jsonl").exit_code == 0
    again = run(tmp_path / "shots.jsonl")
    assert (again.exit_code, "there is a file already; give another name, or --overwrite" in again.stderr) == (1, True)
    assert run(tmp_path / "shots.jsonl", "--overwrite", "--format", "parquet").exit_code == 0
    assert pyarrow.parquet.read_table(tmp_path / "shots.jsonl").num_rows == 1


def test_without_pyarrow_the_way_out_is_said(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a traceback."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = run(tmp_path / "shots.parquet")
    assert (done.exit_code, "pip install 'prefect-happyhorse[data]'" in done.stderr) == (1, True)
