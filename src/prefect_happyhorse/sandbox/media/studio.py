"""Making results away from the event loop, each distinct one once, in a folder that goes when the sandbox does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from prefect_happyhorse.sandbox.media.card import MediaSpec
from prefect_happyhorse.sandbox.media.encode import write

__all__ = ["RenderCache"]

Result = TypeVar("Result")


class RenderCache:
    """A folder of results and two threads that make them."""

    def __init__(self) -> None:
        self._folder: TemporaryDirectory[str] | None = None
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="sandbox-media")
        self._made: dict[str, asyncio.Task[Path]] = {}
        self._kept: set[asyncio.Task[None]] = set()

    async def run(self, work: Callable[[], Result]) -> Result:
        """Do a piece of media work in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def begin(self, spec: MediaSpec) -> asyncio.Task[Path]:
        """Start making a result, unless it is made or being made already."""
        if spec.key not in self._made:
            self._made[spec.key] = asyncio.get_running_loop().create_task(self._make(spec))
        return self._made[spec.key]

    async def make(self, spec: MediaSpec) -> Path:
        """The file of a result, made when it is not there yet."""
        # A caller that goes away must not take the work from the others that wait for it.
        return await asyncio.shield(self.begin(spec))

    async def _make(self, spec: MediaSpec) -> Path:
        if self._folder is None:
            self._folder = TemporaryDirectory(prefix="happyhorse-sandbox-")
        path = Path(self._folder.name, spec.key + spec.suffix)
        await self.run(lambda: write(spec, path))
        return path

    def keep(self, work: Coroutine[object, object, None]) -> None:
        """Let work go on in the background until it ends or the studio closes."""
        task = asyncio.get_running_loop().create_task(work)
        # The loop holds tasks weakly: https://docs.python.org/3/library/asyncio-task.html#creating-tasks
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)

    async def close(self) -> None:
        """Stop the threads and remove the folder."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        tasks: list[asyncio.Task[Path] | asyncio.Task[None]] = [*self._made.values(), *self._kept]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._made.clear()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
