"""A Prefect server and a sandbox in processes of their own, and proof that none is left when the tests are over."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

_MARK = "STUDIO_OF_TEST"
_END_WITHIN_S = 20.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


def fetch(url: str, body: object = None, *, method: str | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)

    def answer() -> bytes | None:
        try:
            with urllib.request.urlopen(asked, timeout=30) as answered:
                return answered.read() or b"null"
        except urllib.error.HTTPError as error:
            # While others hold its SQLite the Prefect server has done nothing and says so, upon which Prefect's own client asks again too.
            if error.code != 503:
                raise
            error.close()
            return None

    return json.loads(until(answer))


def until(what: Callable[[], Any], *, seconds: float = 120) -> Any:
    """Ask until there is an answer: what other processes do has no event to wait for."""
    deadline = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < deadline, f"nothing within {seconds} s"
        time.sleep(0.1)
    return answer


def wait_for(url: str) -> None:
    """Ask until a server of another process listens."""

    def answers() -> bool:
        with suppress(OSError):
            fetch(url)
            return True
        return False

    until(answers, seconds=180)


def _marked(mark: str) -> dict[int, str]:
    """The commands of all processes with a mark, by their ids."""
    wanted, found = f"{_MARK}={mark}".encode(), dict[int, str]()
    for process in Path("/proc").glob("[0-9]*"):
        # One that ends while it is looked at is not left behind; those of others are not ours to look into.
        with suppress(OSError):
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return found


@contextmanager
def nothing_left_behind() -> Iterator[ExitStack]:
    """A stack for what ends the processes that are started in here; it fails when any of them, or of theirs, lives on, and ends it.

    Every process inherits its environment, so a mark in it tells whose it is even when the one that started it is gone.

    Yields:
        The stack.
    """
    assert _MARK not in os.environ
    os.environ[_MARK] = mark = uuid.uuid4().hex
    try:
        with ExitStack() as processes:
            yield processes
    finally:
        del os.environ[_MARK]
        deadline = time.monotonic() + _END_WITHIN_S
        while (left := _marked(mark)) and time.monotonic() < deadline:
            # What was told to end is nobody's child here by now, so nothing tells when it has ended.
            time.sleep(0.1)
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
    assert left == {}, f"Processes were left behind, and are ended now: {left}"


class Stack:
    """A Prefect server and a sandbox as processes, and how to call Prefect's command line there.

    Args:
        folder: Where everything is kept.
        processes: Ends them.
        job_s: How long a job of the sandbox takes, in seconds.
        ui: Whether the server shows its UI.
        more: Environment variables besides.
    """

    def __init__(self, folder: Path, processes: ExitStack, *, job_s: float = 0.5, ui: bool = False, **more: str) -> None:
        server, sandbox = free_port(), free_port()
        self.folder = folder
        self.url = f"http://127.0.0.1:{server}"
        self.api = f"{self.url}/api"
        self.sandbox = f"http://127.0.0.1:{sandbox}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "HAPPYHORSE_"))}
        self.environment = kept | {
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_UI_API_URL": self.api,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "HAPPYHORSE_HOME": str(folder / "home"),
            "HAPPYHORSE_BASE_URL": f"{self.sandbox}/happyhorse",
            "HAPPYHORSE_API_KEY": "sesame-1234",
            "HAPPYHORSE_STORE": str(folder / "outputs"),
            # A store in a temporary folder is refused, so the tests' own folder must be none to these processes.
            "TMPDIR": str(folder / "tmp"),
            **more,
        }
        start = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(server), *([] if ui else ["--no-ui"])]
        # Only people look at what the sandbox draws.
        media = [] if ui else ["--media", "tiny"]
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
        for command in (start, ["-m", "prefect_happyhorse.sandbox", "--port", str(sandbox), "--job-s", str(job_s), *media]):
            running = subprocess.Popen([sys.executable, *command], env=self.environment, cwd=folder, **QUIET)
            processes.callback(running.wait, 30)
            processes.callback(running.terminate)
        wait_for(f"{self.api}/health")
        wait_for(f"{self.sandbox}/_sandbox/ledger")

    def python(self, *arguments: str, cwd: Path = ROOT, seconds: float = 180) -> str:
        """What a Python process prints that ends well."""
        command = [sys.executable, *arguments]
        done = subprocess.run(command, env=self.environment, cwd=cwd, capture_output=True, text=True, timeout=seconds, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def background(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """A Python process that goes on meanwhile, and is told to end afterwards."""
        running = subprocess.Popen([sys.executable, *arguments], env=self.environment, cwd=ROOT, **QUIET)
        try:
            yield running
        finally:
            running.terminate()
            running.wait(60)

    def prefect(self, *arguments: str) -> str:
        return self.python("-m", "prefect", "--no-prompt", *arguments)

    def ledger(self) -> list[dict[str, Any]]:
        return fetch(f"{self.sandbox}/_sandbox/ledger")

    def journal(self) -> list[dict[str, Any]]:
        """Every entry as it stands in its file, oldest first."""
        from prefect_happyhorse.engine.journal.journal import Journal
        from prefect_happyhorse.engine.storage.store import Store

        listing = asyncio.run(Journal(Store(url=self.environment["HAPPYHORSE_STORE"])).entries())
        assert listing.unreadable == []
        return [entry.model_dump(mode="json", exclude_none=True) for entry in listing.entries]

    def runs(self, flow: str) -> list[dict[str, Any]]:
        return fetch(f"{self.api}/flow_runs/filter", {"flows": {"name": {"any_": [flow]}}, "sort": "START_TIME_ASC"})


QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
"""For processes whose output nobody reads."""
