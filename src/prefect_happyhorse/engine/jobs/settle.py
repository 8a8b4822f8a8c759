"""Settle a submit of unknown outcome by the provider's own list of tasks: adopt the job that is its own, or free it where there is none.

Money hangs on it, so that nothing is taken for granted. How long ago the submit was begun is counted since this machine was started, by
no clock that can be set. That the list has caught up and reaches back is known by two jobs of ours that it shows, one begun after the
submit had ended and one before; by those, too, what the list's times mean is measured, and whether prompts come back as they were sent. A
submit is freed only where no task that nobody knows could be its own: none of its time, whatever its prompt, and none of its prompt,
whatever its time. A job has to be found twice, minutes apart, and none for a quarter of an hour; and whatever is in doubt stays with a
person.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import chain, repeat
from typing import Any, NamedTuple

import anyio
import httpx

from prefect_happyhorse.catalog import Route, find_route
from prefect_happyhorse.domain.jobs import JobSnapshot, ListedTask
from prefect_happyhorse.domain.requests import GenerationRequest
from prefect_happyhorse.engine.http.auth import TokenCache, TokenStore
from prefect_happyhorse.engine.http.client import send
from prefect_happyhorse.engine.jobs.poll import Poller
from prefect_happyhorse.engine.jobs.shared import PROCESS, Latest, Shared
from prefect_happyhorse.engine.journal.index import Contents, Line, begun, contents
from prefect_happyhorse.engine.journal.journal import Journal, JournalEntry
from prefect_happyhorse.engine.journal.lease import sent_until_up_s
from prefect_happyhorse.engine.journal.owner import up_s
from prefect_happyhorse.gateways import Account, CallError, get_gateway

__all__ = ["Settler"]

_PAUSES_S = (15.0, 15.0, 30.0, 60.0, 60.0, 120.0)
_APART_S = 180.0
_NONE_FOR_S = 900.0
"""How long no job must be found: a list may show one job later than another."""
_PATIENCE_S = 300.0
_UNTIL_FINISHED_S = 3_600.0
_ACCEPTED_WITHIN = timedelta(seconds=600)
"""How long after it was sent a submit may still be accepted, as behind a proxy that gave it up."""
_TOLERANCE = timedelta(seconds=30)
_LISTED_FOR_S = 20 * 3600.0
_MOST_PAGES = 100
_MOST_WITNESSES = 20
_MOST_STRANGERS = 200
"""Of how many tasks of other times the prompt is asked at most."""

_log = logging.getLogger(__name__)


class _Finding(NamedTuple):
    """The job that the submit became, or None where there is none."""

    task_id: str | None


class _Survey(NamedTuple):
    """All tasks of an account and model, the gateway's time when they were listed and ours, and what the journal held after that."""

    tasks: dict[str, ListedTask]
    now: datetime
    up_s: float
    journal: Contents

    def at(self, begun_up_s: float) -> datetime:
        """When something was begun, by the gateway's clock."""
        return self.now - timedelta(seconds=self.up_s - begun_up_s)


class _Unsure(Exception):
    """A look at the list that says nothing: why, and for how long it is worth to look again."""

    def __init__(self, why: str, patience_s: float = _PATIENCE_S) -> None:
        super().__init__(why)
        self.patience_s = patience_s


