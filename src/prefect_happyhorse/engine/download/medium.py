"""Fetch an input medium from the web, for a gateway that takes its bytes and not its address."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path

from anyio import to_thread

from prefect_happyhorse.engine.download.attempt import Pace
from prefect_happyhorse.engine.download.exchange import HEADERS, DownloadOptions, FetchProblem, open_result
from prefect_happyhorse.engine.http.connections import Client
from prefect_happyhorse.engine.http.decoding import decoded
from prefect_happyhorse.engine.media.source import MediaUnavailable

__all__ = ["fetch_medium"]


async def fetch_medium(url: str, path: Path, max_bytes: int, *, client: Client, local_allowed: bool) -> None:
    """Write what lies at an address into a file, as carefully as an output; MediaUnavailable says why it could not be had."""
    options = DownloadOptions()
    length = 0
    try:
        opened = open_result(client.http, url, headers=HEADERS, options=options, local_allowed=local_allowed, direct=client.direct)
        async with opened as response:
            if response.status_code != HTTPStatus.OK:
                raise FetchProblem(f"the server answered {response.status_code}", remedy="none")
            pace = Pace(options)
            with path.open("wb") as file:
                async for piece in decoded(response):
                    pace.check(len(piece))
                    length += len(piece)
                    if length > max_bytes:
                        raise FetchProblem(f"it must have at most {max_bytes:,} bytes (got more)", remedy="none")
                    await to_thread.run_sync(file.write, piece)
    except FetchProblem as problem:
        raise MediaUnavailable(f"it could not be fetched: {problem.message}") from problem
