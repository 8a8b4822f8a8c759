"""Buyers and commands as processes, each on a machine of its own as far as it can tell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Buyer", "Ended", "buy", "command"]

_HERE = Path(__file__).parent


class Ended(NamedTuple):
    """How a process ended."""

    code: int
    out: str
    err: str

    @property
    def made(self) -> list[list[str]]:
        """Task id, address and hash of each picture of a buyer that made them all."""
        assert self.code == 0, self.err
        return json.loads(self.out)


def _as_machine(machine: str | None, *program: str) -> list[str]:
    return [sys.executable, *([] if machine is None else [str(_HERE / "machine.py"), machine]), *program]


class Buyer:
    """A process that makes a few pictures once it is told to.

    Args:
        running: Ends it.
        folder: Where it works.
        number: What tells it from others here.
        machine: The name of the machine that it takes for its own, where leases live for seconds; None for this one and its leases.
    """

    def __init__(self, running: ExitStack, folder: Path, number: int = 0, *, machine: str | None = None) -> None:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self._scratch = str(folder / f"machine-{number}")
        self._process = subprocess.Popen(_as_machine(machine, str(_HERE / "buyer.py")), cwd=folder, **pipes)
        running.enter_context(self._process)
        running.callback(self._process.kill)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def tell(self, said: dict[str, Any]) -> None:
        """Say what to buy, and let it begin."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(said | {"scratch": self._scratch}) + "\n")
        self._process.stdin.flush()

    def stop(self) -> None:
        """Let it stand still, as a laptop does whose lid is shut."""
        self._process.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(self._process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)

    def wake(self) -> None:
        """Let it go on, as if nothing had been."""
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> Ended:
        """Wait for its end."""
        out, err = self._process.communicate(timeout=180)
        return Ended(self._process.returncode, out, err)


def buy(said: dict[str, Any], folder: Path, processes: int) -> list[Ended]:
    """Run so many buyers, all at the same moment."""
    with ExitStack() as running:
        buyers = [Buyer(running, folder, number) for number in range(processes)]
        for buyer in buyers:
            buyer.tell(said)
        return [buyer.end() for buyer in buyers]


def command(*arguments: str, machine: str | None = None) -> Ended:
    """Run `happyhorse jobs`."""
    line = _as_machine(machine, "-m", "prefect_happyhorse.cli", "jobs", *arguments)
    done = subprocess.run(line, capture_output=True, text=True, timeout=180, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)
