"""`happyhorse gallery`: a process that serves this machine until it is interrupted, and says why it does not."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from click.testing import CliRunner, Result
from tests.gallery.entries import kept, place

from prefect_happyhorse.cli import main

HAPPYHORSE = [sys.executable, "-m", "prefect_happyhorse.cli"]


@contextmanager
def serving(folder: Path, warned: str = "") -> Iterator[str]:
    """A gallery in a process of its own; its address. All that it may complain of is what it warns of."""
    command = [*HAPPYHORSE, "gallery", "--store", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            said = process.stdout.readline()
            yield re.findall(r"http://127\.0\.0\.1:[0-9]+/", said)[0]
        finally:
            process.send_signal(signal.SIGINT)
            _, complained = process.communicate(timeout=60)
    assert (process.returncode, complained.partition(" in ")[0].strip()) == (0, warned)


def gallery(folder: Path, port: int) -> Result:
    return CliRunner().invoke(main, ["gallery", "--store", str(folder), "--port", str(port)])


def test_it_serves_until_it_is_interrupted(folder: Path) -> None:
    """On this machine's own address alone; an interrupt ends it without a word."""
    place(folder, kept(folder, 1))
    with serving(folder) as address:
        with httpx.Client(base_url=address) as client:
            assert client.get("/api/gallery").json() == {"gallery": f"file://{folder}"}
            assert "server" not in client.get("/").headers
            assert client.get("/api/jobs").json()["rows"][0]["prompt"] == "A horse"
        port = int(address.rstrip("/").rpartition(":")[2])
        listening = Path("/proc/net/tcp").read_text() if sys.platform == "linux" else f"0100007F:{port:04X}"
        assert f"0100007F:{port:04X}" in listening
        assert f"00000000:{port:04X} 00000000:0000 0A" not in listening


def test_a_second_gallery_on_a_port_names_the_first(folder: Path, tmp_path: Path) -> None:
    """And the way out."""
    place(folder, kept(folder, 1))
    with serving(folder) as address:
        port = int(address.rstrip("/").rpartition(":")[2])
        refused = gallery(tmp_path / "other", port)
    assert (refused.exit_code, refused.stderr.splitlines(keepends=True)[-1]) == (
        1,
        f"Port {port} is in use by the gallery of file://{folder}: {address}. Give another --port, or --port 0 for a free one.\n",
    )


def test_another_program_on_the_port_is_said_to_be_one(folder: Path) -> None:
    """Whether it answers nonsense or hangs up at once."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(60)
        port = other.getsockname()[1]
        with subprocess.Popen(
            [*HAPPYHORSE, "gallery", "--store", str(folder), "--port", str(port)], stderr=subprocess.PIPE, text=True
        ) as process:
            connection, _ = other.accept()
            connection.close()
            _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert (
        said.splitlines(keepends=True)[-1]
        == f"Port {port} is in use by another program. Give another --port, or --port 0 for a free one.\n"
    )


def test_the_command_line_starts_without_it() -> None:
    """What only the gallery needs is imported when it is served."""
    code = "import sys, prefect_happyhorse.cli; print(*(name for name in ('starlette', 'uvicorn', 'prefect') if name in sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == ""
