"""Several gateways that all fail all the time: nearly every job is stored, and none is bought at two of them."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from pydantic import SecretStr

from prefect_happyhorse.domain.errors import GenerationError, SubmissionUncertain
from prefect_happyhorse.domain.requests import ReferenceToVideo
from prefect_happyhorse.engine.http.rate_limit import RateLimiter
from prefect_happyhorse.engine.jobs.failover import Pool
from prefect_happyhorse.engine.jobs.manage import adopt, forget
from prefect_happyhorse.engine.jobs.poll import Poller
from prefect_happyhorse.engine.jobs.prepare import Prepared
from prefect_happyhorse.engine.jobs.results import OutputStore
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.shared import Shared
from prefect_happyhorse.engine.jobs.submit import SubmitPolicy, Submitted
from prefect_happyhorse.engine.journal.journal import Journal
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account
from prefect_happyhorse.sandbox import SandboxServer

from .work import _IMPATIENT, _nap

GATEWAYS = ("infiflow", "ttapi", "uniall")
ROUNDS = 12
FAULTS = {
    # What certainly bought nothing, and what nobody knows of, with a charge and without one.
    "submit": ["quota", "throttle", "drop_before", "drop_after", "garbage", "http"],
    "poll": ["throttle", "http", "garbage", "drop_before", "drop_after", "html"],
    "download": ["throttle", "http", "truncate", "drop_before", "drop_after", "wrong_type"],
}


def _pool(sandbox: SandboxServer, store: Store, shared: Shared, first: int) -> Pool:
    order = [*GATEWAYS[first:], *GATEWAYS[:first]]
    accounts = [Account(gateway=name, base_url=sandbox.base_url(name), key=SecretStr("sesame-1234")) for name in order]
    return Pool([Session(account, store, sleep=_nap, shared=shared) for account in accounts], tell=lambda _: None)


async def _make(pool: Pool, request: ReferenceToVideo) -> Exception | None:
    """Make one thing; why it has no file yet, or None."""

    async def one(session: Session, prepared: Prepared, policy: SubmitPolicy) -> Submitted:
        return await session.submit(prepared, policy=policy)

    try:
        job = (await pool.submit(await pool.prepare(request), one)).job
        session = pool.of(job)
        poller = Poller(account=session.account, store=session.store, sleep=_nap, shared=session.shared)
        result = await poller.poll(job)
        await OutputStore(account=session.account, store=session.store, limits=_IMPATIENT, shared=session.shared).store_outputs(result)
    except (GenerationError, OSError) as error:
        # Another round is another try.
        return error
    return None


async def _settle(sandbox: SandboxServer, pool: Pool, doubtful: set[str]) -> None:
    """Be the person who looks uncertain submits up at the provider: adopt what is there, forget what is not."""
    journal = Journal(pool.sessions[0].store)
    entries = (await journal.entries()).entries
    known = {entry.job.task_id for entry in entries if entry.job is not None}
    console = {
        (job.route.gateway, job.body.text("prompt")): job.task_id for job in sandbox._state.jobs.values() if job.task_id not in known
    }
    for entry in entries:
        if entry.digest not in doubtful or entry.job is not None or entry.may_be_bought_again:
            continue
        if (task_id := console.get((entry.gateway, entry.request.prompt))) is not None:
            # On the console's word: asking the gateway for it may fail as any other call here.
            await adopt(journal, entry, task_id)
        else:
            await forget(journal, entry)


@pytest.mark.parametrize("jobs", [60, pytest.param(500, marks=pytest.mark.slow)])
async def test_three_gateways_of_which_each_call_may_fail(
    jobs: int, sandbox: SandboxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fifth of all calls fails in each of six ways, at submits, polls and downloads alike; who comes later asks in another order."""
    monkeypatch.setenv("HAPPYHORSE_CALL_TIMEOUT_S", "5")
    monkeypatch.setenv("HAPPYHORSE_HOME", str(tmp_path / "home"))
    # It would slow down to what so many refusals ask for, and time is not what is tried here.
    monkeypatch.setattr(RateLimiter, "refuse", lambda *_: None)
    for at, kinds in FAULTS.items():
        for kind in kinds:
            sandbox.fault(at=at, kind=kind, times=None, probability=0.2)
    store = Store(str(tmp_path / "outputs"))
    requests = [
        ReferenceToVideo(
            model="happyhorse-1.0-r2v",
            prompt=f"It runs {number}",
            references=("https://example.com/a.png",),
            resolution="720p",
            aspect_ratio="16:9",
            duration=5,
        )
        for number in range(jobs)
    ]
    shared = Shared()
    slots = asyncio.Semaphore(40)

    async def one(number: int, first: int) -> Exception | None:
        async with slots:
            return await _make(_pool(sandbox, store, shared, (number + first) % len(GATEWAYS)), requests[number])

    left, doubtful = set(range(jobs)), set[str]()
    for first in range(ROUNDS):
        ended = await asyncio.gather(*(one(number, first) for number in left))
        doubtful |= {error.digest for error in ended if isinstance(error, SubmissionUncertain) and error.digest is not None}
        await _settle(sandbox, _pool(sandbox, store, shared, 0), doubtful)
        kept = {entry.request.prompt for entry in (await Journal(store).entries()).entries if entry.state == "kept"}
        left = {number for number in left if requests[number].prompt not in kept}
        if not left:
            break
    at = defaultdict(set)
    for job in sandbox._state.jobs.values():
        at[job.body.text("prompt")].add(job.route.gateway)
    charged = Counter(job.body.text("prompt") for job in sandbox._state.jobs.values())
    assert len(sandbox.ledger()) == charged.total()
    struck = {(rule["at"], rule["kind"]) for rule in sandbox.faults() if rule["struck"]}
    assert struck == {(at, kind) for at, kinds in FAULTS.items() for kind in kinds}
    told = f"{jobs} jobs, {charged.total()} charges, {len(left)} not stored, {len(doubtful)} submits of which nobody knew"
    reasons = Counter(f"{type(error).__name__}: {error}"[:160] for error in ended if error is not None) if left else {}
    assert len(left) <= jobs * 0.01, (told, reasons)
    assert [prompt for prompt, gateways in at.items() if len(gateways) > 1] == [], told
    assert [prompt for prompt, count in charged.items() if count > 1] == [], told
    assert set().union(*at.values()) == set(GATEWAYS)
    logging.getLogger(__name__).info(told)
