"""Input media as files on the local disk, wherever their bytes come from: a local path, a store, or a data URL."""

from __future__ import annotations

import shutil
import stat
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from anyio import to_thread

from prefect_happyhorse.domain.locations import locate
from prefect_happyhorse.engine.media.data_url import decode
from prefect_happyhorse.engine.storage.fsspec_backend import open_filesystem, translated
from prefect_happyhorse.engine.storage.local import CHUNK_BYTES
from prefect_happyhorse.engine.storage.store import Store

__all__ = ["MediaUnavailable", "local_file", "local_path_of", "shown", "where"]


class MediaUnavailable(ValueError):
    """When the bytes of a medium cannot be had; the message goes on from the medium's name, as in "it is a folder"."""


def where(field: str, position: int | None) -> str:
    """A medium's place in a request, as problems name it.

    Example:
        >>> where("references", 1)
        'references[1]'
    """
    return field if position is None else f"{field}[{position}]"


def shown(medium: str) -> str:
    """A medium as problems show it: a data URL is cut, the rest is whole.

    Example:
        >>> shown("data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAA")
        "'data:image/png;base64,iVBORw0K...'"
    """
    return repr(medium[:30] + "..." if medium.startswith("data:") and len(medium) > 30 else medium)


def local_path_of(medium: str) -> Path | None:
    """The path of a medium on the local disk, or None when it lies elsewhere.

    Example:
        >>> local_path_of("file:///srv/horse.png"), local_path_of("s3://bucket/horse.png")
        (PosixPath('/srv/horse.png'), None)
    """
    location = locate(medium)
    if location == "local":
        return Path(medium).expanduser().absolute()
    scheme, _, rest = medium.partition("://")
    return Path(rest) if location == "store" and scheme in {"file", "local"} else None


@asynccontextmanager
async def local_file(medium: str, *, store: Store | None = None, max_bytes: int | None = None) -> AsyncGenerator[Path, None]:
    """A medium as a local file: itself where it lies on the local disk, else a copy for as long as the context lasts."""
    path = local_path_of(medium)
    if path is not None:
        await to_thread.run_sync(_check_file, path)
        yield path
        return
    folder = Path(await to_thread.run_sync(tempfile.mkdtemp))
    try:
        copy = folder / "medium"
        if locate(medium) == "inline":
            await to_thread.run_sync(_decode, medium, copy)
        else:
            await to_thread.run_sync(_fetch, medium, copy, store, max_bytes)
        yield copy
    finally:
        await to_thread.run_sync(lambda: shutil.rmtree(folder, ignore_errors=True))


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise MediaUnavailable("it is a folder")
        if not stat.S_ISREG(status.st_mode):
            raise MediaUnavailable("it is not an ordinary file")
        with path.open("rb"):
            pass
    except FileNotFoundError as error:
        raise MediaUnavailable(f"there is no such file; looked at {path}") from error
    except OSError as error:
        raise MediaUnavailable(f"it cannot be read: {error.strerror or error}") from error
    except MediaUnavailable:
        raise
    except ValueError as error:
        # A NUL in the path, for example.
        raise MediaUnavailable(f"it is no path: {error}") from error


def _decode(medium: str, copy: Path) -> None:
    if "," not in medium:
        raise MediaUnavailable("it is a data URL without a comma")
    with copy.open("wb") as file:
        try:
            file.writelines(decode(medium, strict=True))
        except ValueError as error:
            raise MediaUnavailable(f"its base64 is wrong: {error}") from error


def _fetch(medium: str, copy: Path, store: Store | None, max_bytes: int | None) -> None:
    options: Mapping[str, Any] = store.options if store is not None and medium.startswith(f"{store.scheme}://") else {}
    try:
        with translated(medium):
            fs, path = open_filesystem(medium, options)
            info = fs.info(path)
            if info["type"] == "file" and (max_bytes is None or info["size"] <= max_bytes):
                with fs.open(path, "rb", block_size=8 * CHUNK_BYTES) as source, copy.open("wb") as file:
                    shutil.copyfileobj(source, file, CHUNK_BYTES)
    except FileNotFoundError as error:
        raise MediaUnavailable("there is no such file") from error
    except (OSError, ImportError) as error:
        raise MediaUnavailable(f"it cannot be read: {error}") from error
    if info["type"] != "file":
        raise MediaUnavailable("it is a folder")
    if max_bytes is not None and info["size"] > max_bytes:
        raise MediaUnavailable(f"it must have at most {max_bytes:,} bytes (got {info['size']:,})")
