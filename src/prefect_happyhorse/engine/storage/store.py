"""Where bytes are kept: a folder on disk or in an object store, and how others reach it."""

from __future__ import annotations

import asyncio
import builtins
import errno
import hashlib
import os
import secrets
import tempfile
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from anyio import to_thread

from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.domain.locations import STORE_SCHEMES, locate
from prefect_happyhorse.domain.values import AssetKind
from prefect_happyhorse.engine.storage.backend import Backend, HiddenOptions
from prefect_happyhorse.engine.storage.fsspec_backend import ObjectStore
from prefect_happyhorse.engine.storage.local import TEMPORARY_SUFFIX, LocalFolder
from prefect_happyhorse.engine.storage.machine import cache_folder
from prefect_happyhorse.engine.storage.paths import DEFAULT_TEMPLATE, check_relative, check_template, render

__all__ = ["DEFAULT_TEMPLATE", "Store", "check_no_key"]

_T = TypeVar("_T")
_LOCAL = ("file", "local")
_SCRATCH = ".partial"
_FILES_AT_ONCE = 256
_OBJECTS_AT_ONCE = 32


@dataclass(frozen=True)
class Store:
    """A place for files, all of which appear whole or not at all.

    Args:
        url: An fsspec URL, for example `"s3://bucket/outputs"`, or a local folder; a relative one counts from where the process is now.
        options: What fsspec needs to get there, keys among it; never shown.
        template: Where an output goes; see `prefect_happyhorse.engine.storage.paths` for its fields.
        public_base_url: The http(s) address under which others read the store's folder, if there is one.
        presign_s: How many seconds a presigned address lives, where addresses are to be presigned; None for never.
        scratch: Where partial downloads lie, for a store that is no local folder; by default the user's cache folder.

    Raises:
        ValueError: When a value cannot work; names the field, the value and the rule.

    Example:
        >>> store = Store("/srv/outputs", public_base_url="https://media.example.com")
        >>> store.uri("2026-11-20/horse.png")
        'file:///srv/outputs/2026-11-20/horse.png'
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False, hash=False)
    template: str = DEFAULT_TEMPLATE
    public_base_url: str | None = None
    presign_s: int | None = None
    scratch: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", HiddenOptions(self.options))
        object.__setattr__(self, "url", _absolute(self.url))
        check_template(self.template)
        if self.public_base_url is not None:
            _check_public(self.public_base_url)
        if self.presign_s is not None and self.presign_s < 1:
            raise ValueError(f"presign_s must be at least 1 second (got {self.presign_s!r})")
        if self.presign_s is not None and self.folder is not None:
            way_out = "a local folder has no presigned addresses; use an object store or public_base_url"
            raise ValueError(f"presign_s must be None for a local folder (got {self.presign_s!r}): {way_out}")

    @property
    def scheme(self) -> str:
        """The scheme of the store's URL, for example `"s3"`."""
        return self.url.partition("://")[0]

    @property
    def folder(self) -> Path | None:
        """The store's folder where it lies on a local disk, else None."""
        return Path(self.url.removeprefix("file://")) if self.scheme == "file" else None

    def uri(self, path: str) -> str:
        """The fsspec URL of a file."""
        return f"{self.url.rstrip('/')}/{check_relative(path)}"

    def path_of(self, uri: str) -> str | None:
        """The path of a file below the store's folder, or None when it lies elsewhere.

        Example:
            >>> Store("memory://outputs").path_of("memory://outputs/horse.png")
            'horse.png'
        """
        base = self.url.rstrip("/") + "/"
        path = uri.removeprefix(base)
        if not uri.startswith(base):
            return None
        try:
            return check_relative(path)
        except ValueError:
            return None

    def reached_here(self, uri: str) -> str:
        """The URI of an output that was kept when the store was reached by another path or address, as after it was moved.

        Example:
            >>> Store("/mnt/outputs").reached_here("file:///srv/outputs/2026-11-20/text_to_video/m-1.mp4")
            'file:///mnt/outputs/2026-11-20/text_to_video/m-1.mp4'
        """
        # No field of a template holds a slash.
        if self.path_of(uri) is not None:
            return uri
        try:
            return self.uri("/".join(uri.split("/")[-1 - self.template.count("/") :]))
        except ValueError:
            return uri

    def path_for(self, job: Job, *, index: int, extension: str, kind: AssetKind) -> str:
        """Where an output goes, by the store's template."""
        return render(self.template, job, index=index, extension=extension, kind=kind)

    def scratch_dir(self) -> Path:
        """The folder for partial downloads, created if need be; beside the outputs of a local store, so that storing is a rename."""
        if self.folder is not None:
            found = self.folder / _SCRATCH
            found.mkdir(parents=True, exist_ok=True)
            return found
        name = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        if self.scratch is not None:
            found = Path(self.scratch).expanduser().absolute() / name
            found.mkdir(parents=True, exist_ok=True)
            return found
        return _private_cache(name)

    async def exists(self, path: str) -> bool:
        """Whether a file is there."""
        try:
            await self.size(path)
        except FileNotFoundError:
            return False
        return True

    async def has(self, path: str, length: int) -> bool:
        """Whether a file of that length is there."""
        try:
            return await self.size(path) == length
        except FileNotFoundError:
            return False

    async def size(self, path: str) -> int:
        """The length of a file in bytes."""
        return await self._off_loop(self._backend.size, path)

    async def read(self, path: str) -> bytes:
        """The whole of a small file."""
        return await self._off_loop(self._backend.read, path)

    async def read_range(self, path: str, start: int, length: int) -> bytes:
        """At most `length` bytes of a file, from the byte `start` on; fewer only where it ends."""
        return await self._off_loop(self._backend.read_range, path, start, length)

    async def read_all(self, paths: Sequence[str]) -> AsyncGenerator[tuple[str, bytes], None]:
        """Many small files, some at a time and in no order; a missing one is left out."""
        async for found in self._each(self._backend.read, paths):
            yield found

    async def list_all(self, paths: Sequence[str]) -> AsyncGenerator[tuple[str, builtins.list[str]], None]:
        """The names of the files directly in each of many folders, some at a time and in no order, without unfinished ones."""
        async for path, names in self._each(self._backend.names, paths):
            yield path, [name for name in names if not _is_unfinished(name)]

    async def list_starting(self, starts: Sequence[str]) -> AsyncGenerator[tuple[str, builtins.list[str]], None]:
        """The names of the files whose paths begin with each of many texts, some at a time and in no order."""
        # Neither a disk nor an object store finds them by their start: a folder is gone through for each look, however few are sought.
        sought: defaultdict[str, builtins.list[str]] = defaultdict(builtins.list)
        for start in starts:
            folder, _, name = start.rpartition("/")
            sought[folder].append(name)

        def names_in(folder: str) -> builtins.list[str]:
            return self._backend.names(folder, sought[folder][0] if len(sought[folder]) == 1 else "")

        async for folder, names in self._each(names_in, [*sought]):
            for start in sought[folder]:
                yield f"{folder}/{start}", [name for name in names if name.startswith(start)]

    async def sizes(self, paths: Sequence[str]) -> dict[str, int]:
        """The lengths in bytes of those of many files that are there."""
        return {path: length async for path, length in self._each(self._backend.size, paths)}

    async def _each(self, work: Callable[[str], _T], paths: Sequence[str]) -> AsyncGenerator[tuple[str, _T], None]:
        for path in paths:
            check_relative(path)
        # On a disk a thread for each file would take longer than the files themselves.
        at_once, in_thread = (_OBJECTS_AT_ONCE, 1) if self.folder is None else (1, _FILES_AT_ONCE)
        parts = [paths[start : start + in_thread] for start in range(0, len(paths), in_thread)]
        for start in range(0, len(parts), at_once):
            some = parts[start : start + at_once]
            for found in await asyncio.gather(*(to_thread.run_sync(self._some, work, part) for part in some)):
                for one in found:
                    yield one

    def _some(self, work: Callable[[str], _T], paths: Sequence[str]) -> builtins.list[tuple[str, _T]]:
        found: builtins.list[tuple[str, _T]] = []
        for path in paths:
            try:
                found.append((path, work(path)))
            except FileNotFoundError:
                continue
            except OSError as error:
                # An object store's own error names the bucket alone.
                raise OSError(error.errno or errno.EIO, error.strerror or str(error), self.uri(path)) from error
        return found

    async def write(self, path: str, data: bytes) -> None:
        """Write a small file, in place of one that is there."""
        await self._off_loop(self._backend.write, path, data)

    async def write_all(self, files: Mapping[str, bytes]) -> None:
        """Write a few small files one after the other, in place of those that are there."""

        def work() -> None:
            for path, data in files.items():
                self._backend.write(check_relative(path), data)

        await to_thread.run_sync(work)

    async def create(self, path: str, data: bytes) -> bool:
        """Write a small file unless one is there; bytes that nobody else writes are known again when the answer was lost."""
        try:
            if await self._off_loop(self._backend.create, path, data):
                return True
        except OSError:
            if await self._reads(path, data):
                return True
            raise
        # A client that repeats a call whose answer was lost meets the file that it wrote itself.
        return await self._reads(path, data)

    async def _reads(self, path: str, data: bytes) -> bool:
        try:
            return await self.read(path) == data
        except OSError:
            return False

    async def prove(self, path: str) -> None:
        """Try that of two who create the same file the second is refused, and that the file is listed then; OSError when it is not so."""
        first, second = (secrets.token_bytes(16).hex().encode() for _ in range(2))
        created = await self.create(path, first)
        overwritten = await self.create(path, second)
        folder, _, name = path.rpartition("/")
        listed = name in await self.list(folder)
        await self.delete(path)
        if not created or overwritten or not listed:
            what = "wrote over a file that it was to create" if overwritten else "did not keep or list a file that was created"
            raise OSError(errno.ENOTSUP, f"the store {what}, so two runs could buy the same job; use another store", self.url)

    async def delete(self, path: str) -> None:
        """Remove a file; nothing happens when there is none."""
        await self._off_loop(self._backend.delete, path)

    async def list(self, path: str) -> list[str]:
        """The names of the files directly in a folder, sorted, without unfinished ones."""
        names = await to_thread.run_sync(self._backend.names, check_relative(path) if path else "")
        return sorted(name for name in names if not _is_unfinished(name))

    async def folders(self, path: str) -> builtins.list[str]:
        """The names of the folders directly in a folder, in no order."""
        return await self._off_loop(self._backend.folders, path)

    async def delete_all(self, paths: Sequence[str]) -> None:
        """Remove many files, some at a time; nothing happens where there is none."""
        async for _ in self._each(self._backend.delete, paths):
            pass

    async def keep(self, file: Path, path: str, *, move: bool = True, first: Callable[[], None] | None = None) -> None:
        """Store a finished local file, once what comes first is done in the same thread; FileExistsError when a different one is there.

        A filesystem without exclusive upload, such as WebDAV, is checked for the file first.
        """
        check_relative(path)

        def work() -> None:
            if first is not None:
                first()
            self._backend.keep(file, path, move=move)

        await to_thread.run_sync(work)

    async def holds(self, path: str, *, length: int, sha256: str) -> bool:
        """Whether a file of that length and hash is there."""
        return await self._off_loop(self._holds, path, length, sha256)

    async def public_url(self, path: str) -> str | None:
        """An http(s) address at which others read a file, or None where the store has none to give."""
        if self.public_base_url is not None:
            return f"{self.public_base_url.rstrip('/')}/{quote(check_relative(path))}"
        if self.presign_s is None:
            return None
        return await self._off_loop(self._backend.sign, path, self.presign_s)

    async def _off_loop(self, work: Callable[..., _T], path: str, *args: Any) -> _T:
        check_relative(path)
        return await to_thread.run_sync(partial(work, path, *args))

    @cached_property
    def _backend(self) -> Backend:
        return ObjectStore(self.url, self.options) if self.folder is None else LocalFolder(self.folder)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_backend"}

    def _holds(self, path: str, length: int, sha256: str) -> bool:
        try:
            return self._backend.size(path) == length and self._backend.hash(path) == sha256
        except FileNotFoundError:
            return False


