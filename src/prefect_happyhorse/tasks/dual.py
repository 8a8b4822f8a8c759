"""Tasks whose direct call gives a coroutine in async code and the result in sync code, so that one name serves both."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from copy import copy
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, cast, overload

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext, get_run_context
from prefect.exceptions import MissingContextError
from prefect.tasks import Task, TaskOptions
from prefect.utilities.asyncutils import run_coro_as_sync
from pydantic import BaseModel, SecretStr
from typing_extensions import Self, Unpack

from prefect_happyhorse.blocks import GatewayCredentials, MediaStore
from prefect_happyhorse.datasets.export import Export
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.errors import is_retryable
from prefect_happyhorse.domain.jobs import Job, JobResult, JobSnapshot
from prefect_happyhorse.domain.rows import RowResult
from prefect_happyhorse.engine.journal.entry import JournalEntry

__all__ = ["DualTask", "dual", "dual_task", "retried_task"]

P = ParamSpec("P")
T = TypeVar("T")

_END_WITHIN_S = 20.0

if TYPE_CHECKING:
    from prefect.futures import PrefectDistributedFuture, PrefectFuture, PrefectFutureList

    # No type depends on the flow around a call, and a union would have to be told apart in both worlds. So a call is typed as a result that
    # can be awaited too: both `generate(...).uri` and `(await generate(...)).uri` are checked, but not that one of them fits its flow.
    class _Job(Job, Coroutine[Any, Any, Job]): ...

    class _JobResult(JobResult, Coroutine[Any, Any, JobResult]): ...

    class _JobSnapshot(JobSnapshot, Coroutine[Any, Any, JobSnapshot]): ...

    class _MediaAsset(MediaAsset, Coroutine[Any, Any, MediaAsset]): ...

    class _Export(Export, Coroutine[Any, Any, Export]): ...

    class _RowResults(list[RowResult], Coroutine[Any, Any, list[RowResult]]): ...

    class _JournalEntries(list[JournalEntry], Coroutine[Any, Any, list[JournalEntry]]): ...


class DualTask(Task[P, Coroutine[Any, Any, T]]):
    """A task with an async body for async and sync callers."""

    # Whether every direct call waits, as those of the `_sync` names do, also where a loop runs.
    always_waits = False

    @overload
    def __call__(self: DualTask[P, Job], *args: P.args, **kwargs: P.kwargs) -> _Job: ...
    @overload
    def __call__(self: DualTask[P, JobResult], *args: P.args, **kwargs: P.kwargs) -> _JobResult: ...
    @overload
    def __call__(self: DualTask[P, JobSnapshot], *args: P.args, **kwargs: P.kwargs) -> _JobSnapshot: ...
    @overload
    def __call__(self: DualTask[P, MediaAsset], *args: P.args, **kwargs: P.kwargs) -> _MediaAsset: ...
    @overload
    def __call__(self: DualTask[P, list[JournalEntry]], *args: P.args, **kwargs: P.kwargs) -> _JournalEntries: ...
    @overload
    def __call__(self: DualTask[P, Export], *args: P.args, **kwargs: P.kwargs) -> _Export: ...
    @overload
    def __call__(self: DualTask[P, list[RowResult]], *args: P.args, **kwargs: P.kwargs) -> _RowResults: ...
    @overload
    def __call__(self, *args: Any, return_state: Literal[True], wait_for: Any = ..., **kwargs: Any) -> Any: ...
    @overload
    def __call__(self, *args: Any, wait_for: Any, **kwargs: Any) -> Any: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride] -- it is the sum of Prefect's two
        """A coroutine of the result in async code, the result in sync code; of its state with `return_state=True`."""
        args, kwargs = _drawn(args, kwargs)
        coroutine = cast("Callable[..., Coroutine[Any, Any, T]]", super().__call__)(*args, **kwargs)
        return wait_for(coroutine) if self.always_waits or not _in_async_context() else coroutine

    if TYPE_CHECKING:
        # Prefect's own overloads take the result of an async task's future for a coroutine.
        @overload
        def submit(self, *args: P.args, **kwargs: P.kwargs) -> PrefectFuture[T]: ...
        @overload
        def submit(self, *args: Any, wait_for: Any, **kwargs: Any) -> PrefectFuture[T]: ...
        def submit(self, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride] -- the future gives the result
            """As Prefect's."""

        def map(self, *args: Any, **kwargs: Any) -> PrefectFutureList[T]:  # pyright: ignore[reportIncompatibleMethodOverride] -- as above
            """As Prefect's."""
            ...

        def delay(self, *args: P.args, **kwargs: P.kwargs) -> PrefectDistributedFuture[T]:  # pyright: ignore[reportIncompatibleMethodOverride] -- as above
            """As Prefect's."""
            ...
    else:

        def apply_async(self, args: tuple[Any, ...] | None = None, kwargs: dict[str, Any] | None = None, **options: Any) -> Any:
            """As Prefect's, which writes the arguments down for whoever serves the task: the secrets of a block as asterisks."""
            args, kwargs = _drawn(args or (), kwargs or {})
            given = {**dict(zip(inspect.signature(self.fn).parameters, args, strict=False)), **kwargs}
            if blocks := [name for name, value in given.items() if _holds_secrets(value)]:
                raise ValueError(
                    f"{' and '.join(blocks)} must be given to .delay by name, as saved under it: arguments are written down without their"
                    " secrets, so a block would arrive without its key. Nothing was sent."
                )
            return super().apply_async(args, kwargs, **options)

        def submit(self, *args: Any, **kwargs: Any) -> Any:
            """As Prefect's."""
            args, kwargs = _drawn(args, kwargs)
            return super().submit(*args, **kwargs)

        def map(self, *args: Any, **kwargs: Any) -> Any:
            """As Prefect's, which would go through the fields of a block or a request as if they were items."""
            given = {**dict(zip(inspect.signature(self.fn).parameters, args, strict=False)), **kwargs}
            if whole := [name for name, value in given.items() if isinstance(value, BaseModel)]:
                wrapped = ", ".join(f"{name}=unmapped({name})" for name in whole)
                raise ValueError(f"{' and '.join(whole)} must be wrapped to be the same for each run of .map: {wrapped}. Nothing was sent.")
            return super().map(*args, **kwargs)

    def with_options(self, **options: Unpack[TaskOptions]) -> Self:  # pyright: ignore[reportIncompatibleMethodOverride] -- NotSet is not public
        """A copy with other options, for both worlds too."""
        changed = copy(self)
        # Prefect's own copy is always a plain Task.
        plain = cast("Callable[..., Task[P, Coroutine[Any, Any, T]]]", super().with_options)(**options)
        vars(changed).update(vars(plain))
        return changed

    def untagged(self) -> Self:
        """A copy whose runs have no tag of their own, since the task around them has it."""
        changed = copy(self)
        changed.tags = set()
        return changed

    def waiting(self) -> Self:
        """A copy of which every direct call waits for the result."""
        changed = copy(self)
        changed.always_waits = True
        return changed


