"""Who set out to submit, and whether they can still be at it: what decides if a claim is respected."""

from __future__ import annotations

import os
import socket
import uuid
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path

from pydantic import Field

from prefect_happyhorse.domain.values import Value

__all__ = ["HEARTBEAT_S", "LEASE_TTL_S", "LeaseOwner"]

HEARTBEAT_S = 30.0
"""How often a claimant that is still at work says so."""

LEASE_TTL_S = 150.0
"""How long a claimant may be silent before it counts as gone: five heartbeats."""

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


class LeaseOwner(Value):
    """A process that set out to submit.

    Args:
        host: The machine's name, for people.
        machine: What the process id counts within.
        process: The process id.
        run: A name that no other process has, also when it gets the same id later.
        turn: 1, and one more each time that somebody takes over from a claimant that is gone.
        at: When it last said that it is at work.
    """

    host: str = Field(default_factory=socket.gethostname)
    machine: str = Field(default_factory=_machine)
    process: int = Field(default_factory=os.getpid)
    run: str = _RUN
    epoch: int = 1
    at: datetime = Field(default_factory=_now)

    def renewed(self) -> LeaseOwner:
        """The same claimant, at work now."""
        return self.model_copy(update={"at": _now()})

    def same(self, other: LeaseOwner) -> bool:
        """Whether another record is of this very claim."""
        return (self.run, self.epoch) == (other.run, other.epoch)

    def is_dead(self) -> bool:
        """Whether the process is known to have ended; it cannot be known of another machine's."""
        if self.machine != _machine() or self.run == _RUN:
            return False
        # A process of the same id as this one was an earlier one, as in a container that was started again.
        return self.process == os.getpid() or not _alive(self.process)

    def expired(self, now: datetime) -> bool:
        """Whether it can be taken that the claimant is no longer sending its submit."""
        return self.is_dead() or (now - self.at).total_seconds() > LEASE_TTL_S

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


def _alive(process: int) -> bool:
    if os.name == "nt":
        # There, signal 0 is no question but Ctrl-C.
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
