"""Bugs that engine code once had or could have, planted one at a time: a simulation that does not find them proves nothing."""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch
from uuid import UUID

from tests.simulation.runs import Outcome, run

from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.engine.jobs import failover, manage, settle, submit
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.settle import Settler
from prefect_happyhorse.engine.jobs.submit import Submitted
from prefect_happyhorse.engine.journal import lease
from prefect_happyhorse.engine.journal import parent as parents
from prefect_happyhorse.engine.journal.journal import Cancellation, Journal, JournalEntry
from prefect_happyhorse.engine.journal.lease import Lease
from prefect_happyhorse.engine.journal.owner import LEASE_TTL_S
from prefect_happyhorse.engine.journal.parent import Child, Parent, Parents
from prefect_happyhorse.engine.storage import local
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways.base import Gateway
from prefect_happyhorse.gateways.errors import CallUnavailable
from prefect_happyhorse.tasks import suspend

__all__ = ["BUGS", "planted", "search"]

Patch = tuple[object, str, object]


async def _sends_without_a_look(self: Lease) -> None:
    self.sent = True


def _never_confirms(self: Lease) -> None:
    self.sent = True


async def _believes_another_clock(entry: JournalEntry, journal: Journal, sleep: Callable[[float], Awaitable[None]]) -> bool:
    """As it was: whoever is silent by the times that were written is gone, whoever it is."""
    while True:
        now = lease._now()[1]  # pyright: ignore[reportPrivateUsage]
        if now - entry.owner.at.timestamp() > LEASE_TTL_S:
            return True
        await sleep(60.0)
        if await journal.revision(entry.digest) != entry.revision:
            return False


async def _believes_yes(self: Session, job: Job, answer: Cancellation, **_: object) -> Cancellation:
    return answer


async def _drops_the_second(self: Journal, entry: JournalEntry, job: Job | None = None) -> tuple[str, ...]:
    return entry.aside


async def _takes_no_for_an_answer(self: Store, path: str, data: bytes) -> bool:
    return await self._off_loop(self._backend.create, path, data)  # pyright: ignore[reportPrivateUsage]


async def _overwrites(self: Store, path: str, data: bytes) -> bool:
    await self.write(path, data)
    return True


async def _proves_nothing(self: Store, path: str) -> None:
    return None


async def _takes_what_is_there(self: Journal, entry: JournalEntry, *, verify: bool = False) -> JournalEntry | None:
    """A lease without an epoch: whoever writes last has it."""
    written = entry.model_copy(update={"revision": max(entry.revision, 1)})
    content = written.model_dump_json(exclude_none=True)
    await self.store.write(self.path(written.digest, written.revision), content.encode())
    return written


def _writes_without_sync(path: Any, data: bytes, mode: int = 0o666) -> None:
    with open(path, "xb") as file:
        file.write(data)


async def _leaves_its_intent(self: Lease) -> None:
    """What went wrong before anything was sent is taken for doubt."""


def _sends_again_whatever_came(request: Any) -> Any:
    original = request

    def read(self: Any, response: Any, route: Any) -> Any:
        if response.status_code == 429:
            raise CallUnavailable("slow down", may_have_acted=False, retry_after_s=1.0)
        return original(self, response, route)

    return read


async def _forgets_first(path: str, store: Store, client: Any, open_digests: set[str]) -> bool:
    """As one might write it, so that no run is resumed twice."""
    content = await store.read(path)
    await store.delete(path)
    wait = json.loads(content)
    if not open_digests.isdisjoint(wait["digests"]):
        await store.write(path, content)
        return False
    state = (await client.read_flow_run(UUID(wait["flow_run_id"]))).state
    return state.is_paused() and (await client.resume_flow_run(UUID(wait["flow_run_id"]))).status.value == "ACCEPT"


async def _believes_the_list(self: Settler, *_: object) -> None:
    """A list that does not show it is taken to have caught up."""


def _takes_any_prompt(told: str, sent: str) -> bool:
    return True


async def _holds_whatever_came(self: failover._Run, revision: int) -> None:  # pyright: ignore[reportPrivateUsage]
    """A gateway's turn that nobody takes back."""


def _passes_by_doubt(self: failover._Run, entry: JournalEntry) -> bool:  # pyright: ignore[reportPrivateUsage]
    """As one might write it: what is not bought for certain may be bought elsewhere."""
    return entry.job is None


