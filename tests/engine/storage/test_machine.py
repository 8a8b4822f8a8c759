"""The machine's folders: one environment variable overrides them all, and no other place computes one."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

import prefect_happyhorse
from prefect_happyhorse.engine.http.auth import TokenStore
from prefect_happyhorse.engine.journal.spool import Spool
from prefect_happyhorse.engine.storage.machine import cache_folder, state_folder
from prefect_happyhorse.engine.storage.store import Store


def test_one_variable_overrides_every_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With HAPPYHORSE_HOME set, tokens, spooled entries and partial downloads all lie below it."""
    monkeypatch.setenv("HAPPYHORSE_HOME", str(tmp_path))
    folders = [TokenStore().folder, Spool("s3://bucket").folder, Store("s3://bucket").scratch_dir()]
    assert [folder.relative_to(tmp_path).parts[0] for folder in folders] == ["tokens", "spool", "cache"]
    assert (state_folder(), cache_folder()) == (tmp_path, tmp_path / "cache")


def test_the_users_home_may_be_written_as_a_tilde(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A value that no shell has expanded, as in an .env file, means the same."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HAPPYHORSE_HOME", "~/horses")
    assert state_folder() == tmp_path / "horses"


def test_a_relative_folder_stays_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was spooled before a process goes to another folder is found after."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HAPPYHORSE_HOME", "relative-horses")
    before = Spool("file:///outputs").folder
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert Spool("file:///outputs").folder == before
    assert before.is_relative_to(tmp_path / "relative-horses")


def test_the_tests_have_folders_of_their_own() -> None:
    """The suite clears the user's HAPPYHORSE_ variables, and must not fall back to the user's own tokens and spool by that."""
    assert state_folder() == Path(os.environ["PREFECT_HOME"]) / "happyhorse"


@pytest.mark.parametrize("unset", ["", None])
def test_without_it_the_folders_are_the_systems(unset: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """State and cache lie where the system keeps them for applications, and follow its own variables; an empty value is as none."""
    if unset is None:
        monkeypatch.delenv("HAPPYHORSE_HOME")
    else:
        monkeypatch.setenv("HAPPYHORSE_HOME", unset)
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        assert (state_folder(), cache_folder()) == (tmp_path / "state" / "prefect-happyhorse", tmp_path / "cache" / "prefect-happyhorse")
    assert {state_folder().name, cache_folder().name} <= {"prefect-happyhorse", "Cache"}


def test_no_other_module_computes_such_a_folder() -> None:
    """A second rule for where things lie would keep a paid job where nobody looks for it."""
    package = Path(prefect_happyhorse.__file__).parent
    tells = re.compile(r"HAPPYHORSE_HOME|XDG_|Path\.home\(\)|expanduser\(\"~|platformdirs|LOCALAPPDATA")
    found = {file.relative_to(package).as_posix() for file in package.rglob("*.py") if tells.search(file.read_text(encoding="utf-8"))}
    assert found == {"engine/storage/machine.py"}
