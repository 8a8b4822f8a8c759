"""Jobs that are paid for while the store cannot be written: kept on this machine until it can."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from anyio import to_thread

from prefect_happyhorse.engine.storage.local import replace_file
from prefect_happyhorse.engine.storage.machine import state_folder

__all__ = ["Spool"]


class Spool:
    """A folder of this machine, beside every store, for journal entries that their store would not take.

    Args:
        url: The store's URL.
    """

    def __init__(self, url: str) -> None:
        self.folder = state_folder() / "spool" / hashlib.sha256(url.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return str(self.folder)

    async def check(self) -> None:
        """Refuse to begin where a job that the store does not take could be written down nowhere; OSError says why."""
        await to_thread.run_sync(replace_file, self.folder / ".writable", b"")

    async def put(self, entry: str) -> None:
        """Keep an entry."""
        await to_thread.run_sync(replace_file, self.folder / f"{json.loads(entry)['digest']}.json", entry.encode())

    async def get(self, digest: str) -> str | None:
        """The entry of a digest, or None."""
        return await to_thread.run_sync(_read, self.folder / f"{digest}.json")

    async def digests(self) -> list[str]:
        """The digests of all that is kept here."""
        return await to_thread.run_sync(_names, self.folder)

    async def remove(self, digest: str) -> None:
        """Keep an entry no longer; nothing happens when there is none."""
        await to_thread.run_sync(lambda: (self.folder / f"{digest}.json").unlink(missing_ok=True))


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None


def _names(folder: Path) -> list[str]:
    return sorted(file.stem for file in folder.glob("*.json")) if folder.is_dir() else []
