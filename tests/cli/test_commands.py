"""The command line: what it sends, what it makes, and how it ends."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress
from tests.cli.commands import request_file, run
from tests.cli.test_json import valid

from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.sandbox import SandboxServer

pytestmark = pytest.mark.usefixtures("no_environment")


@pytest.mark.parametrize(
    "command", [(), ("demo",), ("doctor",), ("init",), ("models",), ("preview",), ("generate",), ("sandbox",), ("settings",)]
)
def test_every_command_says_what_it_is_for(command: tuple[str, ...]) -> None:
    """--help ends well and shows the options."""
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_generate_prints_where_the_file_lies(at_sandbox: SandboxServer, tmp_path: Path) -> None:
    """One path on standard output; a second run prints the same and buys nothing; the key is nowhere."""
    path = request_file(tmp_path)
    first, second = (run("generate", path, "--gateway", "happyhorse", "--output", str(tmp_path / "out")) for _ in range(2))
    assert (first.exit_code, second.exit_code) == (0, 0), first.output
    (file,) = first.stdout.splitlines()
    assert Path(file).stat().st_size > 0
    assert second.stdout == first.stdout
    assert first.stderr == second.stderr == ""
    assert len(at_sandbox.ledger()) == 1
    assert "sesame" not in first.output + second.output


def test_the_last_that_is_said_on_a_terminal_is_that_it_is_kept(
    at_sandbox: SandboxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bar stays above the path, and must not go on saying that the file is fetched."""
    said: list[str] = []

    def update(bar: Progress, task: object, **fields: Any) -> None:
        said.append(fields.get("said", ""))

    monkeypatch.setattr(Progress, "update", update)
    assert run("generate", request_file(tmp_path), "--gateway", "happyhorse", "--output", str(tmp_path / "out")).exit_code == 0
    assert said[-2:] == ["downloading", "kept"]


