"""A gallery as plain files, which open from a disk or, copied there, from a bucket."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import anyio
from anyio import to_thread

from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.requests import iter_media
from prefect_happyhorse.engine.journal.index import Line
from prefect_happyhorse.engine.journal.journal import Journal, JournalEntry
from prefect_happyhorse.engine.media.formats import extension_of, format_of
from prefect_happyhorse.engine.media.thumbnail import thumbnail_path
from prefect_happyhorse.engine.storage.local import CHUNK_BYTES, TEMPORARY_SUFFIX, keep_file
from prefect_happyhorse.gallery.app import PAGE_FILES, page_file
from prefect_happyhorse.gallery.reader import JournalReader, not_listed
from prefect_happyhorse.gallery.views import as_json, is_hash, job_view, outputs_of, row

__all__ = ["Exported", "export_gallery"]

_MARK = b"window.happyhorseExport = "
_FOLDERS = ("jobs", "thumbnails", "media")
_AT_ONCE = 512


class Exported(NamedTuple):
    """What an export wrote.

    Args:
        page: The page to open.
        jobs: How many jobs are in it; a lease that was released is none.
        copied: How many files lie in it.
        linked: How many files it links to where they are kept.
        unlinked: How many stored files it shows by their thumbnails alone, since the store is no folder and has no public address.
        problems: What is left out that should be in it: files that are gone, and entries that cannot be read.
    """

    page: Path
    jobs: int
    copied: int
    linked: int
    unlinked: int
    problems: list[str]


async def export_gallery(journal: Journal, folder: Path, *, copy: bool = False) -> Exported:
    """Write the gallery of a journal into a folder, in place of an earlier one.

    Args:
        journal: The journal, which is only read.
        folder: A folder that is empty, not there yet, or holds an earlier export.
        copy: Whether the files are copied; else the page links to where they lie, if the store is a folder or has a public address.

    Raises:
        ValueError: When something else lies in the folder.
        OSError: When the journal cannot be read, or the folder not be written.
        SubmissionUncertain: When the journal is one of an earlier form.
    """
    folder = await to_thread.run_sync(_checked, folder)
    reader = JournalReader(journal)
    try:
        await reader.load()
    except OSError as error:
        raise OSError(not_listed(journal, error)) from error
    await reader.read_details()
    for name in _FOLDERS:
        await to_thread.run_sync(partial((folder / name).mkdir, parents=True, exist_ok=True))
    return await _Export(reader, folder, copy=copy).write()


def _checked(folder: Path) -> Path:
    """The folder as an absolute path; one that holds other files than a gallery's is refused."""
    folder = folder.absolute()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} must be a folder (got a file). Nothing was written.")
    data = folder / "data.js"
    if folder.is_dir() and any(folder.iterdir()) and not (data.is_file() and data.read_bytes()[: len(_MARK)] == _MARK):
        raise ValueError(f"{folder} must be empty or hold an earlier gallery, whose files are replaced. Nothing was written.")
    return folder


