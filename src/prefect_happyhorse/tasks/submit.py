"""The task that submits a request."""

from __future__ import annotations

from functools import partial

from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.domain.requests import GenerationRequest
from prefect_happyhorse.domain.values import Labels
from prefect_happyhorse.engine.jobs.failover import Pool
from prefect_happyhorse.engine.jobs.prepare import Prepared
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.submit import OnUncertain, SubmitPolicy, Submitted
from prefect_happyhorse.engine.journal.budget import Budget
from prefect_happyhorse.runtime.cancellation import cancelled_with_its_run, flow_run_id
from prefect_happyhorse.runtime.concurrency import call_rate_limit, submit_slot
from prefect_happyhorse.runtime.events import emit, emit_nearly_spent, emitting_failure
from prefect_happyhorse.runtime.log import run_logger
from prefect_happyhorse.tasks.dual import retried_task
from prefect_happyhorse.tasks.resolve import Credentials, StoreRef, check_arguments, payer_of, run_name

__all__ = ["AGAIN", "submit", "submit_in"]

AGAIN = "It is bought again at the next gateway of the pool, as was asked for with `after_failure`."


@retried_task(name="submit", task_run_name=run_name("submit", "request"))
async def submit(
    request: GenerationRequest,
    credentials: Credentials,
    store: StoreRef = None,
    *,
    take: int = 1,
    on_uncertain: OnUncertain = "settle",
    budget: Budget | None = None,
    labels: Labels | None = None,
) -> Job:
    """Submit a request at most once; a request that was submitted before gives the same job again.

    Args:
        request: What to make.
        credentials: Who pays; or a list or a GatewayPool of those who may, each at another gateway. Then the model may be a family's
            name, the first that does not certainly refuse the request makes it, and whoever asks again goes on where it was bought.
        store: Where the journal and the results are kept.
        take: 1, or another number for another variation of the very same request.
        on_uncertain: What to do when a submit may have been accepted but nobody knows: "settle" it where the gateway can list its tasks,
            which takes minutes, and raise where that settles nothing; "raise"; or "resubmit" and perhaps pay twice.
        budget: The most that the jobs of the store's journal may cost together; None for no limit.
        labels: What the job is called by in the journal, events, cards and `happyhorse spend`, such as `{"project": "film"}`. They make
            no other job of it: one that was bought before keeps its own.

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
    check_arguments(request, credentials, store, on_uncertain=on_uncertain, budget=budget, labels=labels)
    payer = await payer_of(credentials, store)
    job, is_new = await submit_in(payer, request, take=take, on_uncertain=on_uncertain, budget=budget, labels=labels)
    if is_new:
        emit("submitted", job)
    request_id = f", request id {job.request_id}" if job.request_id else ""
    told = f"task id {job.task_id}{request_id}" if is_new else f"already bought, going on with job {job.task_id}"
    run_logger().info("%s %s: %s, digest %s", job.gateway, job.model, told, job.digest[:12])
    return job


async def submit_in(
    payer: Session | Pool,
    request: GenerationRequest,
    *,
    take: int,
    on_uncertain: OnUncertain,
    budget: Budget | None,
    labels: Labels | None = None,
    prepared: Prepared | None = None,
) -> Submitted:
    """Submit in a session or at one gateway of a pool, within the limits that all workers share, and emit the event of a failure."""
    how = partial(_submit_in, on_uncertain=on_uncertain, budget=budget, labels=labels)
    if isinstance(payer, Pool):
        return await payer.submit(await payer.prepare(request, take=take), how)
    return await how(payer, prepared or await payer.prepare(request, take=take))


async def _submit_in(
    session: Session,
    prepared: Prepared,
    policy: SubmitPolicy | None = None,
    *,
    on_uncertain: OnUncertain,
    budget: Budget | None,
    labels: Labels | None,
) -> Submitted:
    run = flow_run_id()
    async with submit_slot(session.account):
        await call_rate_limit(session.account)()
        async with cancelled_with_its_run(prepared.digest, session, run_logger()):
            with emitting_failure():
                submitted = await session.submit(
                    prepared,
                    on_uncertain=on_uncertain,
                    flow_run_id=None if run is None else str(run),
                    budget=budget,
                    labels=labels,
                    policy=policy,
                )
    if budget is not None:
        emit_nearly_spent(budget, session.shared.tracker(budget, session.store).share)
    return submitted
