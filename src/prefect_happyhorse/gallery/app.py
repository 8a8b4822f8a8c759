"""The gallery over HTTP: its page, the jobs in JSON, and their files. It answers only GET and HEAD, and only whoever asks this machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prefect_happyhorse.domain.errors import GenerationError
from prefect_happyhorse.engine.journal.index import Line
from prefect_happyhorse.engine.journal.journal import JournalEntry
from prefect_happyhorse.engine.media.thumbnail import thumbnail_path
from prefect_happyhorse.gallery.query import Finder, Query
from prefect_happyhorse.gallery.ranges import serve_asset
from prefect_happyhorse.gallery.reader import JournalReader
from prefect_happyhorse.gallery.views import as_json, is_hash, job_view, outputs_of, row

__all__ = ["CONTENT_SECURITY_POLICY", "PAGE_FILES", "create_app", "page_file"]

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; img-src 'self' data:; media-src 'self'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
)

PAGE_FILES = {
    "index.html": "text/html; charset=utf-8",
    "gallery.css": "text/css; charset=utf-8",
    "data.js": "text/javascript; charset=utf-8",
    "source.js": "text/javascript; charset=utf-8",
    "parts.js": "text/javascript; charset=utf-8",
    "job.js": "text/javascript; charset=utf-8",
    "gallery.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""The files of the page and their media types."""

_HEADERS = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
_FIRST_LOOK_S = 1.0
_MOST_PROBLEMS = 50
_MOST_RELATED = 24
# Shown where there is no thumbnail: one pixel of nothing, since what is not found would stand in the browser's log.
_NOTHING = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c000000000100010000020144003b")


def page_file(name: str) -> bytes:
    """One of the files of the page."""
    return (resources.files("prefect_happyhorse.gallery") / "page" / name).read_bytes()


def create_app(reader: JournalReader) -> ASGIApp:
    """The gallery of a journal as an ASGI application, during whose life the journal is read.

    Args:
        reader: Reads the journal.
    """
    pages = _Pages(reader)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        async with reader.running():
            yield

    routes = [
        Route("/", pages.static),
        Route("/api/gallery", pages.about),
        Route("/api/jobs", pages.jobs),
        Route("/api/jobs/{digest}", pages.job),
        Route("/media/{digest}/{number:int}", pages.media),
        Route("/thumbnails/{sha256}.jpg", pages.thumbnail),
        Route("/{name}", pages.static),
    ]
    return _Guard(Starlette(routes=routes, lifespan=lifespan))


