"""Fetching the input media of a submit, as a provider would, and checking them against the route."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
from collections.abc import Sequence
from tempfile import SpooledTemporaryFile
from typing import IO

import httpx

from prefect_happyhorse.sandbox.jobs.settings import SandboxSettings
from prefect_happyhorse.sandbox.jobs.validate import ValidatedBody
from prefect_happyhorse.sandbox.media.probe import Probe, find_limit_problems, kind_of, probe
from prefect_happyhorse.sandbox.media.studio import RenderCache
from prefect_happyhorse.sandbox.media.wire_media import WireInput

__all__ = ["FETCHER", "InputFetcher"]

FETCHER = "happyhorse-sandbox-intake"
"""The user agent under which inputs are fetched: such a fetch of the sandbox's own results is neither counted nor struck by faults."""

_IN_MEMORY = 2_000_000


class InputFetcher:
    """Fetches and checks input media.

    Args:
        studio: Where media work is done.
    """

    def __init__(self, studio: RenderCache) -> None:
        self._studio = studio
        self._client: httpx.AsyncClient | None = None
        self._seats = asyncio.Semaphore(16)

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def take_in(self, fit: ValidatedBody, settings: SandboxSettings) -> tuple[tuple[Probe, ...], tuple[str, ...]]:
        """Fetch and check every input of a submit."""
        taken = await asyncio.gather(*(self._take_one(wire, settings) for wire in fit.inputs))
        probes = tuple(found for found, _ in taken if found is not None)
        problems = [problem for _, problem in taken if problem is not None]
        for wire, (found, _) in zip(fit.inputs, taken, strict=True):
            if found is not None:
                problems.extend(f"{wire.where}: {problem}" for problem in _beyond_limits(fit, wire, found))
        return probes, tuple(problems)

    async def _take_one(self, wire: WireInput, settings: SandboxSettings) -> tuple[Probe | None, str | None]:
        try:
            async with self._seats:
                with await self._open(wire.url, settings) as file:
                    return await self._studio.run(lambda: probe(file, kind_of(wire.source), with_thumb=settings.media == "full")), None
        except ValueError as error:
            return None, f"{wire.where}: it {error}"
        except httpx.HTTPError as error:
            return None, f"{wire.where}: failed to download it ({type(error).__name__})"
        except TimeoutError:
            return None, f"{wire.where}: failed to download it within {settings.input_timeout_s:g} s"

    async def _open(self, url: str, settings: SandboxSettings) -> IO[bytes]:
        if url.startswith("data:"):
            try:
                return io.BytesIO(base64.b64decode(url.partition(",")[2], validate=True))
            except binascii.Error as error:
                raise ValueError("is not valid base64") from error
        try:
            return await asyncio.wait_for(self._download(url, settings), settings.input_timeout_s)
        except asyncio.TimeoutError as error:
            # Before Python 3.11 asyncio's time-out is not the built-in one.
            raise TimeoutError from error

    async def _download(self, url: str, settings: SandboxSettings) -> IO[bytes]:
        if self._client is None:
            # A proxy that the environment names cannot reach this machine's own addresses.
            direct = {"all://127.0.0.1": None, "all://localhost": None, "all://[::1]": None}
            limits = httpx.Limits(max_connections=32, max_keepalive_connections=0)
            headers = {"user-agent": FETCHER}
            self._client = httpx.AsyncClient(headers=headers, mounts=direct, limits=limits, follow_redirects=True, max_redirects=5)
        file = SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115  # the caller closes it
        try:
            async with self._client.stream("GET", url, timeout=settings.input_timeout_s) as response:
                if response.status_code != 200:
                    raise ValueError(f"could not be downloaded, its server answered {response.status_code}")
                size = 0
                async for chunk in response.aiter_bytes():
                    size += len(chunk)
                    if size > settings.input_max_bytes:
                        raise ValueError(f"has more than {settings.input_max_bytes} bytes")
                    file.write(chunk)
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return file


def _beyond_limits(fit: ValidatedBody, wire: WireInput, found: Probe) -> Sequence[str]:
    limits = [limit for limit in fit.route.media if wire.source in limit.request_fields]
    return [problem for limit in limits for problem in find_limit_problems(found, limit)]
