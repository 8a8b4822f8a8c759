"""A server on a real socket that answers each request with the next step of a script, down to the last nasty byte."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Received", "Step", "Wire", "chunked", "coded", "cut", "drip", "file", "raw", "redirect", "refuse", "stall"]


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    target: str
    headers: dict[str, str]


Step = Callable[[Received, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Wire:
    """The server. `received` tells what it was asked, in order; what goes beyond the script is answered with 599."""

    steps: list[Step]
    tls: ssl.SSLContext | None = None
    received: list[Received] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.close()

    def url(self, path: str = "/result") -> str:
        """The address of a path on the server."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}{path}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
            request = Received(lines[0].split(" ")[1], headers)
            self.received.append(request)
            number = len(self.received)
            await (self.steps[number - 1] if number <= len(self.steps) else refuse(599))(request, reader, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def raw(content: bytes) -> Step:
    """Bytes as they are, and then the end of the connection."""

    async def step(request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(content)

    return step


def refuse(status: int, headers: str = "", body: bytes = b"no") -> Step:
    """A status and nothing of use."""
    return raw(f"HTTP/1.1 {status} X\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)


def redirect(to: str, status: int = 302) -> Step:
    """A redirect."""
    return refuse(status, f"Location: {to}\r\n", b"")


def _head(request: Received, content: bytes, tag: str | None, ranges: bool, extra: str) -> tuple[bytes, bytes]:
    """Status line, headers and body of a file, or of the part of it that is asked for."""
    validator = f"ETag: {tag}\r\n" if tag else ""
    asked = request.headers.get("range")
    start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and ranges and request.headers.get("if-range") == tag else 0
    if start >= len(content) > 0:
        return f"HTTP/1.1 416 X\r\n{validator}Content-Range: bytes */{len(content)}\r\nContent-Length: 0\r\n\r\n".encode(), b""
    status = f"206 X\r\nContent-Range: bytes {start}-{len(content) - 1}/{len(content)}" if start else "200 OK"
    return f"HTTP/1.1 {status}\r\n{validator}{extra}Content-Length: {len(content) - start}\r\n\r\n".encode(), content[start:]


def file(content: bytes, *, tag: str | None = '"v1"', ranges: bool = True, extra: str = "") -> Step:
    """A file, as a good server serves it."""

    async def step(request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, body = _head(request, content, tag, ranges, extra)
        writer.write(head)
        for start in range(0, len(body), 1 << 16):
            writer.write(body[start : start + (1 << 16)])
            await writer.drain()

    return step


def cut(content: bytes, after: int, *, tag: str | None = '"v1"', ranges: bool = True) -> Step:
    """A file whose connection ends after so many bytes of what was asked for."""

    async def step(request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, body = _head(request, content, tag, ranges, "")
        writer.write(head + body[:after])

    return step


def stall(content: bytes, after: int, *, tag: str | None = '"v1"') -> Step:
    """A file that stops coming after so many bytes, while the connection stays until the other side hangs up."""

    async def step(request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, body = _head(request, content, tag, True, "")
        writer.write(head + body[:after])
        await writer.drain()
        await reader.read()

    return step


def chunked(content: bytes, *, ends: bool = True) -> Step:
    """A file of unannounced length, in chunks; without its end mark when `ends` is false."""
    pieces = [content[start : start + 10_000] for start in range(0, len(content), 10_000)]
    body = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces)
    return raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + (b"0\r\n\r\n" if ends else b""))


def coded(content: bytes, coding: str, *, ends: bool = True) -> Step:
    """A file in a content coding that nobody asked for, whole or without its end."""
    squeezed = {"gzip": gzip.compress, "deflate": zlib.compress}[coding](content)
    head = f'HTTP/1.1 200 OK\r\nETag: "v1"\r\nContent-Encoding: {coding}\r\nContent-Length: {len(squeezed)}\r\n\r\n'
    return raw(head.encode() + (squeezed if ends else squeezed[: len(squeezed) // 2]))


def drip(content: bytes, after: int) -> Step:
    """A file that comes at once up to so many bytes of the whole answer, and then a byte at a time, until the other side hangs up."""

    async def step(request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, body = _head(request, content, '"v1"', True, "")
        answer = head + body
        writer.write(answer[:after])
        for byte in answer[after:]:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.01)

    return step
