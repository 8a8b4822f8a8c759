"""Downloads in processes of their own: ours, and what is measured beside them.

`python -m tests.bench.downloads serve PORT FILE` serves one file at every path. `... ours COUNT URL STORE` keeps so many outputs,
`... put FOLDER PLACE` puts files into S3 by s3fs; both print what it took as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.bench.load import resident_bytes
from tests.engine.samples import movie

GIB = 1024**3
MIB = 1024**2


def make_video(path: Path, length: int) -> None:
    """A video of exactly so many bytes: a real one, and a box of zeros that players skip (ISO/IEC 14496-12, `free`)."""
    video = movie()
    with path.open("wb") as file:
        file.write(video)
        file.write((length - len(video)).to_bytes(4, "big") + b"free")
        file.truncate(length)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    file = ""

    def do_GET(self) -> None:
        size = os.path.getsize(self.file)
        self.send_response(200)
        self.send_header("Content-Type", "video/mp4")
        self.send_header("Content-Length", str(size))
        self.end_headers()
        self.wfile.flush()
        with Path(self.file).open("rb") as source:
            self.connection.sendfile(source)

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    request_queue_size = 512
    daemon_threads = True


def serve(port: int, file: str) -> None:
    _Handler.file = file
    _Server(("127.0.0.1", port), _Handler).serve_forever()


async def ours(count: int, url: str, place: str) -> dict[str, float]:
    """Keep so many outputs as the task `download` does, journal aside."""
    from prefect_happyhorse.domain.jobs import Job, Output
    from prefect_happyhorse.engine.download.download import download
    from prefect_happyhorse.engine.jobs.shared import PROCESS
    from prefect_happyhorse.engine.storage.store import Store

    store = Store(url=place)

    async def one(client: Any, number: int) -> None:
        job = Job(
            gateway="happyhorse",
            account="bench",
            capability="text_to_video",
            model="bench",
            task_id=f"task-{number}",
            digest=f"{number:064x}",
            submitted_at=datetime.now(timezone.utc),
        )
        output = Output(kind="video", url=f"{url}/{number}.mp4")

        async def refresh() -> Output:
            return output

        await download(
            output, job=job, index=0, store=store, client=client.http, slots=client.downloads, refresh=refresh, local_allowed=True
        )

    before, started, cpu_s = resident_bytes(), time.perf_counter(), time.process_time()
    async with PROCESS.connections.client() as client:
        await asyncio.gather(*(one(client, number) for number in range(count)))
    return {
        "wall_s": time.perf_counter() - started,
        "cpu_s": time.process_time() - cpu_s,
        "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before,
    }


def put(folder: str, place: str) -> dict[str, float]:
    """Put the files of a folder into S3 by s3fs alone."""
    import s3fs

    started = time.perf_counter()
    s3fs.S3FileSystem().put(folder, place, recursive=True)
    return {"wall_s": time.perf_counter() - started}


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]), sys.argv[3])
    elif sys.argv[1] == "put":
        print(json.dumps(put(sys.argv[2], sys.argv[3])))
    else:
        print(json.dumps(asyncio.run(ours(int(sys.argv[2]), sys.argv[3], sys.argv[4]))))
