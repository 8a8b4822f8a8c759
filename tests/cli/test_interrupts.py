"""What Ctrl-C does at a question on a real terminal."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Generator
from contextlib import redirect_stderr
from pathlib import Path
from typing import IO

import click
import pytest

from prefect_happyhorse.cli.output import confirm

_PATIENCE_S = 60
# A new session takes the terminal that it opens first as its own, whose Ctrl-C it then hears.
_IN_A_SESSION = """
import os, sys
os.close(os.open(sys.argv.pop(1), os.O_RDWR))
from prefect_happyhorse.cli import main
main()
"""


class Terminal:
    """A pseudo-terminal, and what was shown on it."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        self.shown = ""

    def read_until(self, text: str) -> None:
        while text not in self.shown.replace("\r\n", ""):
            ready, _, _ = select.select([self.master], [], [], _PATIENCE_S)
            assert ready, self.shown
            self.shown += os.read(self.master, 4096).decode()

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def open(self, mode: str) -> IO[str]:
        return os.fdopen(os.dup(self.slave), mode)


@pytest.fixture
def terminal() -> Generator[Terminal]:
    opened = Terminal()
    yield opened
    os.close(opened.master)
    os.close(opened.slave)


QUESTIONS = {"Gateway (": "ttapi\n", "(it is not shown)": "sesame-1234\n", "Store: ": "outputs\n", "Save as": "env\n", "Go on?": ""}


@pytest.mark.parametrize("at", ["Gateway (", "(it is not shown)", "Go on?"])
def test_ctrl_c_at_a_question_of_init(at: str, terminal: Terminal, tmp_path: Path) -> None:
    """Ends it at once, with the terminal as it was and nothing written."""
    before = termios.tcgetattr(terminal.slave)
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "HAPPYHORSE_"))}
    started = subprocess.Popen(
        [sys.executable, "-c", _IN_A_SESSION, os.ttyname(terminal.slave), "init"],
        stdin=terminal.slave,
        stdout=terminal.slave,
        stderr=terminal.slave,
        start_new_session=True,
        cwd=tmp_path,
        env=outer | {"PREFECT_HOME": str(tmp_path / ".prefect")},
    )
    try:
        for question, answer in QUESTIONS.items():
            terminal.read_until(question)
            if question == at:
                break
            terminal.type(answer)
        terminal.type("\x03")
        terminal.read_until("Aborted!")
        assert started.wait(_PATIENCE_S) == 1
    finally:
        started.kill()
        started.wait()
    assert termios.tcgetattr(terminal.slave) == before
    assert not (tmp_path / ".env").exists()
    assert not (tmp_path / "outputs").exists()


def test_ctrl_c_just_before_the_answer_is_read(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends it too, though the signal itself interrupts no read."""
    ended = threading.Event()
    needed_an_answer: list[bool] = []

    def press() -> None:
        terminal.read_until("Go on?")
        # A signal to another thread is noted as one before the read, which goes on.
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        if not ended.wait(_PATIENCE_S):
            needed_an_answer.append(True)
            terminal.type("y\n")

    with terminal.open("r") as stdin, terminal.open("w") as stderr:
        monkeypatch.setattr("sys.stdin", stdin)
        presses = threading.Thread(target=press)
        presses.start()
        with redirect_stderr(stderr), pytest.raises(click.Abort):
            confirm("Go on?")
        ended.set()
        presses.join()
    assert not needed_an_answer
    assert signal.getitimer(signal.ITIMER_REAL)[1] == 0
