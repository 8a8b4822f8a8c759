"""What the tests of downloads share: a job, a video, a gateway that is asked for fresh addresses, and a download with usual values."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.engine.conftest import Naps
from tests.engine.samples import movie, with_padding

from prefect_happyhorse.domain.errors import JobExpired
from prefect_happyhorse.domain.jobs import Job, Output
from prefect_happyhorse.engine.download.download import DownloadOptions, StoredOutput, download
from prefect_happyhorse.engine.storage.store import Store

NOW = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)


JOB = Job(
    gateway="ttapi",
    account="default",
    capability="text_to_video",
    model="happyhorse-1.1",
    task_id="0123456789abcdef",
    digest="d1",
    submitted_at=NOW,
)


PLACE = "2026-11-20/text_to_video/happyhorse-1.1-0123456789abcdef.mp4"


VIDEO = with_padding(movie(), 400_000)


OPTIONS = DownloadOptions(stall_s=0.5, connect_s=5, checkpoint_bytes=10_000)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as client:
        yield client


class Gateway:
    """Stands in for the gateway that is asked for fresh addresses; when it has no more, the job has expired."""

    def __init__(self, *answers: Output | Exception) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self) -> Output:
        """Ask once more."""
        self.asked += 1
        if not self.answers:
            raise JobExpired("The job is gone.", advice="Look elsewhere.")
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def get(client: httpx.AsyncClient, store: Store, naps: Naps) -> Callable[..., Awaitable[StoredOutput]]:
    async def get(output: Output | str, **changes: Any) -> StoredOutput:
        usual = {
            "job": JOB,
            "store": store,
            "client": client,
            "refresh": Gateway(),
            "local_allowed": True,
            "options": OPTIONS,
            "sleep": naps,
        }
        return await download(Output(kind="video", url=output) if isinstance(output, str) else output, **(usual | changes))

    return get


Get = Callable[..., Awaitable[StoredOutput]]


def lying(store: Store) -> dict[str, bytes]:
    """Every file in the store that is not hidden, by path."""
    root = store.folder or Path()
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)
    }
