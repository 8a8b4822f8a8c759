"""How the commands speak and end: their messages, their exit codes, and their width."""

from __future__ import annotations

import asyncio
import math
import signal
import sys
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar, cast

import click

from prefect_happyhorse.domain.errors import CatalogError, GenerationError, InvalidRequest, Money
from prefect_happyhorse.domain.texts import harmless, without_queries

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "REFUSED",
    "SPENT",
    "Seconds",
    "asynchronous",
    "cell",
    "confirm",
    "console",
    "deadline_option",
    "echo",
    "echo_json",
    "errors",
    "fail",
    "interruptible",
    "json_option",
    "print_json",
]

_P = ParamSpec("_P")
_Command = TypeVar("_Command", bound=Callable[..., Any])

REFUSED = 2
SPENT = 3
_WAKE_S = 0.1


class Seconds(click.FloatRange):
    """A number of seconds from 0: neither infinite nor none at all, which every comparison with a limit lets through."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number, or what is wrong with it."""
        found = float(super().convert(value, param, ctx))
        if not math.isfinite(found):
            self.fail(f"must be a finite number (got {value!r})", param, ctx)
        return found


def deadline_option(what: str) -> Callable[[_Command], _Command]:
    """The option that limits how long a job may take."""
    from prefect_happyhorse.domain.jobs import DEADLINE_S

    return click.option("--deadline", "deadline_s", default=DEADLINE_S, show_default=True, type=Seconds(min=0), help=what)


def json_option(what: str = "Print one JSON document, as `happyhorse schema` describes it.", **how: Any) -> Callable[[_Command], _Command]:
    """The option for whoever reads the output by a program."""
    return click.option("--json", "as_json", is_flag=True, help=what, **how)


@contextmanager
def errors() -> Generator[None]:
    """Turn what a command may raise into a message without a traceback, and the exit code that it stands for."""
    # Help and suggestions need neither, and come at once.
    import httpx
    from pydantic import ValidationError

    from prefect_happyhorse.domain.validation import validation_problems

    try:
        yield
    except BrokenPipeError:
        raise  # Whoever read the output has gone: click ends without a word.
    except GenerationError as error:
        spent = error.money in {Money.SPENT, Money.MAY_BE_SPENT}
        fail(f"{type(error).__name__}: {error}", SPENT if spent else REFUSED if isinstance(error, InvalidRequest) else 1)
    except httpx.HTTPError as error:
        # Gateways' and stores' own are translated below: this one is of Prefect's client.
        fail(f"The Prefect server cannot be asked: {type(error).__name__}: {error}. Look at PREFECT_API_URL.", 1)
    except ValidationError as error:
        fail("\n".join(validation_problems(error)), 1)
    except (CatalogError, ValueError, OSError, ImportError) as error:
        # An import that fails is of an extra that is not installed, whose message says which.
        fail(f"{error}", 1)


def asynchronous(command: Callable[_P, Coroutine[Any, Any, None]]) -> Callable[_P, None]:
    """A command that is written as a coroutine, as click calls it; what it may raise ends it as with `errors`."""

    @wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        with errors():
            asyncio.run(command(*args, **kwargs))

    return run


def fail(message: str, code: int) -> NoReturn:
    """End the command."""
    echo(message, err=True)
    sys.exit(code)


def echo(text: str, *, err: bool = False) -> None:
    """Print a text, in which a provider's or a stranger's words may not move the terminal."""
    click.echo(harmless(text), err=err)


def echo_json(text: str) -> None:
    """Print JSON with addresses that nobody can open by it: their queries hold signatures."""
    click.echo(without_queries(harmless(text, in_json=True)))


def print_json(value: object) -> None:
    """Print a document of `happyhorse schema` as a line, without what is not set."""
    from pydantic_core import to_json

    if isinstance(value, dict):
        value = {name: one for name, one in cast("dict[str, Any]", value).items() if one is not None}
    echo_json(to_json(value, exclude_none=True).decode())


def confirm(question: str) -> None:
    """Ask, and end the command unless the answer is yes."""
    with interruptible():
        click.confirm(harmless(question), abort=True, err=True)


@contextmanager
def interruptible() -> Generator[None]:
    """Let Ctrl-C end a question: asyncio would only take note of the first, and wait for the answer."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with _wakened():
            yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _wakened() -> Generator[None]:
    """Interrupt reads now and then: a signal that comes just before one is only looked at when another interrupts it."""
    if not hasattr(signal, "setitimer"):
        yield  # Windows reads from its console in another way.
        return
    before = signal.signal(signal.SIGALRM, _do_nothing)
    timer = signal.setitimer(signal.ITIMER_REAL, _WAKE_S, _WAKE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, before)


def _do_nothing(signum: int, frame: object) -> None:
    del signum, frame


def cell(text: str) -> str:
    """A text as it stands in a table or a progress bar: neither a control of the terminal nor markup."""
    from rich.markup import escape

    return escape(harmless(text))


def console(*, stderr: bool = False) -> Console:
    """Where tables and progress go."""
    from rich.console import Console

    # A pipe or a log file has no width; the usual 80 would cut the tables.
    return Console(stderr=stderr, width=None if sys.stdout.isatty() else 200, highlight=False)
