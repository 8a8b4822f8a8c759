"""Files in an object store, or wherever else fsspec reaches."""

from __future__ import annotations

import errno
import hashlib
import inspect
import mimetypes
import os
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from prefect_happyhorse.engine.storage.backend import HiddenOptions
from prefect_happyhorse.engine.storage.local import CHUNK_BYTES, hash_file

__all__ = ["ObjectStore", "open_filesystem", "translated"]

_S3 = ("s3", "s3a")
_LISTED = "before-parse.s3.ListObjectsV2"
_BLOCK_BYTES = 8 * 1024 * 1024
_CONFLICTS = 5
# A memory filesystem checks and then writes, and only the threads of one process share it.
_MEMORY_LOCK = threading.RLock()


def open_filesystem(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """The fsspec filesystem of a URL, and the path that the URL names within it."""
    import fsspec.core  # pyright: ignore[reportMissingTypeStubs] -- not at the top: with it come the object stores' client libraries

    scheme = url.partition("://")[0]
    # With more, s3fs asks how long a file is before it reads it.
    ours: dict[str, Any] = {"max_concurrency": 1} if scheme in _S3 else {}
    # A cached listing would hide what other processes write.
    fixed = {} if scheme in {"memory", "webdav"} else {"use_listings_cache": False}
    chosen = HiddenOptions({**ours, **options, **fixed})
    try:
        fs, path = cast("tuple[Any, str]", fsspec.core.url_to_fs(url, **chosen))  # pyright: ignore[reportUnknownMemberType] -- no types
        if scheme in _S3:
            fs.connect()
            fs.s3.meta.events.register(_LISTED, _read_contents, unique_id=_read_contents.__name__)
    except Exception as error:  # noqa: BLE001 -- any client library's own, and raised below without its frames
        failed = _with_package(url, error).with_traceback(None)
        failed.__cause__ = failed.__context__ = None
    else:
        return fs, path
    # Without the frames below, which hold the options: a traceback may show their locals.
    raise failed


def _with_package(url: str, error: Exception) -> Exception:
    """The error, or for a client library that is not installed one that says how it is."""
    from fsspec.registry import known_implementations  # pyright: ignore[reportMissingTypeStubs]

    scheme = url.partition("://")[0]
    if not isinstance(error, ImportError) or scheme not in known_implementations:
        return error
    package = known_implementations[scheme]["class"].partition(".")[0]
    extra = "'prefect-happyhorse[s3]'" if package == "s3fs" else package
    return ImportError(f"{url} needs {package}: pip install {extra} ({error})")


def _read_contents(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object) -> None:
    """Read the names in an answer, which takes botocore with its schema and dateutil twenty times as long; all else is left to it."""
    from xml.etree import ElementTree  # not at the top: only S3 needs it

    try:
        root = ElementTree.fromstring(response_dict["body"])  # noqa: S314 -- botocore parses the same bytes by the same parser
        named = [one for one in root if _tag(one) == "Contents"]
        found = [{tag: _FACTS[tag](fact.text or "") for fact in one if (tag := _tag(fact)) in _FACTS} for one in named]
    except (ElementTree.ParseError, ValueError):
        return
    if found:
        root[:] = [one for one in root if _tag(one) != "Contents"]
        response_dict["body"] = ElementTree.tostring(root)
        customized_response_dict["Contents"] = found


def _tag(element: Any) -> str:
    return str(element.tag).rpartition("}")[2]


def _time(text: str) -> datetime:
    # Python 3.10 knows no Z.
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


_FACTS: Mapping[str, Callable[[str], object]] = {"Key": str, "LastModified": _time, "ETag": str, "Size": int, "StorageClass": str}
"""What is read of each name: how its checksum was made and whose it is nobody here asks."""


@contextmanager
def translated(place: str) -> Generator[None, None, None]:
    """Turn what object stores' client libraries raise into OSError, which is what callers know."""
    try:
        yield
    except (OSError, ImportError):
        raise
    except Exception as error:  # noqa: BLE001 -- each client library has its own
        # A client library's frames hold the keys that it signs with: a traceback may show their locals.
        raise OSError(errno.EIO, f"the store failed: {type(error).__name__}: {error}", place) from None


class ObjectStore:
    """A store's folder that fsspec reaches, by its URL and options. Everything here blocks."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.url = url
        self.scheme = url.partition("://")[0]
        self._options = HiddenOptions(options)

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        return open_filesystem(self.url, self._options)

    def size(self, path: str) -> int:
        """See `Backend.size`."""
        with self._at(path) as (fs, full):
            # Not fsspec's `exists`, which takes every failure for a no.
            info = fs.info(full)
            if info["type"] != "file":
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), full)
            return int(info["size"])

    def read(self, path: str) -> bytes:
        """See `Backend.read`."""
        with self._at(path) as (fs, full):
            return bytes(fs.cat_file(full))

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """See `Backend.read_range`."""
        with self._at(path) as (fs, full):
            return bytes(fs.cat_file(full, start=start, end=start + length))

    def write(self, path: str, data: bytes) -> None:
        """See `Backend.write`."""
        with self._at(path) as (fs, full):
            fs.pipe_file(full, data)

    def create(self, path: str, data: bytes) -> bool:
        """See `Backend.create`."""
        with self._at(path) as (fs, full):
            if not _creates(fs, "_pipe_file", "pipe_file"):
                why = f"{self.scheme} stores, as they are installed here, cannot create a file exclusively; use a local folder or s3"
                raise OSError(errno.ENOTSUP, why, self.url)
            for attempts_left in reversed(range(_CONFLICTS)):
                try:
                    with self._exclusive():
                        fs.pipe_file(full, data, mode="create")
                except FileExistsError:
                    return False
                except OSError as error:
                    if not (attempts_left and _is_conflict(error)):
                        raise
                else:
                    return True
            return False

    def delete(self, path: str) -> None:
        """See `Backend.delete`."""
        with self._at(path) as (fs, full):
            try:
                fs.rm_file(full)
            except FileNotFoundError:
                return

    def names(self, path: str, start: str = "") -> list[str]:
        """See `Backend.names`."""
        # Few filesystems list by the start of a name, and each in its own way.
        return [name for name in self._listed(path, "file") if name.startswith(start)]

    def folders(self, path: str) -> list[str]:
        """See `Backend.folders`."""
        return self._listed(path, "directory")

    def _listed(self, path: str, kind: str) -> list[str]:
        with self._at(path) as (fs, full):
            try:
                entries = fs.ls(full, detail=True)
            except FileNotFoundError:
                return []
            return [entry["name"].rstrip("/").rpartition("/")[2] for entry in entries if entry["type"] == kind]

    def keep(self, file: Path, path: str, *, move: bool) -> None:
        """See `Backend.keep`."""
        with self._at(path) as (fs, full):
            try:
                with self._exclusive():
                    if not _creates(fs, "_put_file", "put_file"):
                        self._check_free(fs, full)
                    fs.put_file(str(file), full, **self._upload_options(fs, path))
            except FileExistsError:
                if self.size(path) != file.stat().st_size or self.hash(path) != hash_file(file):
                    raise FileExistsError(errno.EEXIST, "a different file is there", f"{self.url.rstrip('/')}/{path}") from None
        if move:
            file.unlink(missing_ok=True)

    def hash(self, path: str) -> str:
        """See `Backend.hash`."""
        digest = hashlib.sha256()
        with self._at(path) as (fs, full), fs.open(full, "rb", block_size=_BLOCK_BYTES) as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()

    def sign(self, path: str, seconds: int) -> str:
        """See `Backend.sign`."""
        with self._at(path) as (fs, full):
            try:
                return str(fs.sign(full, expiration=seconds))
            except NotImplementedError as error:  # fsspec's own word for a filesystem that cannot sign, where s3fs and gcsfs can
                why = f"{self.scheme} stores have no presigned addresses; give public_base_url"
                raise OSError(errno.ENOTSUP, why, self.url) from error

    @contextmanager
    def _at(self, path: str) -> Generator[tuple[Any, str], None, None]:
        with translated(self.url):
            fs, root = self._opened
            yield fs, f"{root.rstrip('/')}/{path}" if path else root

    def _exclusive(self) -> AbstractContextManager[object]:
        return _MEMORY_LOCK if self.scheme == "memory" else nullcontext()

    def _check_free(self, fs: Any, full: str) -> None:
        try:
            fs.info(full)
        except FileNotFoundError:
            return
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), full)

    def _upload_options(self, fs: Any, path: str) -> dict[str, Any]:
        chosen: dict[str, Any] = {"mode": "create"} if _creates(fs, "_put_file", "put_file") else {}
        media_type = mimetypes.guess_type(path)[0]
        if self.scheme in _S3:
            # The default holds ten parts of 50 MB in memory at a time.
            chosen |= {"chunksize": _BLOCK_BYTES, "max_concurrency": 2}
            chosen |= {"ContentType": media_type} if media_type else {}
        elif self.scheme in {"gs", "gcs"} and media_type:
            chosen["content_type"] = media_type
        return chosen


def _is_conflict(error: OSError) -> bool:
    """Whether S3 could not tell which writer was first, and wants the request to be repeated.

    See https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
    """
    response: object = getattr(error.__cause__, "response", None)
    facts = cast("dict[str, dict[str, str]]", response) if isinstance(response, dict) else {}
    return facts.get("Error", {}).get("Code") == "ConditionalRequestConflict"


def _creates(fs: Any, *names: str) -> bool:
    """Whether a filesystem's own method, not its base class's, supports exclusive creation."""
    from fsspec.asyn import AsyncFileSystem  # pyright: ignore[reportMissingTypeStubs]
    from fsspec.spec import AbstractFileSystem  # pyright: ignore[reportMissingTypeStubs]

    kind = cast("type[Any]", type(fs))
    for name in names:
        method = getattr(kind, name, None)
        inherited = method in (getattr(AsyncFileSystem, name, None), getattr(AbstractFileSystem, name, None))
        if method is not None and not inherited and "mode" in inspect.signature(method).parameters:
            return True
    return False
