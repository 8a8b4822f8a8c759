"""Every gateway of the catalog, emulated on one port: real sockets, real media, faults on demand, and a ledger of what was charged.

Nothing here is imported until it is asked for, so that `import prefect_happyhorse.sandbox` costs neither FastAPI nor Pillow nor PyAV.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect_happyhorse.sandbox.faults.rules import FaultRule
    from prefect_happyhorse.sandbox.http.server import SandboxServer, create_app, serve
    from prefect_happyhorse.sandbox.jobs.job import LedgerEntry
    from prefect_happyhorse.sandbox.jobs.settings import SandboxSettings

__all__ = ["FaultRule", "LedgerEntry", "SandboxServer", "SandboxSettings", "create_app", "serve"]

_HOMES = {
    "FaultRule": "faults.rules",
    "LedgerEntry": "jobs.job",
    "SandboxServer": "http.server",
    "SandboxSettings": "jobs.settings",
    "create_app": "http.server",
    "serve": "http.server",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
