"""Fetching the input media of a submit, as a provider would, and checking them against the route."""

from __future__ import annotations

import asyncio
import base64
import binascii
from tempfile import SpooledTemporaryFile
from typing import IO

import httpx

from prefect_happyhorse.sandbox.jobs.job import Failure
from prefect_happyhorse.sandbox.jobs.settings import SandboxSettings
from prefect_happyhorse.sandbox.jobs.state import SandboxState
from prefect_happyhorse.sandbox.jobs.uploads import UPLOADED
from prefect_happyhorse.sandbox.jobs.validate import ValidatedBody, WireInput
from prefect_happyhorse.sandbox.media.probe import Probe, find_limit_problems, probe
from prefect_happyhorse.sandbox.media.render import RenderCache

__all__ = ["USER_AGENT", "InputFetcher"]

USER_AGENT = "happyhorse-sandbox-inputs"
"""The user agent under which inputs are fetched: such a fetch of the sandbox's own results is neither counted nor struck by faults."""

_IN_MEMORY = 2_000_000


class InputFetcher:
    """Fetches and checks input media, and looks into them in the threads of the render cache."""

    def __init__(self, renders: RenderCache, state: SandboxState) -> None:
        self._renders = renders
        self._state = state
        # A proxy that the environment names cannot reach this machine's own addresses.
        direct = {"all://127.0.0.1": None, "all://localhost": None, "all://[::1]": None}
        limits = httpx.Limits(max_keepalive_connections=0)
        headers = {"user-agent": USER_AGENT}
        self.client = httpx.AsyncClient(headers=headers, mounts=direct, limits=limits, follow_redirects=True, max_redirects=5)
        self._at_once = asyncio.Semaphore(16)

    async def fetch(self, body: ValidatedBody, settings: SandboxSettings) -> tuple[Probe, ...]:
        """Fetch every input of a submit: what they are, unless something is wrong with them."""
        probes: list[Probe] = []
        problems: list[str] = []
        fetched = await asyncio.gather(*(self._fetch_one(wire, settings) for wire in body.inputs))
        for wire, found in zip(body.inputs, fetched, strict=True):
            if isinstance(found, str):
                problems.append(f"{wire.where}: {found}")
                continue
            probes.append(found)
            limits = [limit for limit in body.route.media if wire.source in limit.request_fields]
            problems += [f"{wire.where}: {problem}" for limit in limits for problem in find_limit_problems(found, limit)]
        if problems:
            raise Failure("invalid", "; ".join(problems))
        return tuple(probes)

    async def _fetch_one(self, wire: WireInput, settings: SandboxSettings) -> Probe | str:
        try:
            async with self._at_once:
                with SpooledTemporaryFile(max_size=_IN_MEMORY) as file:
                    if wire.url.startswith(UPLOADED):
                        file.write(self._state.uploads.content(wire.url))
                    elif wire.url.startswith("data:"):
                        file.write(base64.b64decode(wire.url.partition(",")[2], validate=True))
                    else:
                        await asyncio.wait_for(self._download(wire.url, file, settings), settings.input_timeout_s)
                    return await self._renders.run(lambda: probe(file, wire.source, with_thumbnail=settings.media == "full"))
        except binascii.Error:
            return "it is not valid base64"
        except ValueError as error:
            return f"it {error}"
        except httpx.HTTPError as error:
            return f"failed to download it ({type(error).__name__})"
        except asyncio.TimeoutError:
            return f"failed to download it within {settings.input_timeout_s:g} s"

    async def _download(self, url: str, file: IO[bytes], settings: SandboxSettings) -> None:
        async with self.client.stream("GET", url, timeout=settings.input_timeout_s) as response:
            if response.status_code != 200:
                raise ValueError(f"could not be downloaded: its server answered {response.status_code}")
            async for chunk in response.aiter_bytes():
                if file.tell() + len(chunk) > settings.input_max_bytes:
                    raise ValueError(f"must have at most {settings.input_max_bytes} bytes")
                file.write(chunk)
