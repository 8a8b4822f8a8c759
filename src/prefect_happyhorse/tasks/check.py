"""The caller's own check of what was made, and the further takes that may be bought where it says no."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from traceback import format_exception_only
from typing import NamedTuple, TypeVar

from anyio import CapacityLimiter, to_thread

from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.errors import CheckFailed, GenerationError, error_context
from prefect_happyhorse.domain.prices import total
from prefect_happyhorse.domain.texts import harmless
from prefect_happyhorse.runtime.log import run_logger

__all__ = ["Check", "Verdict", "checked"]

_LONGEST_REASON = 200

_Made = TypeVar("_Made", MediaAsset, "MediaAsset | None")

Verdict = bool | str | None
"""What a check says: True or None where an asset passes, False or the reason where it does not."""

Check = Callable[[MediaAsset], Verdict | Awaitable[Verdict]]
"""Looks at an asset; an ordinary function is called in a thread."""


class _Refused(NamedTuple):
    """A take that is kept and did not pass."""

    take: int
    asset: MediaAsset
    reason: str

    def __str__(self) -> str:
        return f"take {self.take}, kept at {self.asset.uri}: {self.reason}"


async def checked(make: Callable[[int], Awaitable[_Made]], check: Check | None, *, take: int, max_takes: int) -> _Made:
    """The first take that passes a check, of those from `take` on; each is made only when all before it are kept and were refused.

    Args:
        make: Makes a take, or finds that it is made; None where it is not whole, and then the check is not asked.
        check: The check; None lets everything pass.
        take: The first take.
        max_takes: How many there may be.
    """
    refused: list[_Refused] = []
    for further in range(max_takes):
        # A first one that is no number is refused where it is made.
        number = take + further if further else take
        with _naming(refused):
            asset = await make(number)
            if asset is None or check is None or (reason := await _refusal(check, asset)) is None:
                return asset
        refused.append(_Refused(number, asset, reason))
        run_logger().warning("The check refused %s", refused[-1])
    raise _none_passed(refused)


async def _refusal(check: Check, asset: MediaAsset) -> str | None:
    """Why a check does not let an asset pass, or None where it does."""
    try:
        if inspect.iscoroutinefunction(check):
            said = check(asset)
        else:
            # Not one of the threads that all else of the process waits for: a check may take its time, until a time-out ends the run.
            said = await to_thread.run_sync(_asked, check, asset, limiter=CapacityLimiter(1), abandon_on_cancel=True)
        verdict = await said if inspect.isawaitable(said) else said
        if verdict is None or isinstance(verdict, bool):
            return "the check said False" if verdict is False else None
        if isinstance(verdict, str) and verdict:  # pyright: ignore[reportUnnecessaryIsInstance] -- callers are untyped
            return harmless(verdict[:_LONGEST_REASON])
        raise TypeError(f"a check must return True, False, None or a reason (got {verdict!r})")
    except Exception as error:
        with error_context(asset.job):
            raise CheckFailed(
                f"The check itself failed: {_said(error)}. The asset is kept at {asset.uri}.",
                assets=(asset,),
                advice="Repair the check and run the same request again: what is kept is not bought anew.",
            ) from error
    raise AssertionError("unreachable: the check said something or failed")


def _asked(check: Check, asset: MediaAsset) -> Verdict | Awaitable[Verdict]:
    try:
        return check(asset)
    except (SystemExit, GeneratorExit, asyncio.CancelledError) as error:
        # In a thread it ends nothing; out of it it would end all other rows.
        raise RuntimeError(f"it raised {type(error).__name__}") from error


def _said(error: Exception) -> str:
    # One that cannot even be shown is told as such.
    return harmless("".join(format_exception_only(type(error), error)).strip()[:_LONGEST_REASON])


@contextmanager
def _naming(refused: Sequence[_Refused]) -> Generator[None]:
    """Name the takes before in an error that ends the next one."""
    try:
        yield
    except GenerationError as error:
        if refused:
            kept = f"Refused by the check before: {'; '.join(map(str, refused))}."
            error.advice = f"{error.advice} {kept}" if error.advice else kept
            if isinstance(error, CheckFailed):
                error.assets = (*(one.asset for one in refused), *error.assets)
        raise


def _none_passed(refused: Sequence[_Refused]) -> CheckFailed:
    takes = "The take did not pass" if len(refused) == 1 else f"None of {len(refused)} takes passed"
    job = refused[-1].asset.job
    return CheckFailed(
        f"{takes} the check: {'; '.join(map(str, refused))}. Estimated cost in all: {total(one.asset.estimate for one in refused)}.",
        assets=tuple(one.asset for one in refused),
        advice="The files stay, and the same call buys none of them anew. A larger max_takes buys another take.",
        **({} if job is None else {name: getattr(job, name) for name in ("gateway", "account", "model", "capability", "digest")}),
    )
