"""What is measured against: a Prefect server, a sandbox, an S3 store and plain files, each a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.stack import free_port

_UP_S = 180.0
_SETTLED_S = 1.5


@contextmanager
def process(arguments: list[str], health: str, environment: Mapping[str, str]) -> Generator[int]:
    """A process that is up, and down again afterwards; gives its id."""
    running = subprocess.Popen(arguments, env=dict(environment), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _UP_S
        while True:
            try:
                urllib.request.urlopen(urllib.request.Request(health, method="HEAD"), timeout=2).close()
                break
            except urllib.error.HTTPError:
                break
            except (urllib.error.URLError, OSError):
                if running.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{arguments} did not come up") from None
                time.sleep(0.2)
        yield running.pid
    finally:
        running.terminate()
        running.wait(30)


@dataclass
class Services:
    """A service at an address."""

    url: str
    running: AbstractContextManager[int]

    def __enter__(self) -> str:
        self.running.__enter__()
        return self.url

    def __exit__(self, *error: object) -> None:
        self.running.__exit__(None, None, None)


@contextmanager
def sandbox(*options: str) -> Generator[str]:
    """A sandbox; gives its address."""
    url = f"http://127.0.0.1:{free_port()}"
    arguments = [sys.executable, "-m", "prefect_happyhorse.sandbox", "--port", url.rpartition(":")[2], *options]
    with process(arguments, f"{url}/_sandbox/ledger", os.environ):
        yield url


@contextmanager
def moto() -> Generator[dict[str, str]]:
    """An S3 store with the bucket `bench`; gives the environment in which it is found."""
    url = f"http://127.0.0.1:{free_port()}"
    serve = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", url.rpartition(":")[2]]
    with process(serve, url, os.environ):
        urllib.request.urlopen(urllib.request.Request(f"{url}/bench", method="PUT", data=b""), timeout=10).close()
        yield _found_at(url)


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Args:
        pid: Its process.
        environment: In which it is found.
    """

    pid: int
    environment: dict[str, str]

    def cpu_s(self) -> float:
        """The processor time that it and its children have taken so far, in seconds."""
        return _cpu_s(self.pid)


@contextmanager
def journal_on_s3(folder: Path) -> Generator[Server]:
    """An S3 store whose bucket `bench` holds the journal of a folder, below `outputs`."""
    url = f"http://127.0.0.1:{free_port()}"
    serve = [sys.executable, "-m", "tests.bench.journal", "serve", url.rpartition(":")[2], str(folder)]
    with process(serve, url, os.environ) as pid:
        yield Server(pid, _found_at(url))


def _found_at(url: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


class PrefectServer(Server):
    """A running Prefect server."""

    def settled_cpu_s(self) -> float:
        """The same, once it has worked off what it was given."""
        before = self.cpu_s()
        while True:
            time.sleep(_SETTLED_S)
            now = self.cpu_s()
            if now - before < _SETTLED_S / 10:
                return now
            before = now


def _cpu_s(pid: int) -> float:
    facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (int(facts[11]) + int(facts[12])) / os.sysconf("SC_CLK_TCK") + sum(_cpu_s(int(child)) for child in children)


@contextmanager
def prefect_server(home: Path) -> Generator[PrefectServer]:
    """A Prefect server on SQLite."""
    port = free_port()
    environment = os.environ | {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "HAPPYHORSE_HOME": str(home / "happyhorse"),
    }
    serve = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    with process(serve, f"http://127.0.0.1:{port}/api/health", environment) as pid:
        yield PrefectServer(pid, environment)
