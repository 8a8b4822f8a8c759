"""Files on a local disk that appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

__all__ = ["CHUNK_BYTES", "TEMPORARY_SUFFIX", "create_file", "hash_file", "keep_file", "replace_file", "same_content", "sync_folder"]

CHUNK_BYTES = 1024 * 1024
"""How much of a file is in memory at a time."""

TEMPORARY_SUFFIX = ".tmp"
"""What the names of unfinished files end with; they begin with a dot."""

_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
# Windows says it by codes of its own, on FAT by the first and on network drives by the second:
# https://learn.microsoft.com/windows/win32/debug/system-error-codes--0-499-
_NO_HARD_LINKS_ON_WINDOWS = frozenset({1, 50})


def replace_file(target: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write a file, in place of one that is there; it has its mode, less the umask, before a byte is in it."""
    with _temporary(target.parent) as draft:
        _write(draft, data, mode)
        os.replace(draft, target)
    sync_folder(target.parent)


def create_file(target: Path, data: bytes) -> bool:
    """Write a file unless one is there."""
    with _temporary(target.parent) as draft:
        _write(draft, data)
        try:
            os.link(draft, target)
        except FileExistsError:
            return False
        except OSError as error:
            if _has_no_hard_links(error):
                message = "the file system has no hard links, so a file cannot be created exclusively there; use another folder"
                raise OSError(error.errno, message, str(target)) from error
            raise
    sync_folder(target.parent)
    return True


def keep_file(source: Path, target: Path, *, move: bool) -> None:
    """Store a finished file; FileExistsError when a different one is there."""
    _make_folder(target.parent)
    _sync_file(source)
    try:
        if move:
            _link(source, target)
        else:
            _copy(source, target)
    except FileExistsError:
        if not same_content(source, target):
            raise FileExistsError(errno.EEXIST, "a different file is there", str(target)) from None
    sync_folder(target.parent)
    if move:
        source.unlink(missing_ok=True)


def same_content(one: Path, other: Path) -> bool:
    """Whether two files hold the same bytes."""
    if os.path.samefile(one, other):
        return True
    return one.stat().st_size == other.stat().st_size and hash_file(one) == hash_file(other)


def hash_file(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder outlast a power cut, where the system can."""
    if os.name == "nt":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        # Files may be made in a folder that may not be listed; it cannot be synced then.
        return
    try:
        os.fsync(handle)
    except OSError as error:
        # Network file systems and FUSE refuse this on folders, and offer nothing else.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES}:
            raise
    finally:
        os.close(handle)


@contextmanager
def _temporary(folder: Path) -> Generator[Path, None, None]:
    """A name for an unfinished file in a folder; whatever still has that name at the end is removed."""
    if not folder.is_dir():
        _make_folder(folder)
    draft = folder / f".{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    """Create a folder and those above it that are missing; the name of each outlasts a power cut, as those of the files in it do."""
    try:
        folder.mkdir()
    except FileNotFoundError:
        _make_folder(folder.parent)
        _make_folder(folder)
    except OSError:
        # Which of several reasons is told for a folder that is there differs between systems.
        if not folder.is_dir():
            raise
    else:
        sync_folder(folder.parent)


def _write(path: Path, data: bytes, mode: int = 0o666) -> None:
    # Not `tempfile`: its files are readable by their owner alone, and outputs are meant to be looked at.
    with open(path, "xb", opener=partial(os.open, mode=mode)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_file(path: Path) -> None:
    # Windows flushes only what is open for writing.
    with path.open("rb+" if os.access(path, os.W_OK) else "rb") as file:
        os.fsync(file.fileno())


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno == errno.EXDEV:
            _copy(source, target)
        elif _has_no_hard_links(error):
            _rename(source, target)
        else:
            raise


def _has_no_hard_links(error: OSError) -> bool:
    return error.errno in _NO_HARD_LINKS or getattr(error, "winerror", None) in _NO_HARD_LINKS_ON_WINDOWS


def _copy(source: Path, target: Path) -> None:
    with _temporary(target.parent) as draft:
        shutil.copyfile(source, draft)
        _sync_file(draft)
        try:
            os.link(draft, target)
        except OSError as error:
            if not _has_no_hard_links(error):
                raise
            _rename(draft, target)


def _rename(source: Path, target: Path) -> None:
    # Without hard links nothing portable names a file only if the name is free, so another writer could slip in between.
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "a file is there", str(target))
    os.rename(source, target)


class LocalFolder:
    """A store's folder on a local disk. Everything here blocks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def size(self, path: str) -> int:
        """See `Backend.size`."""
        file = self._at(path)
        if not file.is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
        return file.stat().st_size

    def read(self, path: str) -> bytes:
        """See `Backend.read`."""
        return self._at(path).read_bytes()

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """See `Backend.read_range`."""
        with self._at(path).open("rb", buffering=0) as file:
            file.seek(start)
            return file.read(length)

    def write(self, path: str, data: bytes) -> None:
        """See `Backend.write`."""
        replace_file(self._at(path), data)

    def create(self, path: str, data: bytes) -> bool:
        """See `Backend.create`."""
        return create_file(self._at(path), data)

    def delete(self, path: str) -> None:
        """See `Backend.delete`."""
        self._at(path).unlink(missing_ok=True)

    def names(self, path: str, start: str = "") -> list[str]:
        """See `Backend.names`."""
        try:
            with os.scandir(self._at(path) if path else self.folder) as entries:
                return [entry.name for entry in entries if entry.name.startswith(start) and entry.is_file()]
        except FileNotFoundError:
            return []

    def folders(self, path: str) -> list[str]:
        """See `Backend.folders`."""
        try:
            with os.scandir(self._at(path)) as entries:
                return [entry.name for entry in entries if entry.is_dir()]
        except FileNotFoundError:
            return []

    def keep(self, file: Path, path: str, *, move: bool) -> None:
        """See `Backend.keep`."""
        keep_file(file, self._at(path), move=move)

    def hash(self, path: str) -> str:
        """See `Backend.hash`."""
        return hash_file(self._at(path))

    def sign(self, path: str, seconds: int) -> str:
        """See `Backend.sign`."""
        raise OSError(errno.ENOTSUP, f"a local folder has no addresses that live {seconds} s", str(self._at(path)))

    def _at(self, path: str) -> Path:
        return self.folder / path
