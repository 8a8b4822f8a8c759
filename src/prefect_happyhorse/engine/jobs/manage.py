"""What a person or a schedule does with the jobs of a journal: choose, adopt, forget."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta, timezone

from prefect_happyhorse.catalog import find_route
from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.engine.journal.journal import Journal, JournalEntry, JournalState

__all__ = ["adopt", "adoptable", "find_entry", "forget", "select"]

_SHORTEST_PREFIX = 6


def select(
    entries: Iterable[JournalEntry],
    *,
    states: Collection[JournalState] = (),
    gateway: str | None = None,
    account: str | None = None,
    flow_run_id: str | None = None,
    older_than: timedelta | None = None,
    younger_than: timedelta | None = None,
) -> list[JournalEntry]:
    """The entries that fit every filter that is given."""
    now = datetime.now(timezone.utc)
    return [
        entry
        for entry in entries
        if (not states or entry.state in states)
        and (gateway is None or entry.gateway == gateway)
        and (account is None or entry.account == account)
        and (flow_run_id is None or entry.flow_run_id == flow_run_id)
        and (older_than is None or now - entry.begun_at >= older_than)
        and (younger_than is None or now - entry.begun_at <= younger_than)
    ]


async def find_entry(journal: Journal, name: str) -> JournalEntry:
    """The entry that a person means."""
    digests = [digest for digest in await journal.digests() if len(name) >= _SHORTEST_PREFIX and digest.startswith(name)]
    found = [entry for digest in digests if (entry := await journal.read(digest)) is not None]
    if not found:
        found = [entry for entry in await journal.entries() if entry.job is not None and entry.job.task_id == name]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ValueError(f"No job {name!r} stands in {journal.store.url}: give a task id, or six or more characters of a digest.")
    fitting = ", ".join(entry.digest[:12] for entry in found)
    raise ValueError(f"{name!r} means {len(found)} jobs: {fitting}. Give more characters.")


async def adopt(journal: Journal, entry: JournalEntry, task_id: str) -> JournalEntry:
    """Give a request whose submit was uncertain the job that it became, taking the caller's word for it."""
    await journal.write_job_down(entry, await adoptable(journal, entry, task_id))
    return await journal.read(entry.digest) or entry


async def adoptable(journal: Journal, entry: JournalEntry, task_id: str) -> Job:
    """The job that an uncertain submit would become, unless the journal contradicts it."""
    if entry.job is not None:
        raise ValueError(f"{entry.digest[:12]} has a job already: {entry.job.task_id}. Nothing was changed.")
    _check_expired(entry)
    others = [other for other in await journal.entries() if other.job is not None and other.job.task_id == task_id]
    if any(other.gateway == entry.gateway for other in others):
        raise ValueError(f"Job {task_id} stands under {others[0].digest[:12]} already. Nothing was changed.")
    lives_s = find_route(entry.gateway, entry.request.capability, entry.request.model).facts.task_ttl_s
    return Job(
        gateway=entry.gateway,
        account=entry.account,
        capability=entry.request.capability,
        model=entry.request.model,
        task_id=task_id,
        digest=entry.digest,
        prompt=entry.request.prompt,
        # The gateway took it within the minute after the submit was begun, if it took it at all.
        submitted_at=entry.owner.at,
        expires_at=None if lives_s is None else entry.owner.at + timedelta(seconds=lives_s),
    )


async def forget(journal: Journal, entry: JournalEntry) -> None:
    """Remove an entry, so that the same request is bought anew. No file is removed."""
    if entry.job is None:
        _check_expired(entry)
    await journal.forget(entry.digest)


def _check_expired(entry: JournalEntry) -> None:
    if entry.state == "intent" and not entry.owner.expired(datetime.now(timezone.utc)):
        raise ValueError(f"{entry.digest[:12]} is being submitted right now by {entry.owner}. Nothing was changed.")
