"""Making results away from the event loop, each distinct one once, in a folder that goes when the sandbox does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from prefect_happyhorse.sandbox.media.card import MediaSpec
from prefect_happyhorse.sandbox.media.encode import write

__all__ = ["RenderCache"]

Result = TypeVar("Result")


class RenderCache:
    """A folder of results and two threads that make them."""

    def __init__(self) -> None:
        self._folder: TemporaryDirectory[str] | None = None
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="sandbox-media")
        self._rendered: dict[str, asyncio.Task[Path]] = {}
        self._background: set[asyncio.Task[None]] = set()

    async def run(self, work: Callable[[], Result]) -> Result:
        """Do a piece of media work in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def begin(self, spec: MediaSpec) -> asyncio.Task[Path]:
        """Start to render a result, unless that was started before."""
        if spec.key not in self._rendered:
            self._rendered[spec.key] = asyncio.create_task(self._render(spec))
        return self._rendered[spec.key]

    async def render(self, spec: MediaSpec) -> Path:
        """The file of a result, rendered when it is not there yet."""
        # A caller that goes away must not take the work from the others that wait for it.
        return await asyncio.shield(self.begin(spec))

    async def _render(self, spec: MediaSpec) -> Path:
        self._folder = self._folder or TemporaryDirectory(prefix="happyhorse-sandbox-")
        path = Path(self._folder.name, spec.key + spec.suffix)
        await self.run(lambda: write(spec, path))
        return path

    def run_in_background(self, work: Coroutine[object, object, None]) -> None:
        """Let work go on until it ends or the sandbox closes."""
        task = asyncio.create_task(work)
        # The loop holds tasks weakly: https://docs.python.org/3/library/asyncio-task.html#creating-tasks
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def close(self) -> None:
        """Stop the threads and remove the folder."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        tasks: list[asyncio.Task[Any]] = [*self._rendered.values(), *self._background]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._rendered.clear()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
