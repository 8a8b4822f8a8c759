"""What a person can do about a request that stands in the journal, in the words that every error uses."""

from __future__ import annotations

import shlex

from prefect_happyhorse.engine.journal.entry import JournalEntry

__all__ = ["advice", "goes_on", "rebuy", "repoll", "resolve_uncertain"]

_SHORT = 12


def advice(entry: JournalEntry) -> str:
    """What can be done about an entry, whatever its state."""
    short = entry.digest[:_SHORT]
    if entry.job is None and entry.may_be_bought_again:
        return "Nothing is bought for it: the same request buys it."
    if entry.job is None:
        named = None if entry.failure is None else entry.failure.task_id
        return f"Nobody knows whether this submit was accepted. {resolve_uncertain(entry.digest, named)}"
    if entry.is_open:
        return f"It is paid for and no file is kept yet: `happyhorse jobs resume {short}`"
    if entry.asset is not None:
        return f"Kept at {entry.asset.uri}"
    if entry.may_be_bought_again:
        return "The gateway took it back before it began: the same request buys it again."
    return f"It ended without a result. The same request is not bought again until `happyhorse jobs forget {short}`, or with another take."


def goes_on(digest: str) -> str:
    """How a job that is paid for is gone on with."""
    return f"Nothing is bought anew: run the same request again, or `happyhorse jobs resume {digest[:_SHORT]}`."


def repoll(digest: str) -> str:
    """How a job is asked for once more, which is free."""
    return f"Asking once more is free: run the same request again, or `happyhorse jobs resume {digest[:_SHORT]}`."


def rebuy(digest: str) -> str:
    """How the very same request can be bought once more."""
    return f"To buy it again give another `take`, or run `happyhorse jobs forget {digest[:_SHORT]}` first."


def resolve_uncertain(digest: str, task_id: str | None = None) -> str:
    """How an uncertain submit is settled; the id is the provider's word, so that a shell must not read more than a word in it."""
    short = digest[:_SHORT]
    name = "TASK_ID" if task_id is None else shlex.quote(task_id)
    return (
        f"Look for the job in the provider's console. If it is there, run `happyhorse jobs adopt {name} {short}`; if it is not,"
        f' `happyhorse jobs forget {short}`. Then run again. on_uncertain="resubmit" submits by itself and may pay twice.'
    )
