"""Files on a local disk: whole or not at all, and on the disk before anybody is told so."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from prefect_happyhorse.engine.storage import local
from prefect_happyhorse.engine.storage.local import create_file, replace_file


@pytest.mark.parametrize(("mode", "expected"), [(0o600, 0o600), (0o666, 0o640)])
def test_a_file_never_has_a_wider_mode_than_it_ends_with(mode: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mode is set when the file is made, before a byte of a secret is in it, and the umask still counts."""
    seen: list[tuple[int, int]] = []
    sync = os.fsync

    def look(handle: int) -> None:
        status = os.fstat(handle)
        if stat.S_ISREG(status.st_mode):
            (draft,) = tmp_path.iterdir()
            seen.append((stat.S_IMODE(draft.stat().st_mode), status.st_size))
        sync(handle)

    monkeypatch.setattr(os, "fsync", look)
    before = os.umask(0o027)
    try:
        replace_file(tmp_path / "token.json", b"sesame", mode=mode)
    finally:
        os.umask(before)
    assert seen == [(expected, 6)]
    assert stat.S_IMODE((tmp_path / "token.json").stat().st_mode) == expected


def test_file_and_folder_are_synced_in_this_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes reach the disk before the name does, and the name before the call returns."""
    steps: list[str] = []
    sync, replace = os.fsync, os.replace

    def note_sync(handle: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        sync(handle)

    def note_replace(source: Path, target: Path) -> None:
        steps.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_replace)
    replace_file(tmp_path / "entry.json", b"paid")
    assert steps == ["file", "rename", "folder"]


def test_the_names_of_new_folders_are_synced_before_a_file_is_in_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease in a folder whose own name a power cut takes would be gone with it; what is there already is not synced again."""
    synced: list[str] = []
    sync = local.sync_folder

    def note(folder: Path) -> None:
        synced.append(f"{folder.relative_to(tmp_path)}: {', '.join(sorted(one.name for one in folder.iterdir()))}")
        sync(folder)

    monkeypatch.setattr(local, "sync_folder", note)
    folder = tmp_path / "outputs" / "journal" / "ab"
    assert create_file(folder / "x.1.json", b"intent")
    assert synced == [".: outputs", "outputs: journal", "outputs/journal: ab", "outputs/journal/ab: x.1.json"]
    synced.clear()
    assert create_file(folder / "x.2.json", b"paid")
    assert synced == ["outputs/journal/ab: x.1.json, x.2.json"]


def test_a_folder_that_may_not_be_listed_is_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files may be made in it all the same."""
    opened = os.open

    def refuse(path: Path, flags: int, **more: int) -> int:
        if path == tmp_path:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, **more)

    monkeypatch.setattr(os, "open", refuse)
    replace_file(tmp_path / "outputs" / "entry.json", b"paid")
    assert (tmp_path / "outputs" / "entry.json").read_bytes() == b"paid"


def test_a_write_that_fails_leaves_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there stays whole, and no draft stays behind."""
    replace_file(tmp_path / "entry.json", b"paid")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(tmp_path / "entry.json", b"other")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"entry.json": b"paid"}