async def _looks_where_it_points(self: failover._Run, children: Any) -> Any:  # pyright: ignore[reportPrivateUsage]
    """Only the first that is named is looked at: that at which the parent points, and not those before it."""
    return {child: await self._journal.read(child.digest) for child in list(children)[:1]}  # pyright: ignore[reportPrivateUsage]


async def _looks_only_before_it_points(self: failover._Run) -> Submitted:  # pyright: ignore[reportPrivateUsage]
    """The parent is read again once it was changed, and the children are not."""
    child: Child | None = None
    while True:
        parent = await self._parents.read(self._digest)  # pyright: ignore[reportPrivateUsage]
        if parent is None or parent.current != child:
            if (child := await self._next(parent)) is None:  # pyright: ignore[reportPrivateUsage]
                continue
            await self._parents.point(self._digest, parent, child)  # pyright: ignore[reportPrivateUsage]
            self._begins = False
            continue
        if (submitted := await self._try(child, parent.revision)) is not None:  # pyright: ignore[reportPrivateUsage]
            return submitted
        child = None


async def _points_by_writing_over(self: Parents, digest: str, parent: Parent | None, child: Child) -> None:
    made = Parent(digest=digest, current=child, tried=(child,)) if parent is None else parent.model_copy(update={"current": child})
    await self._store.write(parents._path(digest, 1), made.model_dump_json().encode())  # pyright: ignore[reportPrivateUsage]


def _bugs() -> dict[str, tuple[Patch, ...]]:
    return {
        "the lease is not looked at before a send": (
            (Lease, "check", _sends_without_a_look),
            (Lease, "confirm", _never_confirms),
        ),
        "another machine's clock is believed": (
            (submit, "wait_for_owner", _believes_another_clock),
            (manage, "wait_for_owner", _believes_another_clock),
        ),
        "a cancel that is answered well is believed": ((Session, "_confirm_cancel", _believes_yes),),
        "a second job of a request is dropped": ((Journal, "_set_aside", _drops_the_second),),
        "a refusal for its rate is sent again though a job stands beside it": (
            (Gateway, "read_submit", _sends_again_whatever_came(Gateway.read_submit)),
        ),
        "an intent under which nothing was sent is left": ((Lease, "release", _leaves_its_intent),),
        "the lease's own write is neither read back nor undone": (
            (Store, "create", _takes_no_for_an_answer),
            (Lease, "release", _leaves_its_intent),
        ),
        "an intent is not synced before the send": ((local, "_write", _writes_without_sync),),
        "a lease has no epoch": ((Journal, "create", _takes_what_is_there),),
        "a wait is forgotten before its run is resumed": ((suspend, "_resumed", _forgets_first),),
        "a list that may be behind frees a request": ((Settler, "_prove", _believes_the_list),),
        "a task of the list is taken whatever its prompt": ((settle, "_is_same", _takes_any_prompt),),
        "a pool does not look whether it still has the parent before a send": (
            (failover._Run, "_check", _holds_whatever_came),  # pyright: ignore[reportPrivateUsage]
        ),
        "a pool goes on after a submit that is uncertain": (
            (failover._Run, "_is_clear", _passes_by_doubt),  # pyright: ignore[reportPrivateUsage]
        ),
        "a pool does not look at the gateways that were asked before": (
            (failover._Run, "_read", _looks_where_it_points),  # pyright: ignore[reportPrivateUsage]
        ),
        "a pool looks at the others only before it points elsewhere": (
            (failover._Run, "submit", _looks_only_before_it_points),  # pyright: ignore[reportPrivateUsage]
        ),
        "a pool's parent is written over": ((Parents, "point", _points_by_writing_over),),
        "a store that overwrites is not found out": ((Store, "create", _overwrites), (Store, "prove", _proves_nothing)),
    }


BUGS = _bugs()


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Engine code with one of the bugs."""
    with ExitStack() as stack:
        for target, attribute, bug in BUGS[name]:
            stack.enter_context(patch.object(target, attribute, bug))
        yield


def search(first: int, last: int, bug: str | None) -> tuple[Counter[str], Outcome | None]:
    """What some seeds did, and the first that broke a promise."""
    steps: Counter[str] = Counter()
    # What was imported need not be looked through after each world.
    gc.freeze()
    for seed in range(first, last):
        if bug is None:
            outcome = run(seed)
        else:
            with planted(bug):
                outcome = run(seed)
        steps.update(outcome.steps)
        steps["seeds"] += 1
        steps["accepted"] += outcome.accepted
        if outcome.problem is not None:
            return steps, outcome
    return steps, None