class _Export:
    """One export under way."""

    def __init__(self, reader: JournalReader, folder: Path, *, copy: bool) -> None:
        self._reader = reader
        self._store = reader.journal.store
        self._folder = folder
        self._copy = copy
        self._written: set[Path] = set()
        self._copied: set[str] = set()
        self._linked = self._unlinked = 0
        self._problems = list(reader.snapshot.problems)
        self._thumbnails: set[str] = set()
        self._takes: defaultdict[int, list[str]] = defaultdict(list)
        self._made_of: defaultdict[str, list[str]] = defaultdict(list)

    async def write(self) -> Exported:
        """Write the jobs first, and the page that lists them last."""
        snapshot = self._reader.snapshot
        groups: defaultdict[str, list[Line]] = defaultdict(list)
        for line in reversed(snapshot.lines):
            groups[line.digest[:2]].append(line)
            detail = self._reader.details[line.digest]
            self._takes[detail.request].append(line.digest)
            for digest in detail.made_from:
                self._made_of[digest].append(line.digest)
        rows: dict[str, dict[str, Any]] = {}
        for prefix, lines in groups.items():
            rows |= await self._write_jobs(prefix, lines)
        await self._write_page([rows[line.digest] for line in snapshot.lines if line.digest in rows])
        await to_thread.run_sync(self._remove_earlier)
        return Exported(
            self._folder / "index.html", _bought(rows.values()), len(self._copied), self._linked, self._unlinked, self._problems
        )

    async def _write_jobs(self, prefix: str, lines: Sequence[Line]) -> dict[str, dict[str, Any]]:
        entries: list[JournalEntry] = []
        for start in range(0, len(lines), _AT_ONCE):
            entries += await self._reader.entries(lines[start : start + _AT_ONCE])
        await self._write_thumbnails(entries)
        jobs: dict[str, dict[str, Any]] = {}
        for entry in entries:
            jobs[entry.digest] = await self._job(entry)
        text = f"happyhorse.chunk({json.dumps(prefix)}, ".encode() + as_json(jobs) + b");\n"
        await self._put(f"jobs/{prefix}.js", text)
        return {entry.digest: self._row(entry, jobs[entry.digest]["sources"]) for entry in entries}

    async def _job(self, entry: JournalEntry) -> dict[str, Any]:
        facts = job_view(entry, store=None)
        sources: list[str | None] = []
        for asset, file in zip(outputs_of(entry), facts["files"], strict=True):
            # Where it lies on the machine that made it is nobody else's business.
            del file["uri"]
            source, problem = await self._source(asset)
            sources.append(source)
            file["problem"] = problem
        for one, (_, _, medium) in zip(facts["inputs"], iter_media(entry.request), strict=True):
            if not isinstance(medium, str) or _is_of_this_machine(medium):
                one["text"] = re.split(r"[/\\]", one["text"])[-1]
        for one in (facts, *facts["files"], *facts["inputs"]):
            one["thumbnail"] = self._there(one.get("thumbnail"))
        detail = self._reader.details[entry.digest]
        related = {"takes": self._takes[detail.request], "made_of_it": self._made_of[entry.digest], "bought_besides": list(entry.aside)}
        return facts | related | {"sources": sources, "unread": 0}

    def _row(self, entry: JournalEntry, sources: Sequence[str | None]) -> dict[str, Any]:
        facts = row(entry)
        return facts | {"sources": list(sources), "thumbnail": self._there(facts.get("thumbnail"))}

    def _there(self, thumbnail: str | None) -> str | None:
        return thumbnail if thumbnail in self._thumbnails else None

    async def _write_thumbnails(self, entries: Iterable[JournalEntry]) -> None:
        shown = {one.sha256 for entry in entries for one in _assets(entry) if is_hash(one.sha256)} - self._thumbnails
        async for path, jpeg in self._store.read_all([thumbnail_path(sha256) for sha256 in sorted(shown)]):
            name = path.rpartition("/")[2]
            self._thumbnails.add(name.removesuffix(".jpg"))
            await self._put(f"thumbnails/{name}", jpeg)

    async def _source(self, asset: MediaAsset) -> tuple[str | None, str | None]:
        """Where the page finds a file; None, and why, where it does not."""
        path = self._store.path_of(asset.uri)
        try:
            if path is None:
                raise FileNotFoundError
            if not self._copy and self._store.folder is None and self._store.public_base_url is None:
                self._unlinked += 1
                return None, "The file is not in this gallery; it was exported without --copy."
            if (size := await self._store.size(path)) != asset.bytes:
                return self._missing(asset, f"It has {size:,} bytes, and had {asset.bytes:,} when it was kept")
            if self._copy:
                return await self._copy_file(asset, path), None
        except FileNotFoundError:
            return self._missing(asset, "It is not in the store")
        self._linked += 1
        if self._store.folder is None:
            return await self._store.public_url(path), None
        return _relative(self._store.folder / path, self._folder), None

    def _missing(self, asset: MediaAsset, why: str) -> tuple[None, str]:
        self._problems.append(f"{asset.uri} is left out. {why}.")
        return None, f"{why}."

    async def _copy_file(self, asset: MediaAsset, path: str) -> str:
        form = format_of(asset.media_type)
        name = asset.sha256 if is_hash(asset.sha256) else quote(path, safe="")[-150:]
        relative = f"media/{name}.{extension_of(form or 'bin')}"
        target = self._folder / relative
        self._written.add(target)
        self._copied.add(relative)
        if await to_thread.run_sync(_is_there, target, asset.bytes):
            return quote(relative)
        if self._store.folder is not None:
            await to_thread.run_sync(partial(keep_file, self._store.folder / path, target, move=False))
            return quote(relative)
        draft = target.with_name(f".{target.name}{TEMPORARY_SUFFIX}")
        async with await anyio.open_file(draft, "wb") as file:
            for start in range(0, asset.bytes, CHUNK_BYTES):
                await file.write(await self._store.read_range(path, start, CHUNK_BYTES))
        await to_thread.run_sync(draft.replace, target)
        return quote(relative)

    async def _write_page(self, rows: list[dict[str, Any]]) -> None:
        snapshot = self._reader.snapshot
        unreadable = len(snapshot.problems)
        facts = {
            "version": snapshot.version,
            "rows": rows,
            "facets": snapshot.facets,
            "problems": [f"{unreadable} entries of the journal could not be read and are not shown."] if unreadable else [],
            "more_problems": 0,
            "about": f"{_bought(rows)} jobs, exported {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC.",
        }
        await self._put("data.js", _MARK + as_json(facts) + b";\n")
        for name in PAGE_FILES:
            if name not in {"data.js", "index.html"}:
                await self._put(name, page_file(name))
        await self._put("index.html", _allowing(page_file("index.html"), self._store.public_base_url))

    async def _put(self, path: str, content: bytes) -> None:
        file = self._folder / path
        self._written.add(file)
        await to_thread.run_sync(file.write_bytes, content)

    def _remove_earlier(self) -> None:
        for name in _FOLDERS:
            for file in (self._folder / name).iterdir():
                if file not in self._written:
                    file.unlink()


def _bought(rows: Iterable[Mapping[str, Any]]) -> int:
    """How many are jobs: under a lease that was released nothing was bought."""
    return sum(row["state"] != "released" for row in rows)


def _relative(file: Path, folder: Path) -> str:
    return quote(Path(os.path.relpath(file, folder)).as_posix())


def _is_there(file: Path, length: int) -> bool:
    return file.is_file() and file.stat().st_size == length


def _is_of_this_machine(medium: str) -> bool:
    return not medium.startswith("data:") and ("://" not in medium or medium.startswith(("file://", "local://")))


def _assets(entry: JournalEntry) -> list[MediaAsset]:
    return [*outputs_of(entry), *(medium for _, _, medium in iter_media(entry.request) if isinstance(medium, MediaAsset))]


def _allowing(index: bytes, public_base_url: str | None) -> bytes:
    """The page with leave to show what lies at the store's public address."""
    if public_base_url is None:
        return index
    parts = urlsplit(public_base_url)
    origin = f"{parts.scheme}://{parts.netloc}".encode()
    return index.replace(b"media-src 'self'", b"media-src 'self' " + origin).replace(b"img-src 'self'", b"img-src 'self' " + origin)
