"""Which failures Prefect tries again, and how."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task, TaskOptions
from typing_extensions import Unpack

from prefect_happyhorse.domain.errors import GenerationError
from prefect_happyhorse.tasks.dual import DualTask, dual_task

__all__ = ["is_retryable", "retried_task"]

P = ParamSpec("P")
T = TypeVar("T")


def retried_task(**options: Unpack[TaskOptions]) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], DualTask[P, T]]:
    """`dual_task` for a step that is tried again where that can buy nothing twice."""
    retries = TaskOptions(retries=3, retry_delay_seconds=[10.0, 30.0, 90.0], retry_condition_fn=is_retryable)
    return dual_task(**(retries | options))


def is_retryable(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether a step may be tried again: errors that say so of themselves, and a store or network that failed as such.

    A plain function, since Prefect 3.8 takes no other callable (`prefect.task_engine`, `can_retry`).
    """
    error = state.data
    if isinstance(error, GenerationError):
        return error.retryable
    return isinstance(error, OSError) and not isinstance(error, (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError))