def test_generate_asks_the_next_gateway(at_sandbox: SandboxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first certainly bought nothing, which is said; a second run in another order prints the same file and buys nothing."""
    for gateway in ("infiflow", "uniall"):
        monkeypatch.setenv(f"{gateway.upper()}_BASE_URL", at_sandbox.base_url(gateway))
        monkeypatch.setenv(f"{gateway.upper()}_API_KEY", "sesame-1234")
    monkeypatch.setenv("HAPPYHORSE_HOME", str(tmp_path / "home"))
    ride: dict[str, Any] = {"capability": "reference_to_video", "model": "happyhorse-1.0-r2v", "references": ["https://example.com/a.png"]}
    path = request_file(tmp_path, **ride, prompt="It runs", resolution="720p", aspect_ratio="16:9", duration=5)
    at_sandbox.fault(at="submit", kind="quota", gateway="infiflow")
    where = ("--output", str(tmp_path / "out"))
    first = run("generate", path, "--gateway", "infiflow", "--gateway", "uniall", *where)
    assert first.exit_code == 0, first.output
    assert "infiflow (account 'sandbox') did not take the request, and certainly nothing was bought there" in first.stderr
    assert run("generate", path, "--gateway", "uniall", "--gateway", "infiflow", *where).stdout == first.stdout
    assert [entry.gateway for entry in at_sandbox.ledger()] == ["uniall"]
    twice = run("generate", path, "--gateway", "uniall", "--gateway", "uniall", *where)
    assert (twice.exit_code, "may stand in a pool once" in twice.output) == (2, True)


@pytest.mark.parametrize(
    ("kind", "code", "told"),
    [("drop_after", 3, "resubmit"), ("unauthorized", 1, "GatewayCredentials"), ("refuse", 2, "Change the request")],
)
def test_the_exit_code_says_whether_money_was_spent(at_sandbox: SandboxServer, tmp_path: Path, kind: str, code: int, told: str) -> None:
    """3 when it may have been, with the way out; else 1 or 2."""
    at_sandbox.fault(at="submit", kind=kind, times=None)
    result = run("generate", request_file(tmp_path), "--gateway", "happyhorse", "--output", str(tmp_path / "out"))
    assert (result.exit_code, told in result.output, "Traceback" in result.output) == (code, True, False), result.output


def test_a_store_that_is_full_once_the_job_is_paid_for_says_which_job_it_is(
    at_sandbox: SandboxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And how it is gone on with."""

    async def full(self: Store, *_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_all", full)
        result = run("generate", request_file(tmp_path), "--gateway", "happyhorse", "--output", str(tmp_path / "outputs"))
    (charge,) = at_sandbox.ledger()
    assert result.exit_code == 3
    assert "No space left on device" in result.stderr
    assert charge.task_id in result.stderr
    assert "happyhorse jobs resume " in result.stderr
    assert run("jobs", "resume").exit_code == 0


@pytest.mark.parametrize("during", ["submit", "poll"])
def test_an_interrupted_command_says_which_job_is_paid_for(at_sandbox: SandboxServer, tmp_path: Path, during: str) -> None:
    """Ctrl-C while the submit is answered, and while the job is waited for."""
    at_sandbox.settings(job_s=600)
    if during == "submit":
        at_sandbox.fault(at="submit", kind="stall_after", seconds=3, times=1)
    out = str(tmp_path / "outputs")
    command = [
        sys.executable,
        "-m",
        "prefect_happyhorse.cli",
        "generate",
        request_file(tmp_path),
        "--gateway",
        "happyhorse",
        "--output",
        out,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        deadline = time.monotonic() + 60
        while not (charges := at_sandbox.ledger()) or (during == "poll" and not charges[0].polls):
            assert time.monotonic() < deadline
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
    (charge,) = at_sandbox.ledger()
    assert running.returncode == 3, said
    assert f"Interrupted while waiting for job {charge.task_id} of happyhorse, which is paid for." in said
    assert f"happyhorse jobs --store file://{out} show " in said


def test_without_a_key_the_variable_is_named(tmp_path: Path) -> None:
    """And nothing is made: it is refused."""
    result = run("generate", request_file(tmp_path), "--gateway", "happyhorse", "--output", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert "HAPPYHORSE_API_KEY" in result.output


def test_a_wrong_environment_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a link to the validator's manual, and without what the address holds."""
    monkeypatch.setenv("HAPPYHORSE_API_KEY", "sesame-1234")
    path, out = request_file(tmp_path), str(tmp_path / "out")
    for url, told in (("http://example.com", "must be https"), ("https://user:S3KRET@example.com", "a key belongs into api_key")):
        monkeypatch.setenv("HAPPYHORSE_BASE_URL", url)
        result = run("generate", path, "--gateway", "happyhorse", "--output", out)
        assert (result.exit_code, told in result.stderr, "Nothing was sent" in result.stderr) == (2, True, True), result.stderr
        assert not any(word in result.stderr for word in ("pydantic", "S3KRET", "sesame"))
    monkeypatch.setenv("HAPPYHORSE_PRICES", str(tmp_path / "none.toml"))
    monkeypatch.setenv("HAPPYHORSE_BASE_URL", "https://example.com")
    assert run("generate", path, "--gateway", "happyhorse", "--output", out).exit_code == 2


@pytest.mark.parametrize("deadline", ["-5", "nan", "inf"])
def test_a_deadline_that_is_none_is_refused_before_anything_is_bought(deadline: str, at_sandbox: SandboxServer, tmp_path: Path) -> None:
    """It has to be a finite number of seconds."""
    path, out = request_file(tmp_path), str(tmp_path / "out")
    assert run("generate", path, "--gateway", "happyhorse", "--output", out, "--deadline", deadline).exit_code == 2
    assert at_sandbox.ledger() == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("sandbox", "--port", "99999"),
        ("sandbox", "--job-s", "nan"),
        ("jobs", "list", "--older-than", "9999999999d"),
        ("jobs", "list", "--younger-than", "99999999999999999s"),
        ("jobs", "resume", "--deadline", "nan"),
        ("setup", "limits", "--gateway", "ttapi", "--calls-per-s", "nan"),
    ],
)
def test_a_number_that_cannot_be_is_refused(arguments: tuple[str, ...]) -> None:
    """With the rule and the value, and without a traceback."""
    result = run(*arguments)
    assert (result.exit_code, arguments[-1] in result.stderr) == (2, True), result.output


@pytest.mark.parametrize("arguments", [("jobs", "--block", "x", "list"), ("setup", "limits", "--gateway", "ttapi")])
def test_a_prefect_server_that_is_not_there_is_told(arguments: tuple[str, ...]) -> None:
    """As one sentence."""
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    # Nobody listens at a port that was just free.
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api", PREFECT_CLIENT_MAX_RETRIES: 0}):
        result = run(*arguments)
    assert result.exit_code == 1
    told = f"http://127.0.0.1:{port}/api does not answer: ConnectError: All connection attempts failed."
    assert result.stderr == f"{told} Start it (prefect server start), or correct PREFECT_API_URL.\n"


def answer_of(url: str) -> object:
    """What a server answers once it listens, which it cannot say beforehand."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return json.load(answer)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_the_sandbox_serves_until_it_is_stopped() -> None:
    """It says how to point a gateway at it, and answers there."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    command = [sys.executable, "-m", "prefect_happyhorse.cli", "sandbox", "--port", str(port), "--job-s", "0", "--media", "tiny"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}) as running:
        assert running.stdout is not None
        said = ""
        while f"http://127.0.0.1:{port}/_sandbox/" not in said:
            line = running.stdout.readline()
            assert line, said
            said += line
        try:
            assert answer_of(f"http://127.0.0.1:{port}/_sandbox/ledger") == []
        finally:
            running.send_signal(signal.SIGTERM)
            running.wait(30)
    assert "export TTAPI_BASE_URL=" in said


@pytest.mark.parametrize("is_sandbox", [True, False])
def test_a_sandbox_whose_port_is_taken_says_by_whom(is_sandbox: bool) -> None:
    """In a line, and nothing is promised before."""
    with SandboxServer() if is_sandbox else socket.create_server(("127.0.0.1", 0)) as other:
        port = int(other.url.rpartition(":")[2]) if isinstance(other, SandboxServer) else other.getsockname()[1]
        told = run("sandbox", "--port", str(port))
    who = f"another sandbox: http://127.0.0.1:{port}/_sandbox/" if is_sandbox else "another program"
    assert (told.exit_code, told.stdout, told.stderr) == (1, "", f"Port {port} is in use by {who}. Give another --port.\n")


def test_the_demo_makes_three_files(tmp_path: Path) -> None:
    """As a new user runs it: step by step, a table at the end, three files in its own folder, three charges; what was made as JSON."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "HAPPYHORSE_"))}
    environment |= {"PREFECT_HOME": str(tmp_path / "prefect"), "PATH": "/usr/bin:/bin", "HAPPYHORSE_STORE": str(tmp_path / "mine")}
    command = [sys.executable, "-m", "prefect_happyhorse.cli", "demo", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "charged 3 jobs" in done.stderr
    (made,) = valid("demo", done.stdout)
    assert (made["charged"], [*made["assets"]]) == (3, ["image", "video", "edit"])
    rows = [line for line in done.stderr.splitlines() if line.startswith("│")]
    assert [row.split("│")[1].strip() for row in rows] == ["image", "video", "edit"]
    for row in rows:
        assert tmp_path.joinpath(row.split("│")[5].strip()).stat().st_size > 1000
    assert done.stderr.count("kept at demo/") == 3
    assert not (tmp_path / "outputs").exists()
    assert not (tmp_path / "mine").exists()
    assert "%" in done.stderr
    command = done.stderr.splitlines()[-1]
    shown = subprocess.run(f"{command} --help", shell=True, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)  # noqa: S602 -- as printed
    assert shown.returncode == 0, command + shown.stderr
