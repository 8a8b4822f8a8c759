"""A stored file over HTTP, whole or a range of it, in little memory however long it is."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gallery.views import is_hash, shown_type

__all__ = ["serve_asset"]

_CHUNK_BYTES = 1024 * 1024
_RANGE = re.compile(r"bytes=\s*([0-9]{0,18})-([0-9]{0,18})\s*")


async def serve_asset(request: Request, store: Store, asset: MediaAsset) -> Response:
    """The bytes of an asset, as far as the client asks for them."""
    path = store.path_of(asset.uri)
    if path is None:
        return PlainTextResponse(f"The file is kept outside of this store, at {asset.uri}.", 404)
    try:
        size = await store.size(path)
    except FileNotFoundError:
        return PlainTextResponse(f"The file is no longer there: {asset.uri}.", 404)
    except OSError as error:
        return PlainTextResponse(f"The store failed: {error.strerror or error}.", 502)
    headers = _headers(asset, path)
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    start, end = 0, size
    status = 200
    if (chosen := _chosen(request, size, headers["ETag"])) is not None:
        start, end = chosen
        if start >= end:
            return Response(status_code=416, headers=headers | {"Content-Range": f"bytes */{size}", "Content-Length": "0"})
        status = 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    return StreamingResponse(_read(store, path, start, end), status, headers)


def _headers(asset: MediaAsset, path: str) -> dict[str, str]:
    shown = shown_type(asset)
    name = quote(path.rpartition("/")[2], safe="")
    return {
        "Content-Type": shown or "application/octet-stream",
        "Content-Disposition": f"{'inline' if shown else 'attachment'}; filename*=UTF-8''{name}",
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        # A name for its content; where the journal holds none, one that equals no other.
        "ETag": f'"{asset.sha256}"' if is_hash(asset.sha256) else f'W/"{asset.bytes}"',
    }


def _chosen(request: Request, size: int, etag: str) -> tuple[int, int] | None:
    """From which byte to which a client asks for the file; None for the whole, also where it asks for more than one range."""
    found = _RANGE.fullmatch(request.headers.get("range", ""))
    if found is None or found[1] == found[2] == "" or request.headers.get("if-range", etag) != etag:
        return None
    if not found[1]:
        return max(0, size - int(found[2])), size if int(found[2]) else 0
    start = int(found[1])
    end = min(int(found[2]) + 1, size) if found[2] else size
    # An end before the start makes it no range; a start behind the file's end makes it one that cannot be satisfied.
    return None if found[2] and int(found[2]) < start else (start, end)


async def _read(store: Store, path: str, start: int, end: int) -> AsyncGenerator[bytes, None]:
    while start < end:
        chunk = await store.read_range(path, start, min(_CHUNK_BYTES, end - start))
        if not chunk:
            raise OSError(f"{store.uri(path)} became shorter while it was read")
        start += len(chunk)
        yield chunk
