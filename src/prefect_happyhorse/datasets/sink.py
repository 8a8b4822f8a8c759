"""Files of a data set, written as they come: each has a name of its own until it is whole, and then takes the place that it is for."""

from __future__ import annotations

import errno
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from io import RawIOBase
from typing import Any

from prefect_happyhorse.engine.storage.fsspec_backend import open_filesystem, translated
from prefect_happyhorse.engine.storage.store import Store

__all__ = ["Target", "reach"]

_BLOCK_BYTES = 8 * 1024 * 1024


def reach(uri: str, store: Store) -> tuple[Any, str]:
    """The filesystem of a path or URL, and the path within it; with the store's own options where it is of the store's kind."""
    with translated(uri):
        return open_filesystem(uri, store.options if uri.startswith(f"{store.scheme}://") else {})


class _Counted(RawIOBase):
    """A file that is being written, and how long it is by now."""

    def __init__(self, file: Any, place: str) -> None:
        self._file = file
        self._place = place
        self._length = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._length

    def write(self, data: Any) -> int:
        with translated(self._place):
            self._file.write(data)
        self._length += len(data)
        return len(data)


class Target:
    """Where a data set goes.

    Args:
        target: A path or an fsspec URL.
        store: The store whose options open it, where it is of the store's kind.
        overwrite: Whether files that are there may be replaced.
    """

    def __init__(self, target: str, store: Store, *, overwrite: bool) -> None:
        self.fs, self.path = reach(target, store)
        self.overwrite = overwrite
        self._is_local = "file" in ((self.fs.protocol,) if isinstance(self.fs.protocol, str) else self.fs.protocol)

    def uri(self, path: str) -> str:
        """The URL of a file."""
        return str(self.fs.unstrip_protocol(path))

    @contextmanager
    def file(self, path: str) -> Generator[RawIOBase, None, None]:
        """A file that takes its place once the block has ended well, and else leaves nothing; OSError where one is that has to stay."""
        folder, slash, name = path.rpartition("/")
        part = f"{folder}{slash}.{name}.{secrets.token_hex(4)}.part"
        with translated(path):
            self._check_free(path)
            if self._is_local:
                self.fs.makedirs(folder, exist_ok=True)
            file = self.fs.open(part, "wb", block_size=_BLOCK_BYTES)
        try:
            try:
                yield _Counted(file, path)
            finally:
                with translated(path):
                    file.close()
            with translated(path):
                # One may have come to be there meanwhile.
                self._check_free(path)
                self._move(part, path)
        except BaseException:
            with suppress(Exception):
                self.fs.rm_file(part)
            raise

    def _check_free(self, path: str) -> None:
        try:
            # Not fsspec's `exists`, which takes every failure for a no.
            kind = self.fs.info(path)["type"]
        except FileNotFoundError:
            return
        if kind != "file":
            raise IsADirectoryError(errno.EISDIR, "there is a folder; give the name of a file", path)
        if not self.overwrite:
            raise FileExistsError(errno.EEXIST, "there is a file already; give another name, or --overwrite (overwrite=True)", path)

    def _move(self, part: str, path: str) -> None:
        if self._is_local:
            self.fs.mv(part, path)
        else:
            # Not fsspec's `mv`, for which a bracket in a name is a pattern.
            self.fs.cp_file(part, path)
            self.fs.rm_file(part)
