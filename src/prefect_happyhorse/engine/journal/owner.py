"""The owner of a lease, and whether it is still at work."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import time
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from pydantic import AwareDatetime, Field

from prefect_happyhorse.domain.values import Value

__all__ = ["HEARTBEAT_S", "LEASE_TTL_S", "SENDING_TTL_S", "LeaseOwner", "up_s"]

HEARTBEAT_S = 30.0
"""How often the owner of a lease renews it."""

LEASE_TTL_S = 150.0
"""How long a lease lives without being renewed, as it is heard by who waits for it: five heartbeats."""

SENDING_TTL_S = 75.0
"""How long after its last renewal the owner may still send, so that the call is over before the lease expires for others."""

_RUN = uuid.uuid4().hex


def _now() -> datetime:
    return datetime.now(timezone.utc)


@lru_cache(maxsize=1)
def _machine() -> str:
    """What process ids count within: the boot of a machine and, in a container, its own numbering of processes."""
    parts = [socket.gethostname()]
    for source in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            parts.append(os.readlink(source) if source.endswith("/pid") else Path(source).read_text(encoding="ascii").strip())
        except OSError:
            # Not Linux: the host's name alone has to do.
            continue
    return " ".join(parts)


def up_s() -> float:
    """Seconds since this machine was started, which nobody sets; on Linux those of its sleep count."""
    boot_clock: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot_clock is None else time.clock_gettime(boot_clock)


def _boot(machine: str) -> str | None:
    """What names the boot of a machine, or None where nothing does."""
    found = re.search(r" ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?: |$)", machine)
    return None if found is None else found[1]


class _Process(NamedTuple):
    machine: str
    process: int
    run: str


def _this_process() -> _Process:
    return _Process(_machine(), os.getpid(), _RUN)


_SUBMITTING: dict[str, asyncio.AbstractEventLoop | None] = {}


class LeaseOwner(Value):
    """Who holds the lease of a request.

    Args:
        host: The machine's name, for people.
        machine: What the process id counts within.
        process: The process id.
        run: A name that no other process has, also when it gets the same id later.
        started: When the process was started, in the machine's own ticks; None where that is not known, as anywhere but on Linux.
        claim: A name that no other submit has.
        at: When the submit was begun.
        up_s: The same, in seconds since the machine was started; None where that was not written down.
    """

    host: str = Field(default_factory=socket.gethostname)
    machine: str = Field(default_factory=lambda: _this_process().machine)
    process: int = Field(default_factory=lambda: _this_process().process)
    run: str = Field(default_factory=lambda: _this_process().run)
    started: int | None = Field(default_factory=lambda facts: _started(facts["run"], facts["process"]))
    claim: str = Field(default_factory=lambda: uuid.uuid4().hex)
    at: AwareDatetime = Field(default_factory=_now)
    up_s: float | None = Field(default_factory=lambda facts: up_s() if _is_here(facts["run"], facts["process"]) else None)

    @contextmanager
    def submitting(self, loop: asyncio.AbstractEventLoop | None = None) -> Generator[None]:
        """Say to the other submits of this process that this one is at work, for as long as its event loop is not closed."""
        _SUBMITTING[self.claim] = loop
        try:
            yield
        finally:
            del _SUBMITTING[self.claim]

    @property
    def is_this_process(self) -> bool:
        """Whether this very process holds the lease; one that was forked from it has another id."""
        return _is_here(self.run, self.process)

    def age_s(self) -> float | None:
        """How long ago the submit was begun, in seconds, by no clock that can be set; None where this process cannot know it."""
        boot = _boot(self.machine)
        if self.up_s is None or not (self.is_this_process or (boot is not None and boot == _boot(_this_process().machine))):
            return None
        return max(0.0, up_s() - self.up_s)

    def lives(self) -> bool | None:
        """Whether the submit is still at work; None where it cannot be known, as of another machine's, or of another process on Windows."""
        if self.is_this_process:
            loop = _SUBMITTING.get(self.claim)
            return self.claim in _SUBMITTING and not (loop is not None and loop.is_closed())
        here = _this_process()
        if self.machine != here.machine:
            return None
        # A process of the same id as this one was an earlier one, as in a container that was started again.
        return False if self.process == here.process else _alive(self.process, self.started)

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


def _is_here(run: str, process: int) -> bool:
    here = _this_process()
    return (run, process) == (here.run, here.process)


def _started(run: str, process: int) -> int | None:
    """When a process was started, where it is this one: of another, as when an entry of an earlier version is read, it is not known."""
    return _own_start(process) if _is_here(run, process) else None


@lru_cache(maxsize=1)
def _own_start(process: int) -> int | None:
    seen = _seen(process)
    return None if seen is None else seen.started


def _alive(process: int, started: int | None) -> bool | None:
    if os.name == "nt":
        # There, signal 0 is no question but Ctrl-C, so only silence tells, as of another machine's process.
        return None
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        # It is another user's.
        pass
    if (seen := _seen(process)) is None:
        return True
    # One that ended and that its parent did not ask for, as in a container without an init, still has its id; another may have it by now.
    return not seen.ended and started in (None, seen.started)


class _Seen(NamedTuple):
    ended: bool
    started: int


def _seen(process: int) -> _Seen | None:
    """What Linux says of a process; None where nothing is said. See https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html."""
    try:
        # The second field is the command in parentheses, and may hold anything.
        state, *facts = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()
        return _Seen(state in {b"Z", b"X"}, int(facts[18]))
    except (OSError, ValueError, IndexError):
        return None