def dual_task(**options: Unpack[TaskOptions]) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], DualTask[P, T]]:
    """Prefect's `task` decorator for tasks of both worlds."""
    # The journal decides: it knows what was bought and what is kept, and what a person has adopted, forgotten or cancelled since.
    defaults = TaskOptions(tags={"happyhorse"}, cache_policy=NO_CACHE, persist_result=True, result_serializer="json")
    return lambda fn: DualTask(fn, **(defaults | options))


def retried_task(**options: Unpack[TaskOptions]) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], DualTask[P, T]]:
    """`dual_task` for a step that is tried again where that can buy nothing twice."""
    retries = TaskOptions(retries=3, retry_delay_seconds=[10.0, 30.0, 90.0], retry_condition_fn=_is_retryable)
    return dual_task(**(retries | options))


def _is_retryable(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether a step may be tried again: errors that say so of themselves, and a store or network that failed as such."""
    # A plain function, since Prefect 3.8 takes no other callable (`prefect.task_engine`, `can_retry`).
    return is_retryable(state.data)


def dual(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """A function that is no task, for both worlds: as the tasks, it gives a coroutine in async code and the result in sync code."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Any:
        coroutine = function(*args, **kwargs)
        return coroutine if _in_async_context() else wait_for(coroutine)

    return call


def _drawn(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments that can be used again when the run is retried: of an iterator the first attempt would leave nothing."""

    def drawn(value: Any) -> Any:
        return list(cast("Iterator[Any]", value)) if isinstance(value, Iterator) else value

    return tuple(map(drawn, args)), {name: drawn(value) for name, value in kwargs.items()}


def _holds_secrets(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_holds_secrets, cast("list[object]", value)))
    if isinstance(value, Mapping):
        return any(map(_holds_secrets, cast("Mapping[object, object]", value).values()))
    return isinstance(value, (GatewayCredentials, MediaStore, SecretStr))


def _in_async_context() -> bool:
    """Prefect's own rule: the task or flow around the call decides, and outside of both whether an event loop runs."""
    try:
        context = get_run_context()
    except MissingContextError:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return False
        return True
    around = context.task if isinstance(context, TaskRunContext) else context.flow
    return around is None or around.isasync


def wait_for(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on Prefect's own loop and wait for it; a signal or a time-out cancels it and lets it end in good order."""
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []
    ended = threading.Event()

    async def run() -> T:
        running.append((asyncio.get_running_loop(), cast("asyncio.Task[Any]", asyncio.current_task())))
        try:
            return await coroutine
        finally:
            ended.set()

    try:
        return run_coro_as_sync(run())
    except BaseException as error:
        # The caller goes on or its process ends: the job has to be cancelled or noted before.
        for loop, task in running:
            # At a KeyboardInterrupt Prefect cancels it itself.
            if not ended.is_set() and not isinstance(error, KeyboardInterrupt):
                loop.call_soon_threadsafe(task.cancel)
            ended.wait(_END_WITHIN_S)
        raise
