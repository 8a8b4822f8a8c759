"""The owner of a lease, and whether the lease has expired."""

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
"""How often the owner of a lease renews it."""

LEASE_TTL_S = 150.0
"""How long a lease lives without being renewed: five heartbeats."""

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
    """The process that holds the lease of a request.

    Args:
        host: The machine's name, for people.
        machine: What the process id counts within.
        process: The process id.
        run: A name that no other process has, also when it gets the same id later.
        epoch: The fencing token: 1, and one more each time that an expired lease is taken over.
        at: When the lease was last renewed.
    """

    host: str = Field(default_factory=socket.gethostname)
    machine: str = Field(default_factory=_machine)
    process: int = Field(default_factory=os.getpid)
    run: str = _RUN
    epoch: int = 1
    at: datetime = Field(default_factory=_now)

    def renewed(self) -> LeaseOwner:
        """The same owner, with the lease renewed now."""
        return self.model_copy(update={"at": _now()})

    def same(self, other: LeaseOwner) -> bool:
        """Whether another record is of this very lease."""
        return (self.run, self.epoch) == (other.run, other.epoch)

    def is_dead(self) -> bool:
        """Whether the process is known to have ended; it cannot be known of another machine's."""
        if self.machine != _machine() or self.run == _RUN:
            return False
        # A process of the same id as this one was an earlier one, as in a container that was started again.
        return self.process == os.getpid() or not _alive(self.process)

    def expired(self, now: datetime) -> bool:
        """Whether the lease has expired, so that its owner is taken to be no longer sending."""
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
