"""The task that submits, polls and downloads in a row."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from prefect.transactions import CommitMode, atransaction

from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.errors import JobFailed
from prefect_happyhorse.domain.jobs import DEADLINE_S
from prefect_happyhorse.domain.requests import GenerationRequest
from prefect_happyhorse.domain.values import Labels
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.submit import OnUncertain
from prefect_happyhorse.engine.journal.budget import Budget
from prefect_happyhorse.runtime.concurrency import job_slot, keeping_slot
from prefect_happyhorse.runtime.log import run_logger
from prefect_happyhorse.tasks.check import Check, checked
from prefect_happyhorse.tasks.download import download
from prefect_happyhorse.tasks.dual import dual_task
from prefect_happyhorse.tasks.poll import poll
from prefect_happyhorse.tasks.resolve import Credentials, StoreRef, check_arguments, payer_of, run_name
from prefect_happyhorse.tasks.submit import AGAIN, submit

__all__ = ["generate"]

# Where a tag has a limit, Prefect takes one of its slots for each task run: a step would wait for ever for a second one while `generate`
# holds the last. And where it has none, Prefect asks its server for it before each, every five seconds anew.
_STEPS = (submit.untagged(), poll.untagged(), download.untagged())


@dual_task(name="generate", task_run_name=run_name("generate", "request"))
async def generate(
    request: GenerationRequest,
    credentials: Credentials,
    store: StoreRef = None,
    *,
    take: int = 1,
    deadline_s: float = DEADLINE_S,
    on_uncertain: OnUncertain = "settle",
    budget: Budget | None = None,
    labels: Labels | None = None,
    check: Check | None = None,
    max_takes: int = 1,
) -> MediaAsset:
    """Submit, poll and download, each as a task run of its own.

    Args:
        request: What to make.
        credentials: Who pays, or who may; see `submit`.
        store: Where the journal and the results are kept.
        take: 1, or another number for another variation of the very same request.
        deadline_s: How long the job may take, in seconds since it was submitted.
        on_uncertain: See `submit`.
        budget: See `submit`.
        labels: See `submit`.
        check: Called with the asset once it is kept; an ordinary function in a thread. True or None lets it pass; False, or a reason, does
            not. It is asked again whenever the same call is made again.
        max_takes: How many takes may be bought in all, from `take` on, each a job of its own and within the budget: the next one only
            when the one before is kept and the check refused it.

    Returns:
        The first output; further ones are its `siblings`. It can be given to another request as a medium.

    Raises:
        CheckFailed: When no take passed the check, or the check itself failed. All that was made is kept and named.
        GenerationError: As `submit`, `poll` and `download` do.

    Example:
        ```python
        horse = await generate(TextToImage(model="gpt-image-2", prompt="A white horse"), "happyhorse")
        ```
    """
    others: dict[str, Any] = {"budget": budget, "deadline_s": deadline_s, "labels": labels, "check": check, "max_takes": max_takes}
    check_arguments(request, credentials, store, on_uncertain=on_uncertain, **others)
    payer = await payer_of(credentials, store)

    submit_step, poll_step, download_step = _STEPS

    async def make(number: int) -> MediaAsset:
        how: dict[str, Any] = {"take": number, "on_uncertain": on_uncertain, "budget": budget, "labels": labels}
        # Each step stands by itself: a poll that fails must not show its submit, which is paid for, as rolled back.
        async with AsyncExitStack() as held, atransaction(commit_mode=CommitMode.EAGER):
            if isinstance(payer, Session):
                await held.enter_async_context(job_slot(payer.account))
            for left in range(payer.rounds, 0, -1):
                job = None
                try:
                    async with keeping_slot():
                        job = await submit_step(request, credentials, store, **how)
                        result = await poll_step(job, credentials, store, deadline_s=deadline_s)
                        return await download_step(result, credentials, store)
                except JobFailed as error:
                    if left == 1 or job is None:
                        raise
                    run_logger().warning("%s %s", error.message, AGAIN)
        raise AssertionError("unreachable: the last round returns or raises")

    return await checked(make, check, take=take, max_takes=max_takes)
