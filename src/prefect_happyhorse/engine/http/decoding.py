"""The bytes of a response, decoded in pieces of bounded length: a kilobyte that was coded well holds a gigabyte."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator

import httpx

from prefect_happyhorse.gateways.redaction import scrub

__all__ = ["DECODED", "codings", "decoded"]

DECODED = frozenset({"gzip", "x-gzip", "deflate"})
"""The content codings that are decoded, each alone (https://www.rfc-editor.org/rfc/rfc9110#section-8.4.1)."""

# S3 keeps "aws-chunked", which is about the upload, when the uploading client does not strip it.
_PLAIN = frozenset({"", "identity", "aws-chunked"})
_PIECE_BYTES = 64 * 1024
_GZIP = b"\x1f\x8b"
# With a header of gzip's or of zlib's; some servers leave out the latter.
_ANY_HEADER, _NO_HEADER = zlib.MAX_WBITS | 32, -zlib.MAX_WBITS


def codings(response: httpx.Response) -> list[str]:
    """How the body is coded, in the order in which it was, without any secret of the account."""
    named = (one.strip().lower() for one in scrub(response.headers.get("Content-Encoding", ""), response).split(","))
    return [one for one in named if one not in _PLAIN]


async def decoded(response: httpx.Response) -> AsyncIterator[bytes]:
    """The body of a response that is not read yet.

    Raises:
        httpx.DecodingError: When it is coded as nothing that is known here, more than once, wrongly, or not to its end.
    """
    named = codings(response)
    if not named:
        async for chunk in response.aiter_bytes():
            yield chunk
        return
    if len(named) > 1 or named[0] not in DECODED:
        raise httpx.DecodingError("it must be coded once at most, by gzip or deflate")
    body = _Body()
    try:
        async for chunk in response.aiter_raw():
            for piece in body.pieces(chunk):
                yield piece
    except zlib.error as error:
        raise httpx.DecodingError(f"it is not coded as it says: {error}") from error
    if not body.is_whole:
        raise httpx.DecodingError("it ends before its coding does")


class _Body:
    """A coded body, decoded as it comes."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(_ANY_HEADER)
        self._begun = False

    @property
    def is_whole(self) -> bool:
        """Whether it has ended, or has not begun."""
        return self._decoder.eof or not self._begun

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        """What so many bytes more are decoded to; what stands behind the end is nobody's."""
        if self._decoder.eof and len(self._decoder.unused_data) >= len(_GZIP):
            return
        piece = self._first(chunk)
        while piece or self._goes_on():
            if piece:
                yield piece
            rest = self._decoder.unconsumed_tail
            if self._goes_on():
                # Several members, one behind the other, are one body (https://www.rfc-editor.org/rfc/rfc1952#section-2.2).
                rest, self._decoder = self._decoder.unused_data, zlib.decompressobj(_ANY_HEADER)
            piece = self._decoder.decompress(rest, _PIECE_BYTES)

    def _first(self, chunk: bytes) -> bytes:
        try:
            return self._decoder.decompress(chunk, _PIECE_BYTES)
        except zlib.error:
            if self._begun:
                raise
            self._decoder = zlib.decompressobj(_NO_HEADER)
            return self._decoder.decompress(chunk, _PIECE_BYTES)
        finally:
            self._begun = True

    def _goes_on(self) -> bool:
        return self._decoder.eof and self._decoder.unused_data.startswith(_GZIP)
