"""A body that was coded comes in pieces of bounded length, whole or with an error."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import AsyncIterator

import httpx
import pytest

from prefect_happyhorse.engine.http.decoding import decoded

TEXT = bytes(range(256)) * 100


def answer(coding: str, body: bytes, step: int = 1000) -> httpx.Response:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), step):
            yield body[start : start + step]

    return httpx.Response(200, headers={"Content-Encoding": coding} if coding else {}, content=pieces())


async def read(response: httpx.Response) -> tuple[bytes, int]:
    """The whole body, and the length of its longest piece."""
    pieces = [piece async for piece in decoded(response)]
    return b"".join(pieces), max(map(len, pieces), default=0)


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("", TEXT),
        ("identity", TEXT),
        ("aws-chunked", TEXT),
        ("gzip", gzip.compress(TEXT)),
        ("X-GZip, identity", gzip.compress(TEXT)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", zlib.compress(TEXT)[2:-4]),
        ("gzip", gzip.compress(TEXT[:999]) + gzip.compress(TEXT[999:])),
        ("gzip", gzip.compress(TEXT) + b"what nobody asked for"),
        ("gzip", b""),
    ],
)
@pytest.mark.parametrize("step", [3, 100_000])
async def test_what_is_known_is_decoded(coding: str, body: bytes, step: int) -> None:
    """Whatever the pieces in which it comes, and with or without zlib's own header."""
    assert (await read(answer(coding, body, step)))[0] == (TEXT if body else b"")


async def test_what_swells_comes_in_small_pieces() -> None:
    """A thousand times what was sent, and never more than 64 KiB of it at a time."""
    body, longest = await read(answer("gzip", gzip.compress(bytes(50_000_000)), step=1 << 20))
    assert (len(body), longest) == (50_000_000, 64 * 1024)


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip, gzip", gzip.compress(gzip.compress(TEXT))),
        ("br", TEXT),
        ("gzip", TEXT),
        ("gzip", gzip.compress(TEXT)[:-5]),
        ("gzip", gzip.compress(TEXT) + gzip.compress(TEXT)[:-5]),
        ("gzip", gzip.compress(TEXT)[:10] + b"\xff" * 100),
    ],
)
async def test_anything_else_is_an_error(coding: str, body: bytes) -> None:
    """Coded twice, as nothing that is known, wrongly, or not to its end."""
    with pytest.raises(httpx.DecodingError):
        await read(answer(coding, body))
