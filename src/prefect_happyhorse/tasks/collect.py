"""What later runs do with jobs that earlier ones left: which of a journal's are open, and whether one is finished."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial

from prefect_happyhorse.artifacts.gallery import Gallery
from prefect_happyhorse.blocks import GatewayCredentials
from prefect_happyhorse.domain.errors import JobExpired, JobTimedOut, Money
from prefect_happyhorse.domain.jobs import Job, JobSnapshot
from prefect_happyhorse.domain.rows import RowResult
from prefect_happyhorse.engine.jobs.failover import Pool
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.shared import PROCESS
from prefect_happyhorse.engine.journal.index import open_entries
from prefect_happyhorse.engine.journal.journal import JournalEntry
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.runtime.events import emit_expiring, emit_unreadable, emitting_failure
from prefect_happyhorse.runtime.log import run_logger
from prefect_happyhorse.tasks.dual import dual_task, retried_task
from prefect_happyhorse.tasks.resolve import Credentials, Payer, StoreRef, payer_of, session_of, store_of
from prefect_happyhorse.tasks.rows import AT_ONCE, FindSession, Shown, downloading, named_by_rows, run_rows

__all__ = ["collect_jobs", "open_jobs", "poll_once"]


@dual_task(name="open-jobs", persist_result=False)
async def open_jobs(store: StoreRef = None) -> list[JournalEntry]:
    """The jobs of a store's journal that cost or may have cost money and have no file yet, oldest first.

    Args:
        store: Where the journal is kept.

    Returns:
        The journal's entries; one without a job is a submit of which nobody knows whether it was accepted. A file that cannot be read is
        told in the run's log as an error and by an event, and the others are returned. A job that its gateway will not know for much
        longer is told by an event too. What killed processes left of closed entries is removed.

    Raises:
        OSError: When the store cannot be read.

    Example:
        ```python
        jobs = [entry.job for entry in await open_jobs() if entry.job]
        ```
    """
    listing = await open_entries(PROCESS.journal(await store_of(store)), tidy=True)
    for unreadable in listing.unreadable:
        run_logger().error("%s It is left out, and may stand for a paid job.", unreadable.error)
        emit_unreadable(unreadable)
    now = datetime.now(timezone.utc)
    for entry in listing.entries:
        if entry.job is not None:
            emit_expiring(entry.job, now)
    return listing.entries


@retried_task(name="collect-jobs", task_run_name=named_by_rows("collect", "entries"), persist_result=False)
async def collect_jobs(
    entries: Iterable[JournalEntry],
    credentials: Sequence[Payer] = (),
    store: StoreRef = None,
    *,
    watch: bool = False,
    concurrency: int = AT_ONCE,
    deadline_s: float = 86_400.0,
) -> list[RowResult]:
    """Keep the outputs of open jobs that are finished, many in one task run. Nothing is bought, and nothing is cancelled.

    Args:
        entries: Entries such as those of `open_jobs`. One without a job is settled by the gateway's list of tasks where that can be, which
            takes minutes, and left as it is elsewhere.
        credentials: Who may have paid. A job of nobody among them is asked for with what it was bought with, else with the environment's.
        store: Where the journal and the outputs are kept.
        watch: Whether to wait for jobs that are still running; otherwise each is asked for once.
        concurrency: How many are looked after at the same time.
        deadline_s: With `watch`, how long a job may take in all, in seconds since it was submitted.

    Returns:
        For each entry a row; one that is still running is "submitted", and one of which nobody knows whether it was accepted has no job.

    Raises:
        InvalidRequest: When an argument is of a wrong kind.

    Example:
        ```python
        rows = await collect_jobs(await open_jobs(), ["happyhorse"])
        ```
    """
    known = dict(enumerate(entries, start=1))
    rows = [RowResult(row=number, id=entry.digest[:12], job=entry.job) for number, entry in known.items()]

    async def ask(row: RowResult, payer: Session | Pool, gallery: Gallery) -> RowResult:
        session = payer.of(known[row.row])
        if row.job is None:
            row = await _settled(row, known[row.row], session)
        if row.job is None or (not watch and known[row.row].result is None and await _is_running(row.job, session)):
            return row
        try:
            with emitting_failure():
                result = await session.poll(row.job, deadline_s=deadline_s)
        except JobTimedOut:
            return row
        return row.model_copy(update={"result": result})

    return await run_rows(
        rows,
        [ask, downloading],
        credentials,
        store,
        Shown(f"collect {(await store_of(store)).url}", "kept"),
        concurrency=concurrency,
        find_session=partial(_payers, known, credentials),
        deadline_s=deadline_s,
    )


async def _payers(known: Mapping[int, JournalEntry], credentials: Sequence[Payer], store: Store) -> FindSession:
    """What finds the session of an entry: with what was named, else with what it was bought with."""
    named = [await payer_of(one, store) for one in credentials]
    several = [session for one in named for session in ([one] if isinstance(one, Session) else one.sessions)]
    sessions = {(session.account.gateway, session.account.label): session for session in several}

    async def find(row: RowResult) -> Session:
        entry = known[row.row]
        payer = entry.gateway, entry.account
        if payer not in sessions:
            block = await GatewayCredentials.of_job(gateway=entry.gateway, account=entry.account, name=entry.credentials, job=entry.job)
            sessions[payer] = await session_of(block, store, entry.job)
        return sessions[payer]

    return find


async def _settled(row: RowResult, entry: JournalEntry, session: Session) -> RowResult:
    """The row of an uncertain submit with what the gateway's list of tasks shows."""
    if not await session.settle(entry):
        return row
    latest = await session.journal.read(entry.digest)
    if latest is None or latest.job is None:
        told = f"the list of tasks of {entry.gateway} shows that this submit was not accepted: run the request again to buy it"
        return row.model_copy(update={"error": told, "money": Money.NOT_SPENT})
    return row.model_copy(update={"job": latest.job})


async def _is_running(job: Job, session: Session) -> bool:
    try:
        return not (await session.poll_once(job)).status.final
    except JobExpired:
        # To be asked for once more, and written down.
        return False


@retried_task(name="poll-once", task_run_name="poll once {job.gateway} {job.task_id}", persist_result=False)
async def poll_once(job: Job, credentials: Credentials, store: StoreRef = None) -> JobSnapshot:
    """Ask for a job once, without waiting for it.

    Args:
        job: The job.
        credentials: Who paid.
        store: Where the journal is kept.

    Returns:
        What the gateway says.

    Raises:
        JobExpired: When the gateway does not know the job any more.
        GenerationError: When the gateway could not be asked.

    Example:
        ```python
        state = await poll_once(job, "happyhorse")
        ```
    """
    return await (await session_of(credentials, store, job)).poll_once(job)
