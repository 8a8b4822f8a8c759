"""How the commands speak and end: their messages, their exit codes, and their width."""

from __future__ import annotations

import sys
from typing import NoReturn

import click
from rich.console import Console

from prefect_happyhorse.domain.errors import CatalogError, GenerationError, InvalidRequest

__all__ = ["REFUSED", "SPENT", "console", "errors", "fail"]

REFUSED = 2
SPENT = 3


class errors:  # noqa: N801 -- reads as a statement, as contextlib's own do
    """Turns what a command may raise into a message without a traceback, and the exit code that it stands for."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, GenerationError):
            spent = error.money in {"spent", "may be spent"}
            fail(f"{type(error).__name__}: {error}", SPENT if spent else REFUSED if isinstance(error, InvalidRequest) else 1)
        if isinstance(error, (CatalogError, ValueError, OSError)):
            fail(f"{error}", 1)


def fail(message: str, code: int) -> NoReturn:
    """End the command.

    Args:
        message: What happened.
        code: The exit code.
    """
    click.echo(message, err=True)
    sys.exit(code)


def console(*, stderr: bool = False) -> Console:
    """Where tables and progress go.

    Args:
        stderr: Whether that is standard error.
    """
    # A pipe or a log file has no width; the usual 80 would cut the tables.
    return Console(stderr=stderr, width=None if sys.stdout.isatty() else 200, highlight=False)