def _is_unfinished(name: str) -> bool:
    return name.startswith(".") and name.endswith(TEMPORARY_SUFFIX)


def _absolute(url: str) -> str:
    location = locate(url)
    scheme, separator, rest = url.partition("://")
    if location == "local" or scheme in _LOCAL:
        folder = rest if separator and location == "store" else url
        return "file://" + Path(os.path.abspath(Path(folder).expanduser())).as_posix()
    if location != "store" or not separator:
        schemes = ", ".join(STORE_SCHEMES)
        raise ValueError(f"url must be a local folder or an fsspec URL with one of the schemes {schemes} (got {url.partition(':')[0]!r})")
    check_no_key(url)
    if scheme != "memory" and not rest.split("/")[0]:
        raise ValueError(f"url must name a bucket, container or host behind {scheme}:// (got {url!r})")
    if "::" in url:
        raise ValueError(f"url must not be a chained URL (got {url!r})")
    return url


def check_no_key(url: str) -> str:
    """The URL of a store as it is; ValueError where it holds a key or password, since it is logged and kept."""
    scheme, _, rest = url.partition("://")
    if "@" in rest.split("/")[0] and scheme not in {"abfs", "abfss", *_LOCAL}:
        raise ValueError(f"url must hold no key or password in its {scheme} address; give them in options")
    return url


def _check_public(address: str) -> None:
    parts = urlsplit(address)
    if parts.username or parts.password:
        raise ValueError("public_base_url must hold no user name or password, since it is handed to others")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"public_base_url must be an http or https address with a host (got {address!r})")
    if parts.query or parts.fragment:
        raise ValueError(f"public_base_url must have no query or fragment, since paths are appended to it (got {address!r})")


def _private_cache(name: str) -> Path:
    """A folder that outlasts the process and that no other user of the machine can write to; a temporary one if there is no cache."""
    folder = cache_folder() / "partial" / name
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder
    except OSError:
        return Path(tempfile.mkdtemp(prefix="prefect-happyhorse-"))
