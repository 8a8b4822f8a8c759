"""The formats in which samples are written. Everything here blocks, and one thread after another may drive it."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import re
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import PurePosixPath
from threading import Lock
from typing import Any

from prefect_happyhorse.datasets.arrow import pyarrow_module
from prefect_happyhorse.datasets.ids import Ids
from prefect_happyhorse.datasets.samples import COLUMNS, Sample
from prefect_happyhorse.datasets.sink import Target, reach
from prefect_happyhorse.engine.media.formats import extension_of, format_of
from prefect_happyhorse.engine.storage.fsspec_backend import translated
from prefect_happyhorse.engine.storage.store import Store

__all__ = ["JsonLines", "Parquet", "WebDataset", "Writer"]

_TOLD = 100
_READ_BYTES = 8 * 1024 * 1024
_TAR_BUFFER_BYTES = 1024 * 1024
# What WebDataset reads as one sample is named up to the first dot: https://github.com/webdataset/webdataset#the-webdataset-format
_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")
_EXTENSION = re.compile(r"[a-z0-9]{1,10}")


class Writer(ABC):
    """A data set that is being written.

    Args:
        target: Where it goes.
    """

    def __init__(self, target: Target) -> None:
        self.files: list[str] = []
        self.rows = self.left_out = 0
        self.problems: list[str] = []
        self._target = target
        self._ids = Ids()
        self._stack = ExitStack()
        # Who is cancelled leaves a thread behind that still writes.
        self._lock = Lock()

    def open(self) -> None:
        """Begin."""
        with self._lock:
            self._open()

    def finish(self) -> None:
        """Put the files in their places."""
        with self._lock:
            self._stack.close()
            self._ids.close()

    def abandon(self, error: BaseException) -> None:
        """Remove what is not whole."""
        with self._lock:
            self._ids.close()
            self._stack.__exit__(type(error), error, error.__traceback__)

    def write(self, samples: Sequence[Sample]) -> None:
        """Append samples; ValueError where one has the id of another."""
        with self._lock:
            for row, sample in enumerate(samples, start=self.rows + self.left_out + 1):
                if self._ids.first(sample.id, row) != row:
                    digest = sample.columns["digest"][:12]
                    raise ValueError(
                        f"an id must be of one job alone (got {sample.id!r} for {digest} and for one before). Nothing was written."
                    )
            self._write(samples)

    def leave_out(self, why: str) -> None:
        """Count what cannot be written."""
        self.left_out += 1
        if len(self.problems) < _TOLD:
            self.problems.append(why)

    @abstractmethod
    def _open(self) -> None:
        """Begin, or leave that to the first sample."""

    @abstractmethod
    def _write(self, samples: Sequence[Sample]) -> None: ...

    def _new_file(self, path: str) -> io.RawIOBase:
        file = self._stack.enter_context(self._target.file(path))
        self.files.append(self._target.uri(path))
        return file


class JsonLines(Writer):
    """A row a line."""

    def _open(self) -> None:
        self._file = self._new_file(self._target.path)

    def _write(self, samples: Sequence[Sample]) -> None:
        lines = (json.dumps(sample.json_columns, ensure_ascii=False, separators=(",", ":")) + "\n" for sample in samples)
        self._file.write("".join(lines).encode())
        self.rows += len(samples)


class Parquet(Writer):
    """A row group for each call."""

    def _open(self) -> None:
        self._pyarrow = pyarrow_module("pyarrow", what="Writing Parquet")
        parquet = pyarrow_module("pyarrow.parquet", what="Writing Parquet")
        types = {
            "text": self._pyarrow.string(),
            "integer": self._pyarrow.int64(),
            "float": self._pyarrow.float64(),
            "time": self._pyarrow.timestamp("us", tz="UTC"),
        }
        self._schema = self._pyarrow.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
        file = self._new_file(self._target.path)
        self._parquet = self._stack.enter_context(parquet.ParquetWriter(self._pyarrow.PythonFile(file, mode="w"), self._schema))

    def _write(self, samples: Sequence[Sample]) -> None:
        rows = [sample.columns for sample in samples]
        if rows:
            self._parquet.write_table(self._pyarrow.Table.from_pylist(rows, schema=self._schema))
        self.rows += len(rows)


class WebDataset(Writer):
    """Tar files of bounded size, in which each file that was made lies beside its row: `<key>.mp4` and `<key>.json`.

    Args:
        target: Where they go: for `"shots.tar"` they are `shots-000000.tar`, `shots-000001.tar` and so on.
        store: Where the files are read from.
        shard_bytes: How long a shard may become; one that holds a single sample may be longer.
    """

    def __init__(self, target: Target, store: Store, shard_bytes: int) -> None:
        super().__init__(target)
        self._store = store
        self._shard_bytes = shard_bytes
        self._stem = target.path.removesuffix(".tar")
        self._tar: Any = None
        self._length = 0

    def _open(self) -> None:
        """The first sample opens the first shard; what there is of another data set of the same name would be read as part of this."""
        folder, _, name = self._stem.rpartition("/")
        with translated(self._target.uri(folder)), suppress(FileNotFoundError):
            there: list[str] = [] if self._target.overwrite else self._target.fs.ls(folder, detail=False, refresh=True)
            shard = re.compile(rf"(?:.*/)?{re.escape(name)}-\d{{6}}\.tar")
            if earlier := sorted(path for path in there if shard.fullmatch(path)):
                raise FileExistsError(
                    errno.EEXIST, "there is a shard already; give another name, or --overwrite (overwrite=True)", earlier[0]
                )

    def _write(self, samples: Sequence[Sample]) -> None:
        for sample in samples:
            asset = sample.asset
            fs, path = reach(asset.uri, self._store)
            with translated(asset.uri):
                try:
                    size = fs.info(path)["size"]
                    medium = fs.open(path, "rb", block_size=_READ_BYTES)
                except FileNotFoundError:
                    self.leave_out(f"{sample.id}: {asset.uri} is not there any more")
                    continue
            with medium:
                if size == asset.bytes:
                    self._add(sample, medium)
                    self.rows += 1
                else:
                    self.leave_out(f"{sample.id}: {asset.uri} must have {asset.bytes:,} bytes (got {size:,})")

    def _add(self, sample: Sample, medium: Any) -> None:
        key, asset = _key(sample.id), sample.asset
        row = json.dumps(sample.json_columns, ensure_ascii=False, separators=(",", ":")).encode()
        # Two heads, and both bodies up to whole blocks.
        length = sum(tarfile.BLOCKSIZE + _rounded_up(size, tarfile.BLOCKSIZE) for size in (asset.bytes, len(row)))
        # Two empty blocks end a tar, and whole records.
        whole = _rounded_up(self._length + length + 2 * tarfile.BLOCKSIZE, tarfile.RECORDSIZE)
        if not self.files or whole > self._shard_bytes:
            self._next_shard()
        self._length += length
        at = 0 if sample.columns["submitted_at"] is None else int(sample.columns["submitted_at"].timestamp())
        checked = _Checked(medium, sample)
        self._tar.addfile(_member(f"{key}.{_extension(asset.uri, asset.media_type)}", asset.bytes, at), checked)
        checked.check()
        self._tar.addfile(_member(f"{key}.json", len(row), at), io.BytesIO(row))

    def _next_shard(self) -> None:
        self._stack.close()
        file = self._new_file(f"{self._stem}-{len(self.files):06d}.tar")
        tar: Any = tarfile.TarFile.open(fileobj=file, mode="w|", bufsize=_TAR_BUFFER_BYTES)
        self._tar, self._length = self._stack.enter_context(tar), 0

    def finish(self) -> None:
        """As every writer, and then remove the shards of an earlier data set of the same name beyond the last one of this."""
        super().finish()
        number = len(self.files)
        while self._target.overwrite and self._target.fs.exists(path := f"{self._stem}-{number:06d}.tar"):
            self._target.fs.rm_file(path)
            number += 1


class _Checked:
    """A file that is read as it is copied, and has to be the one that the journal knows."""

    def __init__(self, file: Any, sample: Sample) -> None:
        self._file = file
        self._sample = sample
        self._hash = hashlib.sha256()

    def read(self, length: int) -> bytes:
        with translated(self._sample.asset.uri):
            data: bytes = self._file.read(length)
        self._hash.update(data)
        return data

    def check(self) -> None:
        """Refuse another file of the same length."""
        if self._hash.hexdigest() != self._sample.asset.sha256:
            uri = self._sample.asset.uri
            raise OSError(
                f"{uri} is not the file that was made: its sha256 must be {self._sample.asset.sha256} (got {self._hash.hexdigest()})"
            )


def _rounded_up(length: int, unit: int) -> int:
    return -(-length // unit) * unit


def _member(name: str, length: int, at: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mtime = length, at
    return member


def _key(id: str) -> str:
    """A name for a sample's files: its id, or where that cannot be, one that it is known by."""
    if _KEY.fullmatch(id):
        return id
    known = hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{re.sub('[^A-Za-z0-9_-]+', '-', id).strip('-')[:60] or 'x'}-{known}"


def _extension(uri: str, media_type: str) -> str:
    own = PurePosixPath(uri).suffix.removeprefix(".").lower()
    return own if _EXTENSION.fullmatch(own) else extension_of(format_of(media_type) or "bin")
