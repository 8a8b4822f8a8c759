"""Jobs that are paid for while the store cannot be written: kept on this machine until it can."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from anyio import to_thread

from prefect_happyhorse.engine.storage.local import create_file, replace_file
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

    async def get(self, digest: str) -> bytes | None:
        """The entry of a digest as its file holds it, or None."""
        return await to_thread.run_sync(_read, self.folder / f"{digest}.json")

    async def digests(self) -> list[str]:
        """The digests of all that is kept here."""
        return await to_thread.run_sync(_names, self.folder)

    async def remove(self, digest: str) -> None:
        """Keep an entry no longer; nothing happens when there is none."""
        await to_thread.run_sync(lambda: (self.folder / f"{digest}.json").unlink(missing_ok=True))

    async def put_away(self, name: str) -> str | None:
        """Move a file that cannot be read out of the way; its new place, or None when there is no such file."""
        if not name.endswith(".json") or name.removesuffix(".json") not in await self.digests():
            return None
        return str(await to_thread.run_sync(_put_away, self.folder / name))


def _read(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _put_away(file: Path) -> Path:
    away, number = file.parent / "unreadable" / file.name, 0
    while not create_file(away, file.read_bytes()):
        number += 1
        away = away.with_name(f"{file.name}.{number}")
    file.unlink()
    return away


def _names(folder: Path) -> list[str]:
    return sorted(file.stem for file in folder.glob("*.json")) if folder.is_dir() else []
