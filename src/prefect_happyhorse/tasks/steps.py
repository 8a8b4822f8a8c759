"""The Prefect tasks: submit, poll, download, and generate, which is the three in a row.

Each takes credentials and store as blocks or by name, and is awaited in async flows and simply called in sync ones.
"""

from __future__ import annotations

import hashlib
import os
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar, cast

from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.tasks import TaskRunNameCallbackWithParameters
from prefect.transactions import CommitMode, atransaction

from prefect_happyhorse.blocks import MediaStore
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.errors import InvalidRequest
from prefect_happyhorse.domain.jobs import Job, JobResult
from prefect_happyhorse.domain.requests import GenerationRequest
from prefect_happyhorse.engine.jobs.poll import DEADLINE_S
from prefect_happyhorse.engine.jobs.submit import OnUncertain
from prefect_happyhorse.engine.journal.budget import Budget
from prefect_happyhorse.runtime.concurrency import job_slot
from prefect_happyhorse.tasks.dual import DualTask, dual_task
from prefect_happyhorse.tasks.retries import retried_task
from prefect_happyhorse.tasks.work import Credentials, StoreRef, Terms, account_of, download_job, poll_job, submit_job

__all__ = [
    "Credentials",
    "StoreRef",
    "download",
    "generate",
    "poll",
    "submit",
]

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

_KEY_VERSION = "1"


def _run_name(step: str, parameter: str) -> TaskRunNameCallbackWithParameters:
    """What names a run after what its request, job or result is about, as `poll text_to_image gpt-image-2 "A white horse"`."""

    def name(parameters: dict[str, Any]) -> str:
        value = cast("GenerationRequest | Job | JobResult", parameters[parameter])
        about = value.job if isinstance(value, JobResult) else value
        prompt = " ".join((about.prompt or "").split())
        quoted = "" if not prompt else f' "{prompt}"' if len(prompt) <= 40 else f' "{prompt[:37]}..."'
        return f"{step} {about.capability} {about.model}{quoted}"

    # Prefect looks at the parameters' names of any function; its type asks for a method that only it has.
    return cast("TaskRunNameCallbackWithParameters", name)


def _with_currency(budget: object) -> Budget | None:
    """The budget, which Prefect hands on unchecked."""
    if budget is None or isinstance(budget, Budget):
        return budget
    raise InvalidRequest(f"budget must be a Budget (got {budget!r}), as Budget(amount=100, currency='CNY'). Nothing was sent.")


def _store_name(store: StoreRef) -> str:
    return store.url if isinstance(store, MediaStore) else str(store or "") or os.environ.get("HAPPYHORSE_STORE", "outputs")


def _poll_key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    job = cast("Job", parameters["job"])
    return f"happyhorse-poll-{_hash([_KEY_VERSION, job.digest, job.task_id, _store_name(parameters['store'])])}"


