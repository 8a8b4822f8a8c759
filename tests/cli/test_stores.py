"""A store that cannot be opened, or that holds no journal, as every command that reads one tells it."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest
from tests.cli.commands import run

READING = [("jobs", "--store", "{}", "list"), ("jobs", "--store", "{}", "show", "abcdef"), ("spend", "--store", "{}")]
EXPORTING = [("gallery", "--store", "{}", "--export", "page"), ("export", "--store", "{}", "rows.jsonl")]
SERVING = [("gallery", "--store", "{}", "--port", "0")]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and no package that opens S3."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(import_module("fsspec.registry")._registry, "s3", raising=False)
    return tmp_path


@pytest.mark.parametrize("command", [*READING, *EXPORTING, *SERVING], ids=" ".join)
@pytest.mark.parametrize(("store", "install"), [("s3://b/c", "'prefect-happyhorse[s3]' ("), ("gs://b/c", "gcsfs (")])
def test_a_package_that_is_not_installed_is_named(command: tuple[str, ...], store: str, install: str, here: Path) -> None:
    """In a line, with the way to install it; nothing is made."""
    told = run(*(word.format(store) for word in command))
    assert (told.exit_code, f"{store} needs " in told.stderr, f"pip install {install}" in told.stderr) == (1, True, True), told.output
    assert len(told.stderr.splitlines()) == 1
    assert list(here.iterdir()) == []


def test_the_doctor_names_it_too(one_gateway: object) -> None:
    """With what to do."""
    told = run("doctor", "--store", "s3://b/c")
    assert "s3://b/c needs s3fs: pip install 'prefect-happyhorse[s3]'" in told.stdout
    assert "Install it. Until then nothing is submitted." in told.stdout


@pytest.mark.parametrize("command", [*READING, *EXPORTING], ids=" ".join)
def test_a_store_without_a_journal_is_told(command: tuple[str, ...], here: Path) -> None:
    """Since its name may be mistyped; for the list it is no error, and no folder is made of it."""
    told = run(*(word.format("outptus") for word in command))
    assert f"There is no journal in file://{here}/outptus" in told.stderr
    assert "--store URL, --block NAME or the variable HAPPYHORSE_STORE" in told.stderr
    assert told.exit_code == (1 if "show" in command else 0)
    assert not (here / "outptus").exists()
