"""Which failures Prefect tries again, and how."""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from prefect_happyhorse.domain.errors import GenerationError

__all__ = ["RETRIES", "RETRY_DELAYS_S", "is_retryable"]

RETRIES = 3
RETRY_DELAYS_S = [10.0, 30.0, 90.0]


def is_retryable(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether the very same step may be tried again: only where that can buy nothing twice.

    A plain function, since Prefect 3.8 takes no other callable (`prefect.task_engine`, `can_retry`).

    Args:
        task: The task.
        task_run: Its run.
        state: The failed state; its data is the error.

    Returns:
        True for errors that say of themselves that they may be tried again, and for a store or network that failed as such.
    """
    error = state.data
    if isinstance(error, GenerationError):
        return error.retryable
    return isinstance(error, OSError) and not isinstance(error, (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError))