def _hash(parts: list[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@retried_task(name="submit", task_run_name=_run_name("submit", "request"))
async def submit(
    request: GenerationRequest,
    credentials: Credentials,
    store: StoreRef = None,
    *,
    take: int = 1,
    on_uncertain: OnUncertain = "raise",
    budget: Budget | None = None,
) -> Job:
    """Submit a request at most once; a request that was submitted before gives the same job again.

    Args:
        request: What to make.
        credentials: Who pays.
        store: Where the journal and the results are kept.
        take: 1, or another number for another variation of the very same request.
        on_uncertain: What to do when an earlier submit may have been accepted but nobody knows: "raise", or "resubmit" and
            perhaps pay twice.
        budget: The most that the jobs of the store's journal may cost together; None for no limit.

    Returns:
        The job; it stands in the journal before this returns.

    Raises:
        InvalidRequest: When the request does not fit; all problems are named, nothing is sent.
        BudgetExceeded: When there is no room for it in the budget, or its price is not known; nothing is sent.
        SubmissionUncertain: When nobody knows whether the submit was accepted. It is never retried.
        GenerationError: When the gateway refuses or cannot be reached.

    Example:
        ```python
        job = await submit(TextToImage(model="gpt-image-2", prompt="A white horse"), "happyhorse")
        ```
    """
    return await submit_job(request, credentials, store, Terms(take, on_uncertain, _with_currency(budget)))


@retried_task(
    name="poll",
    task_run_name=_run_name("poll", "job"),
    cache_policy=CachePolicy.from_cache_key_fn(_poll_key),
    # A provider's address lives 24 hours where it says so at all; a cached one must not outlive it.
    cache_expiration=timedelta(hours=12),
)
async def poll(job: Job, credentials: Credentials, store: StoreRef = None, *, deadline_s: float = DEADLINE_S) -> JobResult:
    """Wait for a job's result.

    Args:
        job: The job.
        credentials: Who paid.
        store: Where the journal is kept.
        deadline_s: How long the job may take, in seconds since it was submitted.

    Returns:
        Where the outputs lie at the provider.

    Raises:
        JobFailed: When the provider ended the job without a result.
        JobExpired: When the gateway does not know the job any more.
        JobTimedOut: When the deadline passed first; the job may still finish and be collected.

    Example:
        ```python
        result = await poll(job, "happyhorse", deadline_s=1800)
        ```
    """
    return await poll_job(job, credentials, store, deadline_s)


@retried_task(name="download", task_run_name=_run_name("download", "result"))
async def download(result: JobResult, credentials: Credentials, store: StoreRef = None) -> MediaAsset:
    """Keep a job's outputs, once, and show them in the Prefect UI.

    Args:
        result: The finished job.
        credentials: Who paid, for when the provider's address has to be asked for again. The key never goes to a download host.
        store: Where the outputs are kept.

    Returns:
        The first output; further ones are its `siblings`.

    Raises:
        DownloadFailed: When the output could not be fetched or kept whole.
        JobExpired: When the provider no longer keeps it.

    Example:
        ```python
        asset = await download(result, "happyhorse")
        ```
    """
    return await download_job(result, credentials, store)


def _untagged(step: DualTask[_Parameters, _Result]) -> DualTask[_Parameters, _Result]:
    """A task whose runs have no tag of their own, since the `generate` around them has it.

    Where a tag has a limit, Prefect takes one of its slots for each task run: a step would wait for ever for a second one while `generate`
    holds the last. And where it has none, Prefect asks its server for it before each, every five seconds anew.
    """
    copied = step.with_options()
    copied.tags = set()
    return copied


_STEPS = (_untagged(submit), _untagged(poll), _untagged(download))


@dual_task(name="generate", task_run_name=_run_name("generate", "request"))
async def generate(
    request: GenerationRequest,
    credentials: Credentials,
    store: StoreRef = None,
    *,
    take: int = 1,
    deadline_s: float = DEADLINE_S,
    on_uncertain: OnUncertain = "raise",
    budget: Budget | None = None,
) -> MediaAsset:
    """Submit, poll and download, each as a task run of its own.

    Args:
        request: What to make.
        credentials: Who pays.
        store: Where the journal and the results are kept.
        take: 1, or another number for another variation of the very same request.
        deadline_s: How long the job may take, in seconds since it was submitted.
        on_uncertain: See `submit`.
        budget: See `submit`.

    Returns:
        The first output; further ones are its `siblings`. It can be given to another request as a medium.

    Raises:
        GenerationError: As `submit`, `poll` and `download` do.

    Example:
        ```python
        horse = await generate(TextToImage(model="gpt-image-2", prompt="A white horse"), "happyhorse")
        ```
    """
    submit_step, poll_step, download_step = _STEPS
    # Each step stands by itself: a poll that fails must not show its submit, which is paid for, as rolled back.
    async with job_slot(await account_of(credentials)), atransaction(commit_mode=CommitMode.EAGER):
        job = await submit_step(request, credentials, store, take=take, on_uncertain=on_uncertain, budget=budget)
        result = await poll_step(job, credentials, store, deadline_s=deadline_s)
        return await download_step(result, credentials, store)
