"""What a person can do about a request that stands in the journal, in the words that every error uses."""

from __future__ import annotations

__all__ = ["rebuy", "repoll", "resolve_uncertain"]

_SHORT = 12


def repoll(digest: str) -> str:
    """How a job is asked for once more, which is free."""
    return f"Asking once more is free: run the same request again, or `happyhorse jobs resume {digest[:_SHORT]}`."


def rebuy(digest: str) -> str:
    """How the very same request can be bought once more."""
    return f"To buy it again give another `take`, or run `happyhorse jobs forget {digest[:_SHORT]}` first."


def resolve_uncertain(digest: str) -> str:
    """How an uncertain submit is settled."""
    short = digest[:_SHORT]
    return (
        f"Look for the job in the provider's console. If it is there, run `happyhorse jobs adopt TASK_ID {short}`; if it is not,"
        f' `happyhorse jobs forget {short}`. Then run again. on_uncertain="resubmit" submits by itself and may pay twice.'
    )
