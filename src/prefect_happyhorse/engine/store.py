"""Where bytes are kept: a folder on disk or in an object store, and how others reach it."""

from __future__ import annotations

import errno
import hashlib
import inspect
import mimetypes
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from anyio import to_thread

from prefect_happyhorse.domain.assets import AssetKind
from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.domain.locations import STORE_SCHEMES, locate
from prefect_happyhorse.engine import disk
from prefect_happyhorse.engine.paths import DEFAULT_TEMPLATE, check_relative, check_template, render

__all__ = ["DEFAULT_TEMPLATE", "Store"]

_T = TypeVar("_T")
_LOCAL = ("file", "local")
_BLOCK_BYTES = 8 * 1024 * 1024
_HIDDEN = ".partial"


@dataclass(frozen=True)
class Store:
    """A place for files, all of which appear whole or not at all.

    Args:
        url: An fsspec URL, for example `"s3://bucket/outputs"`, or a local folder; a relative one counts from where the process is now.
        options: What fsspec needs to get there, keys among it; never shown.
        template: Where an output goes; see `prefect_happyhorse.engine.paths` for its fields.
        public_base_url: The http(s) address under which others read the store's folder, if there is one.
        presign_s: How many seconds a presigned address lives, where addresses are to be presigned; None for never.
        scratch: Where partial downloads lie, for a store that is no local folder; by default the user's cache folder.

    Raises:
        ValueError: When a value cannot work; every problem is named.

    Example:
        >>> store = Store("/srv/outputs", public_base_url="https://media.example.com")
        >>> store.uri("2026-11-20/horse.png")
        'file:///srv/outputs/2026-11-20/horse.png'
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)
    template: str = DEFAULT_TEMPLATE
    public_base_url: str | None = None
    presign_s: int | None = None
    scratch: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", _absolute(self.url))
        check_template(self.template)
        if self.public_base_url is not None:
            _check_public(self.public_base_url)
        if self.presign_s is not None and self.presign_s < 1:
            raise ValueError(f"presign_s={self.presign_s!r}: allowed is 1 or more")
        if self.presign_s is not None and self.folder is not None:
            raise ValueError(f"presign_s={self.presign_s!r}: a local folder has no presigned addresses; use an object store or public_base_url")

    @property
    def scheme(self) -> str:
        """The scheme of the store's URL, for example `"s3"`."""
        return self.url.partition("://")[0]

    @property
    def folder(self) -> Path | None:
        """The store's folder where it lies on a local disk, else None."""
        return Path(self.url.removeprefix("file://")) if self.scheme == "file" else None

    def uri(self, path: str) -> str:
        """The fsspec URL of a file.

        Args:
            path: The file's path below the store's folder.

        Raises:
            ValueError: When the path leaves the folder.
        """
        return f"{self.url.rstrip('/')}/{check_relative(path)}"

    def path_of(self, uri: str) -> str | None:
        """The path of a file below the store's folder, or None when it lies elsewhere.

        Args:
            uri: An fsspec URL.

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

    def path_for(self, job: Job, *, index: int, extension: str, kind: AssetKind) -> str:
        """Where an output goes, by the store's template.

        Args:
            job: The job that it comes from.
            index: Which of the job's outputs it is, from 0.
            extension: Its extension, without the dot.
            kind: What it is.

        Returns:
            Its path below the store's folder, which no other output gets.
        """
        return render(self.template, job, index=index, extension=extension, kind=kind)

    def scratch_dir(self) -> Path:
        """The folder for partial downloads, made if need be; beside the outputs where the store is local, so that the last step is a rename."""
        if self.folder is not None:
            found = self.folder / _HIDDEN
            found.mkdir(parents=True, exist_ok=True)
            return found
        name = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        if self.scratch is not None:
            found = Path(self.scratch).expanduser().absolute() / name
            found.mkdir(parents=True, exist_ok=True)
            return found
        return _private_cache(name)

    async def exists(self, path: str) -> bool:
        """Whether a file lies there.

        Args:
            path: Its path below the store's folder.

        Raises:
            OSError: When the store cannot say; that is not the same as no.
        """
        try:
            await self.size(path)
        except FileNotFoundError:
            return False
        return True

    async def size(self, path: str) -> int:
        """The length of a file in bytes.

        Args:
            path: Its path below the store's folder.

        Raises:
            FileNotFoundError: When there is no such file.
            OSError: When the store cannot say.
        """
        return await self._off_loop(self._size, path)

    async def read(self, path: str) -> bytes:
        """The whole of a small file.

        Args:
            path: Its path below the store's folder.

        Raises:
            FileNotFoundError: When there is no such file.
            OSError: When it cannot be read.
        """
        return await self._off_loop(self._read, path)

    async def write(self, path: str, data: bytes) -> None:
        """Write a small file, in place of one that is there.

        Args:
            path: Its path below the store's folder.
            data: What it holds.

        Raises:
            OSError: When it cannot be written.
        """
        await self._off_loop(self._write, path, data)

    async def create(self, path: str, data: bytes) -> bool:
        """Write a small file unless one is there.

        Args:
            path: Its path below the store's folder.
            data: What it holds.

        Returns:
            True when this call wrote it; of several calls at the same time exactly one did, on whatever machine.

        Raises:
            OSError: When it cannot be written, or the store has no way to do this safely.
        """
        return await self._off_loop(self._create, path, data)

    async def delete(self, path: str) -> None:
        """Remove a file; nothing happens when there is none.

        Args:
            path: Its path below the store's folder.

        Raises:
            OSError: When it cannot be removed.
        """
        await self._off_loop(self._delete, path)

    async def list(self, path: str) -> list[str]:
        """The names of the files in a folder, sorted; without those in folders below it and those that are being written.

        Args:
            path: The folder's path below the store's folder; `""` for that folder itself.

        Returns:
            The names; none when there is no such folder.

        Raises:
            OSError: When the store cannot say.
        """
        names = await self._off_loop(self._list, path)
        return sorted(name for name in names if not (name.startswith(".") and name.endswith(disk.TEMPORARY_SUFFIX)))

    async def keep(self, file: Path, path: str, *, move: bool = True) -> None:
        """Put a finished local file in its place, where no different file may be lost.

        Args:
            file: The finished file.
            path: Its path below the store's folder.
            move: Whether `file` is gone afterwards.

        Raises:
            FileExistsError: When a different file is there. Both files stay.
            OSError: When it cannot be written.
        """
        await self._off_loop(self._keep, file, path, move)

    async def holds(self, path: str, *, bytes: int, sha256: str) -> bool:
        """Whether a file lies there and is the very one that is meant.

        Args:
            path: Its path below the store's folder.
            bytes: Its length.
            sha256: Its SHA-256 in hexadecimal.

        Raises:
            OSError: When the store cannot say.
        """
        return await self._off_loop(self._holds, path, bytes, sha256)

    async def public_url(self, path: str) -> str | None:
        """An http(s) address at which others read a file, or None where the store has none to give.

        Args:
            path: Its path below the store's folder.

        Raises:
            OSError: When presigning fails.
        """
        if self.public_base_url is not None:
            return f"{self.public_base_url.rstrip('/')}/{quote(check_relative(path))}"
        if self.presign_s is None:
            return None
        return await self._off_loop(self._sign, path)

    async def _off_loop(self, work: Callable[..., _T], *args: Any) -> _T:
        try:
            return await to_thread.run_sync(partial(work, *args))
        except (OSError, ValueError, ImportError):
            raise
        except Exception as error:
            # Object stores raise their client libraries' own errors; callers know OSError.
            raise OSError(errno.EIO, f"the store failed: {type(error).__name__}: {error}", self.url) from error

    @cached_property
    def _remote(self) -> tuple[Any, str]:
        import fsspec.core  # not at the top: with it come the object stores' client libraries

        options = dict(self.options)
        if self.scheme not in {"memory", "webdav"}:
            # A listing kept in memory would hide what other processes write.
            options["use_listings_cache"] = False
        return fsspec.core.url_to_fs(self.url, **options)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_remote"}

    def _local(self, path: str) -> Path | None:
        return None if self.folder is None else self.folder.joinpath(*check_relative(path).split("/"))

    def _at(self, path: str) -> tuple[Any, str]:
        fs, root = self._remote
        return fs, f"{root.rstrip('/')}/{check_relative(path)}"

    def _size(self, path: str) -> int:
        if local := self._local(path):
            if not local.is_file():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(local))
            return local.stat().st_size
        fs, full = self._at(path)
        info = fs.info(full)
        if info["type"] != "file":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.uri(path))
        return int(info["size"])

    def _read(self, path: str) -> bytes:
        if local := self._local(path):
            return local.read_bytes()
        fs, full = self._at(path)
        return bytes(fs.cat_file(full))

    def _write(self, path: str, data: bytes) -> None:
        if local := self._local(path):
            disk.replace_file(local, data)
            return
        fs, full = self._at(path)
        fs.pipe_file(full, data)

    def _create(self, path: str, data: bytes) -> bool:
        if local := self._local(path):
            return disk.create_file(local, data)
        fs, full = self._at(path)
        if not _claims_safely(fs):
            raise OSError(errno.ENOTSUP, f"{self.scheme} stores cannot claim a file safely; use a local folder, s3, gs or abfs", self.url)
        try:
            fs.pipe_file(full, data, mode="create")
        except FileExistsError:
            return False
        return True

    def _delete(self, path: str) -> None:
        if local := self._local(path):
            local.unlink(missing_ok=True)
            return
        fs, full = self._at(path)
        try:
            fs.rm_file(full)
        except FileNotFoundError:
            return

    def _list(self, path: str) -> list[str]:
        if self.folder is not None:
            folder = self._local(path) if path else self.folder
            try:
                return [entry.name for entry in os.scandir(folder) if entry.is_file()]
            except FileNotFoundError:
                return []
        fs, full = self._at(path) if path else self._remote
        try:
            entries = fs.ls(full, detail=True)
        except FileNotFoundError:
            return []
        return [PurePosixPath(entry["name"]).name for entry in entries if entry["type"] == "file"]

    def _keep(self, file: Path, path: str, move: bool) -> None:
        if local := self._local(path):
            disk.keep_file(file, local, move=move)
            return
        fs, full = self._at(path)
        try:
            if not _takes_mode(fs, "_put_file", "put_file") and fs.exists(full):
                raise FileExistsError(errno.EEXIST, "a file is there", self.uri(path))
            fs.put_file(str(file), full, **self._upload_options(fs, path))
        except FileExistsError:
            if not self._holds(path, file.stat().st_size, disk.hash_file(file)):
                raise FileExistsError(errno.EEXIST, "a different file is there", self.uri(path)) from None
        if move:
            file.unlink(missing_ok=True)

    def _upload_options(self, fs: Any, path: str) -> dict[str, Any]:
        chosen: dict[str, Any] = {"mode": "create"} if _takes_mode(fs, "_put_file", "put_file") else {}
        media_type = mimetypes.guess_type(path)[0]
        if self.scheme in {"s3", "s3a"}:
            # Its own default holds ten parts of 50 MB in memory at a time.
            chosen |= {"chunksize": _BLOCK_BYTES, "max_concurrency": 2}
            chosen |= {"ContentType": media_type} if media_type else {}
        elif self.scheme in {"gs", "gcs"} and media_type:
            chosen["content_type"] = media_type
        return chosen

    def _holds(self, path: str, size: int, sha256: str) -> bool:
        try:
            if self._size(path) != size:
                return False
            if local := self._local(path):
                return disk.hash_file(local) == sha256
            fs, full = self._at(path)
            digest = hashlib.sha256()
            with fs.open(full, "rb", block_size=_BLOCK_BYTES) as file:
                while chunk := file.read(disk.CHUNK_BYTES):
                    digest.update(chunk)
        except FileNotFoundError:
            return False
        return digest.hexdigest() == sha256

    def _sign(self, path: str) -> str:
        fs, full = self._at(path)
        try:
            return str(fs.sign(full, expiration=self.presign_s))
        except NotImplementedError as error:
            raise OSError(errno.ENOTSUP, f"{self.scheme} stores have no presigned addresses; give public_base_url", self.url) from error


def _absolute(url: str) -> str:
    location = locate(url)
    scheme, separator, rest = url.partition("://")
    if location == "local" or scheme in _LOCAL:
        folder = rest if separator and location == "store" else url
        return "file://" + Path(os.path.abspath(Path(folder).expanduser())).as_posix()
    if location != "store" or not separator:
        raise ValueError(f"url={url.split(':')[0]!r}: a store is a local folder or an fsspec URL; its scheme may be {', '.join(STORE_SCHEMES)}")
    if "@" in rest.split("/")[0] and scheme not in {"abfs", "abfss"}:
        raise ValueError(f"url: a {scheme} URL must hold no key or password; give them in options")
    if "::" in url:
        raise ValueError(f"url={url!r}: chained URLs are not supported")
    return url


def _check_public(address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"public_base_url={address!r}: an http or https address with a host is wanted")
    if parts.username or parts.password:
        raise ValueError("public_base_url: it must hold no user name or password, since it is handed to others")
    if parts.query or parts.fragment:
        raise ValueError(f"public_base_url={address!r}: paths are put behind it, so it must have no query or fragment")


def _takes_mode(fs: Any, *names: str) -> bool:
    """Whether a filesystem's own method, not the base class's stand-in, knows exclusive creation."""
    from fsspec.asyn import AsyncFileSystem
    from fsspec.spec import AbstractFileSystem

    for name in names:
        method = getattr(type(fs), name, None)
        inherited = method in (getattr(AsyncFileSystem, name, None), getattr(AbstractFileSystem, name, None))
        if method is not None and not inherited and "mode" in inspect.signature(method).parameters:
            return True
    return False


def _claims_safely(fs: Any) -> bool:
    return _takes_mode(fs, "_pipe_file", "pipe_file")


def _private_cache(name: str) -> Path:
    """A folder that outlasts the process and that no other user of the machine can write to."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prefect-happyhorse" / "partial" / name
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        return cache
    except OSError:
        return Path(tempfile.mkdtemp(prefix="prefect-happyhorse-"))
