"""How the commands speak and end: their messages, their exit codes, and their width."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import NoReturn

import click
from rich.console import Console

from prefect_happyhorse.domain.errors import CatalogError, GenerationError, InvalidRequest, Money

__all__ = ["REFUSED", "SPENT", "console", "errors", "fail"]

REFUSED = 2
SPENT = 3


@contextmanager
def errors() -> Generator[None]:
    """Turn what a command may raise into a message without a traceback, and the exit code that it stands for."""
    try:
        yield
    except GenerationError as error:
        spent = error.money in {Money.SPENT, Money.MAY_BE_SPENT}
        fail(f"{type(error).__name__}: {error}", SPENT if spent else REFUSED if isinstance(error, InvalidRequest) else 1)
    except (CatalogError, ValueError, OSError) as error:
        fail(f"{error}", 1)


def fail(message: str, code: int) -> NoReturn:
    """End the command."""
    click.echo(message, err=True)
    sys.exit(code)


def console(*, stderr: bool = False) -> Console:
    """Where tables and progress go."""
    # A pipe or a log file has no width; the usual 80 would cut the tables.
    return Console(stderr=stderr, width=None if sys.stdout.isatty() else 200, highlight=False)