class _Guard:
    """Answers only this machine's own browser, and says with every answer what a page may do.

    A page of a stranger may have its own name lead to 127.0.0.1; the name that the browser asks by stays the stranger's.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        request = Request(scope)
        host = request.headers.get("host", "").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name not in _HOSTS:
            refusal = "This gallery is only for this machine: ask 127.0.0.1 or localhost."
            await PlainTextResponse(refusal, 403)(scope, receive, guarded)
        elif request.method not in {"GET", "HEAD"}:
            await PlainTextResponse("This gallery is only read.", 405, {"Allow": "GET, HEAD"})(scope, receive, guarded)
        else:
            await self._app(scope, receive, guarded)


class _Pages:
    """What is answered at each address."""

    def __init__(self, reader: JournalReader) -> None:
        self._reader = reader
        self._finder = Finder(reader)
        self._store = reader.journal.store

    async def static(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in PAGE_FILES:
            return PlainTextResponse("There is nothing here.", 404)
        return Response(await asyncio.to_thread(page_file, name), media_type=PAGE_FILES[name], headers={"Cache-Control": "no-cache"})

    async def about(self, _: Request) -> Response:
        """By which another gallery knows that this is one, and of which store."""
        return _json({"gallery": self._store.url})

    async def jobs(self, request: Request) -> Response:
        """A page of jobs; the same as before is answered without it."""
        try:
            query = Query.of(request.query_params)
        except ValueError as error:
            return _json({"error": f"{error}"}, 400)
        reader = self._reader
        reader.look()
        await reader.first_look(at_most_s=_FIRST_LOOK_S)
        if query.words:
            reader.want_details()
        snapshot = reader.snapshot
        found = self._finder.find(query, snapshot)
        version = f"{snapshot.version}-{found.unsearched}"
        etag = f'"{version}"'
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=_cached(etag))
        facts = {
            "version": version,
            "store": self._store.url,
            "rows": [row(entry) for entry in await reader.entries(found.page(query.page))],
            "count": len(found.lines),
            "cost": found.cost,
            "page": query.page,
            "pages": found.pages,
            "jobs": sum(line.state != "released" for line in snapshot.lines),
            "facets": snapshot.facets,
            "problems": snapshot.problems[:_MOST_PROBLEMS],
            "more_problems": max(0, len(snapshot.problems) - _MOST_PROBLEMS),
            "reading": None if snapshot.whole else [snapshot.read, snapshot.total],
            "unsearched": found.unsearched,
        }
        return _json(facts, headers=_cached(etag))

    async def job(self, request: Request) -> Response:
        """A job's own page: itself, its takes, and what was made of it, as far as that is known by now."""
        reader = self._reader
        reader.look()
        await reader.first_look(at_most_s=_FIRST_LOOK_S)
        try:
            entry = await reader.entry(request.path_params["digest"])
        except (OSError, GenerationError) as error:
            return _json({"error": f"{error}"})
        if entry is None:
            return _json({"error": f"No job {request.path_params['digest'][:12]} stands in the journal of {self._store.url}."})
        reader.want_details()
        facts = job_view(entry, store=self._store.url)
        for file, asset in zip(facts["files"], outputs_of(entry), strict=True):
            file["problem"] = await self._problem(asset.uri, asset.bytes)
        lines = reader.snapshot.lines
        related = {
            "takes": await self._rows(reader.takes(entry)),
            "made_of_it": await self._rows(reader.made_of(entry.digest)),
            "bought_besides": await self._rows([line for one in entry.aside if (line := reader.snapshot.by_digest.get(one))]),
            "unread": sum(not reader.has_detail(line) for line in lines),
        }
        return _json({"store": self._store.url, "job": facts | related})

    async def _rows(self, lines: Sequence[Line]) -> list[dict[str, Any]]:
        return [row(entry) for entry in await self._reader.entries(lines[:_MOST_RELATED])]

    async def _problem(self, uri: str, length: int) -> str | None:
        """Why a file cannot be shown, or None."""
        path = self._store.path_of(uri)
        if path is None:
            return "It is kept outside of this store."
        try:
            size = await self._store.size(path)
        except FileNotFoundError:
            return "It is no longer there."
        except OSError as error:
            return f"The store failed: {error.strerror or error}."
        return None if size == length else f"It has {size:,} bytes, and had {length:,} when it was kept."

    async def media(self, request: Request) -> Response:
        """A stored output, by its job and its number; no part of the address names a file."""
        entry = await self._entry(request.path_params["digest"])
        assets = [] if entry is None else [*outputs_of(entry)]
        number: int = request.path_params["number"]
        if number >= len(assets):
            return PlainTextResponse("The journal knows no such file.", 404)
        return await serve_asset(request, self._store, assets[number])

    async def _entry(self, digest: str) -> JournalEntry | None:
        try:
            return await self._reader.entry(digest)
        except (OSError, GenerationError):
            return None

    async def thumbnail(self, request: Request) -> Response:
        """The small picture of an output or an input, by its hash."""
        sha256 = request.path_params["sha256"]
        if not is_hash(sha256):
            return PlainTextResponse("There is nothing here.", 404)
        etag = f'"{sha256}"'
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=_kept(etag))
        try:
            jpeg = await self._store.read(thumbnail_path(sha256))
        except OSError:
            return Response(_NOTHING, media_type="image/gif", headers={"Cache-Control": "no-store"})
        return Response(jpeg, media_type="image/jpeg", headers=_kept(etag))


def _json(facts: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(as_json(facts), status, headers or {"Cache-Control": "no-store"}, "application/json")


def _cached(etag: str) -> dict[str, str]:
    return {"ETag": etag, "Cache-Control": "private, no-cache"}


def _kept(etag: str) -> dict[str, str]:
    return {"ETag": etag, "Cache-Control": "private, max-age=31536000, immutable"}
