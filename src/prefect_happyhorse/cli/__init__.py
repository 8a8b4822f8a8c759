"""The command `happyhorse`."""

from prefect_happyhorse.cli.commands import main

__all__ = ["main"]
