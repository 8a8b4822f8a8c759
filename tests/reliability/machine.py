"""Runs a program as on another machine, where leases live for seconds: `machine.py NAME FILE ARGUMENT...`, or `-m MODULE` for FILE."""

from __future__ import annotations

import runpy
import sys

from prefect_happyhorse.engine.journal import owner

SHARE = 1 / 50

if __name__ == "__main__":
    name, *program = sys.argv[1:]
    # Before anything imports them from there.
    assert "prefect_happyhorse.engine.journal.lease" not in sys.modules
    for constant in ("HEARTBEAT_S", "SENDING_TTL_S", "LEASE_TTL_S"):
        setattr(owner, constant, getattr(owner, constant) * SHARE)
    owner._machine = lambda: name  # type: ignore[assignment]
    if program[0] == "-m":
        sys.argv = program[1:]
        runpy.run_module(program[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = program
        runpy.run_path(program[0], run_name="__main__")
