"""What a person or a schedule does with the jobs of a journal: choose, adopt, forget."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from datetime import datetime, timedelta, timezone
from typing import TypeVar

import anyio

from prefect_happyhorse.catalog import find_route
from prefect_happyhorse.domain.errors import SubmissionUncertain
from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.engine.journal.index import Line, begun, contents
from prefect_happyhorse.engine.journal.journal import Journal, JournalEntry, JournalState
from prefect_happyhorse.engine.journal.lease import wait_for_owner
from prefect_happyhorse.engine.journal.owner import LEASE_TTL_S
from prefect_happyhorse.gateways.redaction import ID_RULE, as_id

__all__ = ["adopt", "adoptable", "find_entry", "forget", "position", "select"]

_Sleep = Callable[[float], Awaitable[None]]

_SHORTEST_PREFIX = 6

_Listed = TypeVar("_Listed", JournalEntry, Line)

_log = logging.getLogger(__name__)


def select(
    entries: Iterable[_Listed],
    *,
    states: Collection[JournalState] = (),
    gateway: str | None = None,
    account: str | None = None,
    older_than: timedelta | None = None,
    younger_than: timedelta | None = None,
) -> list[_Listed]:
    """The entries, or lines of the index, that fit every filter that is given."""
    now = datetime.now(timezone.utc)
    return [
        entry
        for entry in entries
        if (not states or entry.state in states)
        and (gateway is None or entry.gateway == gateway)
        and (account is None or entry.account == account)
        and (older_than is None or now - entry.begun_at >= older_than)
        and (younger_than is None or now - entry.begun_at <= younger_than)
    ]


def position(lines: Iterable[Line], digest: str) -> tuple[float, str]:
    """Where in the order of its jobs a list stands at one of them, by its digest or the beginning of it."""
    found = [line for line in lines if len(digest) >= _SHORTEST_PREFIX and line.digest.startswith(digest)]
    if len(found) != 1:
        raise ValueError(f"{digest!r} is the beginning of {len(found)} digests: give one that `happyhorse jobs list` shows.")
    return begun(found[0])


async def find_entry(journal: Journal, name: str) -> JournalEntry:
    """The entry that a person means."""
    lines, _, unreadable = await contents(journal)
    wanted = name.partition(".")[0]

    def is_meant(digest: str | None) -> bool:
        return digest is not None and len(wanted) >= _SHORTEST_PREFIX and digest.startswith(wanted)

    for one in unreadable:
        if one.file.rpartition("/")[2] == name:
            raise one.error
    problems = [one.error for one in unreadable]
    found = [line for line in lines if is_meant(line.digest)]
    if not found and not any(is_meant(problem.digest) for problem in problems):
        found = [line for line in lines if line.task_id == name]
    if len(found) == 1 and (entry := await journal.read(found[0].digest)) is not None:
        return entry
    if not found and problems:
        # The one that is meant, where the name says it; else any of them may be.
        raise next((problem for problem in problems if is_meant(problem.digest)), problems[0])
    if len(found) <= 1:
        raise ValueError(f"No job {name!r} stands in {journal.store.url}: give a task id, or six or more characters of a digest.")
    fitting = ", ".join(line.digest[:12] for line in found)
    raise ValueError(f"{name!r} means {len(found)} jobs: {fitting}. Give more characters.")


async def adopt(journal: Journal, entry: JournalEntry, task_id: str, *, sleep: _Sleep = anyio.sleep) -> JournalEntry:
    """Give a request whose submit was uncertain the job that it became, taking the caller's word for it."""
    await journal.accept(entry, await adoptable(journal, entry, task_id, sleep=sleep))
    return await journal.read(entry.digest) or entry


async def adoptable(journal: Journal, entry: JournalEntry, task_id: str, *, sleep: _Sleep = anyio.sleep) -> Job:
    """The job that an uncertain submit would become, unless the journal contradicts it."""
    if as_id(task_id) is None:
        raise ValueError(f"The task id must be {ID_RULE} (got {task_id!r}). Nothing was changed.")
    if entry.job is not None:
        raise ValueError(f"{entry.digest[:12]} has a job already: {entry.job.task_id}. Nothing was changed.")
    # It buys nothing, so that an owner who lives and was silent for long, as one that hangs, is not in its way.
    await _wait_until_idle(journal, entry, sleep, silence_is_enough=True)
    for other in (await contents(journal)).lines:
        if other.gateway == entry.gateway and other.task_id == task_id:
            raise ValueError(f"Job {task_id} stands under {other.digest[:12]} already. Nothing was changed.")
    lives_s = find_route(entry.gateway, entry.request.capability, entry.request.model).facts.task_ttl_s
    return entry.job_named(task_id, lives_s=lives_s)


async def forget(journal: Journal, entry: JournalEntry, *, sleep: _Sleep = anyio.sleep) -> None:
    """Let the same request be bought anew. No file is removed, and a job that was bought stays in the journal by itself."""
    await _wait_until_idle(journal, entry, sleep)
    await journal.forget(entry)


async def _wait_until_idle(journal: Journal, entry: JournalEntry, sleep: _Sleep, *, silence_is_enough: bool = False) -> None:
    """Refuse to touch a submit that may still be under way; of another machine's that is known only once it was silent for long."""
    if entry.state != "intent":
        return
    busy = f"{entry.digest[:12]} is being submitted right now by {entry.owner}. Nothing was changed."
    if entry.owner.lives() and (entry.owner.is_this_process or not silence_is_enough):
        raise ValueError(busy)
    if entry.owner.lives() is not False:
        _log.warning("Waiting up to %.0f s to see whether %s is still submitting %s ...", LEASE_TTL_S, entry.owner, entry.digest[:12])
    try:
        idle = await wait_for_owner(entry, journal, sleep)
    except SubmissionUncertain:
        # It lives, and was silent for as long as a lease lives.
        if not silence_is_enough:
            raise
        return
    if not idle:
        raise ValueError(busy)
