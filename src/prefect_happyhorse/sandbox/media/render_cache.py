"""Rendering results away from the event loop, each distinct one once: pictures through Pillow, H.264 through PyAV."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import av
from av.video.frame import VideoFrame

from prefect_happyhorse.sandbox.media.card import Card, MediaSpec

__all__ = ["RenderCache"]

Result = TypeVar("Result")


class RenderCache:
    """Two threads that render results into a folder, which goes when the sandbox does."""

    def __init__(self) -> None:
        self._folder: TemporaryDirectory[str] | None = None
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="sandbox-media")
        self._rendered: dict[MediaSpec, asyncio.Task[Path]] = {}

    async def run(self, work: Callable[[], Result]) -> Result:
        """Do a piece of media work in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def begin(self, spec: MediaSpec) -> asyncio.Task[Path]:
        """Start to render a result, unless that was started before."""
        if spec not in self._rendered:
            self._rendered[spec] = asyncio.create_task(self._render(spec, f"{len(self._rendered)}{spec.suffix}"))
        return self._rendered[spec]

    async def render(self, spec: MediaSpec) -> Path:
        """The file of a result, rendered when it is not there yet."""
        # A caller that goes away must not take the work from the others that wait for it.
        return await asyncio.shield(self.begin(spec))

    async def _render(self, spec: MediaSpec, name: str) -> Path:
        self._folder = self._folder or TemporaryDirectory(prefix="happyhorse-sandbox-")
        path = Path(self._folder.name, name)
        await self.run(lambda: _write(spec, path))
        return path

    async def close(self) -> None:
        """Stop the threads and remove the folder."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for task in self._rendered.values():
            task.cancel()
        await asyncio.gather(*self._rendered.values(), return_exceptions=True)
        if self._folder is not None:
            self._folder.cleanup()


def _write(spec: MediaSpec, path: Path) -> None:
    card = Card(spec)
    if spec.kind == "image":
        # Each format takes of the two what it knows.
        card.picture().save(path, spec.format.upper(), quality=spec.quality, compress_level=3)
        return
    frames = max(1, round(spec.duration_s * spec.fps))
    # faststart puts the index before the pictures, so that a player can begin before it has the whole file.
    # PyAV's stubs leave these two partly untyped.
    container: Any = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
    frame_class: Any = VideoFrame
    with container:
        stream = container.add_stream("libx264", rate=spec.fps, options={"preset": "veryfast", "crf": "21"})
        stream.width, stream.height, stream.pix_fmt = spec.width, spec.height, "yuv420p"
        stream.codec_context.thread_count = 1
        # A result that says nothing stands still too, so that making it costs next to nothing.
        still = None if spec.heading else frame_class.from_image(card.picture()).reformat(format="yuv420p")
        for index in range(frames):
            frame = still or frame_class.from_image(card.frame(index, frames))
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
