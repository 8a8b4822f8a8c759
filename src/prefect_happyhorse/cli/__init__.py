"""The command `happyhorse`."""

from __future__ import annotations

from prefect_happyhorse.cli.commands import main

__all__ = ["main"]