@dataclass(frozen=True)
class Settler:
    """Settles uncertain submits of one account.

    Args:
        account: Who may have paid.
        journal: Where the submits stand.
        tokens: Where access tokens are cached.
        sleep: Waits for so many seconds.
        shared: What is shared with the other sessions of the process.
    """

    account: Account
    journal: Journal
    tokens: TokenCache = field(default_factory=TokenStore)
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    shared: Shared = PROCESS

    async def settle(self, entry: JournalEntry) -> bool:
        """Whether the entry has changed: it has its job by now, or may be bought anew."""
        if (entry.gateway, entry.account) != (self.account.gateway, self.account.label):
            return False
        hopeless = get_gateway(entry.gateway).facts.list_tasks is None or (entry.failure is not None and entry.failure.task_id is not None)
        if hopeless or not (entry.state == "uncertain" or (entry.state == "intent" and entry.owner.lives() is False)):
            return False
        _log.info("Looking at the list of %s whether the submit of %s was accepted ...", entry.gateway, entry.digest[:12])
        pauses = chain(_PAUSES_S, repeat(_PAUSES_S[-1]))
        before: _Finding | None = None
        waited_s = since_s = 0.0
        while True:
            finding = None
            try:
                finding = await self._look(entry)
            except _Unsure as unsure:
                if waited_s >= unsure.patience_s:
                    _log.warning("The list of %s does not settle %s: %s.", entry.gateway, entry.digest[:12], unsure)
                    return False
            if finding is None or finding != before:
                before, since_s = finding, waited_s
            elif waited_s - since_s >= (_NONE_FOR_S if finding.task_id is None else _APART_S):
                await self._act(entry, finding)
                return True
            # Time counts as it is waited for here; more may have passed.
            pause_s = next(pauses)
            await self.sleep(pause_s)
            waited_s += pause_s
            if await self.journal.revision(entry.digest) != entry.revision:
                return True

    async def _act(self, entry: JournalEntry, finding: _Finding) -> None:
        """Write down what was found, unless somebody else changed the entry meanwhile."""
        latest = await self.journal.read(entry.digest)
        if latest is None or latest.revision != entry.revision:
            return
        if finding.task_id is None:
            with suppress(ValueError):
                await self.journal.forget(latest)
                _log.warning("The list of %s shows that %s was not accepted: it may be bought.", entry.gateway, entry.digest[:12])
            return
        lives_s = self._route(entry).facts.task_ttl_s
        await self.journal.accept(latest, latest.job_named(finding.task_id, lives_s=lives_s))
        _log.warning("The list of %s shows that %s was accepted, as job %s.", entry.gateway, entry.digest[:12], finding.task_id)

    async def _look(self, entry: JournalEntry) -> _Finding:
        age_s = entry.owner.age_s()
        if age_s is None:
            raise _Unsure("when it was begun is known on the machine alone that began it, until that is started anew", 0)
        if age_s > _LISTED_FOR_S:
            raise _Unsure(f"the list is of the last 24 hours, and it was begun {age_s / 3600:.0f} hours ago", 0)
        if not self._prompt(entry):
            raise _Unsure("it has no prompt by which it could be told", 0)
        if entry.base_url != self.account.base_url:
            raise _Unsure(f"it was submitted at {entry.base_url}, and the list is that of {self.account.base_url}", 0)
        if not self._is_ours(entry):
            raise _Unsure("it was submitted by another key than the list is of, or by a version that did not write down by which", 0)
        if (ended_up_s := await sent_until_up_s(entry, self.journal)) is None:
            raise _Unsure("until when it may have been sent is not known", 0)
        try:
            survey = await self._latest("list", entry.request.model).get(lambda: self._survey(entry.request.model))
            return await self._compare(entry, survey, ended_up_s)
        except CallError as error:
            raise _Unsure(f"the gateway could not be asked: {error.message}") from error

    def _is_ours(self, entry: JournalEntry) -> bool:
        """Whether an entry was submitted by this very key: another's list shows other tasks, also under the same label."""
        return entry.key_fingerprint == self.account.fingerprint(entry.owner.claim)

    def _latest(self, *key: str) -> Latest[Any]:
        account = self.account
        return self.shared.latest(account.gateway, account.label, account.base_url, account.fingerprint(""), self.journal.store.url, *key)

    async def _survey(self, model: str) -> _Survey:
        tasks: dict[str, ListedTask] = {}
        clocks: tuple[datetime | None, float] | None = None
        page = total = 0
        pages = 1
        while page < pages:
            page += 1
            response = await self._page(model, page)
            clocks = clocks or (_date(response), up_s())
            listed = get_gateway(self.account.gateway).read_tasks(response)
            if page > 1 and listed.total != total:
                raise _Unsure("the list changed while it was read", _UNTIL_FINISHED_S)
            total, pages = listed.total, listed.pages
            if pages > _MOST_PAGES:
                raise _Unsure(f"the list has {pages} pages, and at most {_MOST_PAGES} are read")
            tasks |= {task.task_id: task for task in listed.tasks}
        if len(tasks) != total:
            raise _Unsure(f"the list says that it has {total} tasks and shows {len(tasks)}")
        now, here_s = clocks or (None, 0.0)
        if now is None:
            raise _Unsure("the gateway does not tell its time")
        return _Survey(tasks, now, here_s, await contents(self.journal))

    async def _page(self, model: str, page: int) -> httpx.Response:
        gateway = get_gateway(self.account.gateway)
        request = gateway.tasks_request(self.account, model, page)
        await self.shared.limiter(self.account, per_s=gateway.facts.polls_per_s).wait()
        async with self.shared.connections.client() as client:
            return await send(client, gateway, self.account, request, self.tokens)

    async def _compare(self, entry: JournalEntry, survey: _Survey, ended_up_s: float) -> _Finding:
        lines, open_ones, unreadable = survey.journal
        if unreadable:
            raise _Unsure(f"{len(unreadable)} files of the journal cannot be read, and any task may be theirs")
        ours = {line.task_id: line for line in lines if line.gateway == entry.gateway and line.task_id is not None}
        strangers = {name: _fits(entry, task, survey, ended_up_s) for name, task in survey.tasks.items() if name not in ours}
        at_its_time = [name for name, fits in strangers.items() if fits]
        mine = self._prompt(entry)
        told = [(name, await self._told_of(entry, name)) for name in at_its_time]
        found = [name for name, snapshot in told if _is_same(snapshot.prompt, mine) and _may_be(entry.request, snapshot.usage or {})]
        if not found:
            if at_its_time:
                # A gateway may cut a prompt, or write it in another way.
                raise _Unsure(f"it may have become task {at_its_time[0]}, which is of its time and of no entry")
            if len(strangers) > _MOST_STRANGERS:
                raise _Unsure(
                    f"{len(strangers)} tasks of the list are of no entry, and at most {_MOST_STRANGERS} are asked for their prompts"
                )
            for name in strangers:
                if _is_same((await self._told_of(entry, name)).prompt, mine):
                    # The gateway's clock may have been wrong.
                    raise _Unsure(f"task {name} has its prompt and another time")
            await self._prove(entry, survey, ours, ended_up_s)
            return _Finding(None)
        if len(found) > 1:
            raise _Unsure(f"{len(found)} tasks have its prompt: {', '.join(found)}", 0)
        rivals = [
            other for other in open_ones if other.digest != entry.digest and other.job is None and _is_same(self._prompt(other), mine)
        ]
        if rivals:
            raise _Unsure(f"task {found[0]} may be that of {rivals[0].digest[:12]}, which asked for the same")
        return _Finding(found[0])

    async def _told_of(self, entry: JournalEntry, task_id: str) -> JobSnapshot:
        """A task of the list with its prompt, which is told once it is finished and does not change then."""
        told: Latest[JobSnapshot] = self._latest("told", task_id)

        async def ask() -> JobSnapshot:
            poller = Poller(account=self.account, store=self.journal.store, tokens=self.tokens, sleep=self.sleep, shared=self.shared)
            snapshot = await poller.snapshot(entry.job_named(task_id), self._route(entry))
            if not snapshot.prompt:
                patience_s = _PATIENCE_S if snapshot.status.final else _UNTIL_FINISHED_S
                raise _Unsure(f"task {task_id} is {snapshot.status.value}, and its prompt is not told", patience_s)
            return snapshot

        return await told.get(ask, once=True)

    async def _prove(self, entry: JournalEntry, survey: _Survey, ours: Mapping[str, Line], ended_up_s: float) -> None:
        """See that the list shows jobs of ours from before the submit and from after its end, at their times and with their prompts."""
        begun_up_s = entry.owner.up_s or 0.0
        earlier = later = False
        lines = [line for name, line in ours.items() if name in survey.tasks and line.account == entry.account]
        lines.sort(key=begun, reverse=True)
        # Where they are looked for a clock may say; what they are it does not.
        after = sum(begun(line) > begun(entry) for line in lines)
        for line in (*lines[:after][:_MOST_WITNESSES], *lines[after:][:_MOST_WITNESSES]):
            witness = await self.journal.read(line.digest)
            if witness is None or witness.job is None or witness.owner.up_s is None or witness.owner.age_s() is None:
                continue
            is_later, is_earlier = witness.owner.up_s >= ended_up_s, witness.owner.up_s < begun_up_s
            is_elsewhere = (witness.credentials, witness.base_url) != (entry.credentials, entry.base_url)
            if is_elsewhere or (later if is_later else earlier or not is_earlier):
                continue
            task = survey.tasks[witness.job.task_id]
            if not _fits(witness, task, survey, witness.owner.up_s):
                raise _Unsure(f"the list says {task.created_at} of job {task.task_id}, which was begun at {survey.at(witness.owner.up_s)}")
            if not _is_same((await self._told_of(witness, task.task_id)).prompt, self._prompt(witness)):
                raise _Unsure(f"of job {task.task_id} the gateway tells another prompt than it was sent")
            earlier, later = earlier or is_earlier, later or is_later
            if earlier and later:
                return
        if not later:
            raise _Unsure("it shows no job of ours that was submitted later, so that it may not have caught up")
        raise _Unsure("it shows no job of ours that was submitted earlier, so that it may not reach back so far")

    def _route(self, entry: JournalEntry) -> Route:
        return find_route(entry.gateway, entry.request.capability, entry.request.model)

    def _prompt(self, entry: JournalEntry) -> str:
        return get_gateway(entry.gateway).prompt_sent(entry.request, self._route(entry))


