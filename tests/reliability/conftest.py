"""The campaign: how far it goes, and the table of what was tried, charged and lost.

`CHAOS=full` goes all the way; otherwise a small part runs. `CHAOS_PAGE` names the page into which the table is written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from .work import Verdict

Recorder = Callable[..., None]


class Line(BaseModel):
    """One line of the table."""

    tried: str
    runs: int
    jobs: int
    charges: int
    double: int
    lost: int
    corrupt: int
    test: str


LINES: list[Line] = []
BEGIN, END = "<!-- campaign: begin (written by `make chaos`) -->\n", "<!-- campaign: end -->"


@pytest.fixture(scope="session")
def full() -> bool:
    """Whether the whole campaign runs."""
    return os.environ.get("CHAOS") == "full"


@pytest.fixture(scope="session")
def bucket() -> Iterator[dict[str, Any]]:
    """What opens a bucket of a server that speaks S3."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {"key": "x", "secret": "y", "client_kwargs": {"endpoint_url": f"http://{host}:{port}", "region_name": "us-east-1"}}
    boto3.client("s3", aws_access_key_id="x", aws_secret_access_key="y", **options["client_kwargs"]).create_bucket(Bucket="stack")
    yield options
    server.stop()


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Recorder:
    """Takes a line of the table, and fails the test if something was paid for twice, lost or spoilt."""

    def take(tried: str, verdict: Verdict, *, runs: int) -> None:
        path, _, name = request.node.nodeid.partition("::")
        test = f"{Path(path).stem}::{name.partition('[')[0]}"
        LINES.append(Line(tried=tried, runs=runs, test=test, **vars(verdict)))
        assert (verdict.double, verdict.lost, verdict.corrupt) == (0, 0, 0)
        assert verdict.charges == verdict.jobs

    return take


def _table() -> str:
    columns = ("tried", "runs", "jobs", "charges", "paid twice", "lost", "corrupt", "test")
    rows = [(line.tried, line.runs, line.jobs, line.charges, line.double, line.lost, line.corrupt, f"`{line.test}`") for line in LINES]
    sums = ("all", *(sum(int(row[number]) for row in rows) for number in range(1, 7)), "")
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in (columns, ["---"] * len(columns), *rows, sums))


@pytest.fixture(scope="session", autouse=True)
def _page() -> Iterator[None]:
    yield
    if not LINES:
        return
    table = _table()
    if page := os.environ.get("CHAOS_PAGE"):
        file = Path(page)
        before, _, rest = file.read_text(encoding="utf-8").partition(BEGIN)
        file.write_text(f"{before}{BEGIN}{table}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table."""
    if LINES:
        terminalreporter.section("what was tried, charged and lost")
        terminalreporter.write_line(_table())
