"""A partial download: a file, a small state file beside it, and a lock, all of which outlast the process."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.engine.media.probe import MediaInfo
from prefect_happyhorse.engine.storage.local import CHUNK_BYTES, replace_file

__all__ = ["Finished", "Partial", "lock_partial", "open_partial", "partial_key"]


@dataclass(frozen=True)
class Finished:
    """A complete download: where in the store it goes, and what it is."""

    path: str
    sha256: str
    info: MediaInfo


class _State(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    validator: str | None = None
    total: int | None = None
    safe_bytes: int = Field(default=0, ge=0)
    finished: Finished | None = None


def partial_key(job: Job, index: int) -> str:
    """The name of a partial download's files."""
    whole = repr((job.gateway, job.account, job.digest, job.task_id, index))
    return hashlib.sha256(whole.encode()).hexdigest()[:32]


def lock_partial(folder: Path, key: str) -> FileLock | None:
    """Lock a partial download against other processes and tasks, or None when one of them has it; a dead process holds no lock."""
    locks = folder / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    # A lock file cannot be removed safely, so their number is fixed: two outputs that share one wait for each other.
    lock = FileLock(locks / f"{key[:3]}.lock", thread_local=False)
    try:
        lock.acquire(blocking=False)  # pyright: ignore[reportUnknownMemberType] -- what it returns is of no interest
    except Timeout:
        return None
    return lock


class Partial:
    """The file of a partial download. All but `restart` blocks: call it in a thread, and hold the output's lock meanwhile.

    Only what was synced to the disk counts when the file is opened again, since after a power cut the rest may be noise.
    """

    def __init__(self, folder: Path, key: str, *, checkpoint_bytes: int) -> None:
        self.path = folder / f"{key}.part"
        self.offset = 0
        self.high_water = 0
        self.total: int | None = None
        self.validator: str | None = None
        self.finished: Finished | None = None
        self._state_path = folder / f"{key}.json"
        self._checkpoint_bytes = checkpoint_bytes
        self._safe_bytes = 0
        self._restarts = False
        self._has_state = False
        self._sha256 = hashlib.sha256()
        self._file: BinaryIO | None = None
        # A cancelled caller releases the lock while a thread may still be writing, or about to.
        self._mutex = threading.Lock()
        self._is_closed = False

    @property
    def sha256(self) -> str:
        """The SHA-256 of what is there so far, in hexadecimal."""
        return self._sha256.hexdigest()

    @property
    def is_whole(self) -> bool:
        """Whether all bytes are there, as far as the server said how many there are."""
        return self.offset > 0 and self.offset == self.total

    def load(self) -> None:
        """Continue what an earlier process left; a damaged state is dropped."""
        with self._open():
            state = self._read_state()
            self._has_state = self._state_path.exists()
            self.finished, self.validator, self.total, self._safe_bytes = state.finished, state.validator, state.total, state.safe_bytes
            if not self.path.exists():
                self._safe_bytes = 0
                return
            with self.path.open("rb+") as file:
                file.truncate(min(self._safe_bytes, file.seek(0, os.SEEK_END)))
                file.seek(0)
                while chunk := file.read(CHUNK_BYTES):
                    self._sha256.update(chunk)
                self.offset = self.high_water = self._safe_bytes = file.tell()

    def restart(self, *, validator: str | None = None, total: int | None = None) -> None:
        """Begin anew: what is there is dropped with the first bytes that come."""
        with self._open():
            self._restarts = True
            self.offset = self._safe_bytes = 0
            self._sha256 = hashlib.sha256()
            self.validator, self.total, self.finished = validator, total, None

    def append(self, data: bytes | bytearray) -> None:
        """Append bytes."""
        with self._open():
            if self._restarts:
                self._begin()
            if self._file is None:
                self._file = self.path.open("rb+")
                self._file.seek(self.offset)
            try:
                self._file.write(data)
                self._file.flush()
            except OSError:
                self._file.truncate(self.offset)
                self._file.seek(self.offset)
                raise
            self._sha256.update(data)
            self.offset += len(data)
            self.high_water = max(self.high_water, self.offset)
            if self.validator is not None and self.offset - self._safe_bytes >= self._checkpoint_bytes:
                self._sync()
                self._write_state()

    def _begin(self) -> None:
        self._close()
        self._restarts = False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("wb")
        # Without a state nothing counts, so that there is nothing to say yet; an earlier one spoke of other bytes.
        if self._has_state:
            self._write_state()

    def checkpoint(self) -> None:
        """Sync what is there, so that another process can continue it."""
        with self._open():
            if self._file is not None and self.offset > self._safe_bytes:
                self._sync()
                self._write_state()

    def finish(self, finished: Finished) -> None:
        """Record that all is there and checked, so that nothing is fetched again if storing it fails."""
        with self._open():
            if self._file is not None:
                self._sync()
            self._safe_bytes = self.offset
            self.finished = finished
            self._close()
            self._write_state()

    def forget(self) -> None:
        """Remove the files."""
        with self._open():
            self._close()
            self.path.unlink(missing_ok=True)
            self._state_path.unlink(missing_ok=True)
            self._has_state = False

    def close(self) -> None:
        """Close the file for good; it stays."""
        with self._mutex:
            self._close()
            self._is_closed = True

    @contextmanager
    def _open(self) -> Generator[None, None, None]:
        with self._mutex:
            if self._is_closed:
                raise ValueError("the partial download is closed")
            yield

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _sync(self) -> None:
        if self._file is not None:
            os.fsync(self._file.fileno())
        self._safe_bytes = self.offset

    def _read_state(self) -> _State:
        try:
            return _State.model_validate_json(self._state_path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return _State()

    def _write_state(self) -> None:
        state = _State(validator=self.validator, total=self.total, safe_bytes=self._safe_bytes, finished=self.finished)
        self._has_state = True
        replace_file(self._state_path, (state.model_dump_json(indent=2) + "\n").encode())


def open_partial(scratch_dir: Callable[[], Path], key: str, checkpoint_bytes: int) -> tuple[Partial, FileLock] | None:
    """A partial download as an earlier process left it, and its lock; None while another process or task has that."""
    folder = scratch_dir()
    lock = lock_partial(folder, key)
    if lock is None:
        return None
    partial = Partial(folder, key, checkpoint_bytes=checkpoint_bytes)
    try:
        partial.load()
    except BaseException:
        lock.release()
        raise
    return partial, lock