def _fits(entry: JournalEntry, task: ListedTask, survey: _Survey, ended_up_s: float) -> bool:
    """Whether a task was taken while a submit may have been accepted."""
    earliest, latest = survey.at(entry.owner.up_s or 0.0), survey.at(ended_up_s)
    return earliest - _TOLERANCE <= task.created_at <= latest + _ACCEPTED_WITHIN + _TOLERANCE


def _is_same(told: str | None, sent: str) -> bool:
    """Whether two prompts are the same but for white space."""
    return (told or "").split() == sent.split()


def _may_be(request: GenerationRequest, usage: Mapping[str, Any]) -> bool:
    """Whether what a task is billed for may be what was asked for; what either does not say may be."""
    told = {"duration": usage.get("output_video_duration"), "resolution": usage.get("SR"), "aspect_ratio": usage.get("ratio")}
    for name, value in told.items():
        asked: object = getattr(request, name, None)
        if asked is None or value is None:
            continue
        if isinstance(asked, (int, float)) and isinstance(value, (int, float)):
            if abs(asked - value) >= 1:
                return False
        elif str(asked).lower().removesuffix("p") != str(value).lower().removesuffix("p"):
            return False
    return True


def _date(response: httpx.Response) -> datetime | None:
    try:
        moment = parsedate_to_datetime(response.headers.get("date", ""))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None
