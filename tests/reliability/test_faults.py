"""Whatever goes wrong between a request and its file, alone and mixed: one charge, one file."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from prefect_happyhorse.engine.jobs.shared import PROCESS
from prefect_happyhorse.engine.journal.journal import Journal
from prefect_happyhorse.engine.journal.spool import Spool
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account
from prefect_happyhorse.sandbox import SandboxServer

from .conftest import Recorder
from .work import GATEWAYS, Asked, Verdict, accounts_at, added, at_the_console, judge, make_all, requests_of

FULL = os.environ.get("CHAOS") == "full"
JOBS = 5

Rule = dict[str, Any]


def each(kind: str, *points: str, **more: Any) -> list[Rule]:
    """The same fault at several points, struck at every job and then once more."""
    return [{"at": point, "kind": kind, "times": JOBS + 1, **more} for point in points]


FAULTS: dict[str, list[Rule]] = {
    "reset before the request was read": each("drop_before", "submit", "poll", "download"),
    "reset after the request was read": each("drop_after", "submit", "poll", "download"),
    "time-out before the submit was accepted": each("stall_before", "submit", seconds=600, accept=False),
    "time-out after the submit was accepted": each("stall_after", "submit", seconds=600),
    "time-out of a poll": each("stall_before", "poll", seconds=600),
    "429 without Retry-After": each("throttle", "submit", "poll", "download"),
    "429 with Retry-After in seconds": each("throttle", "submit", "poll", "download", retry_after_s=1),
    "429 with Retry-After as a date": each("throttle", "submit", "poll", "download", retry_after_s=1, retry_after_as="date"),
    "500": each("http", "submit", "poll", "download", status=500),
    "502": each("http", "submit", "poll", "download", status=502, body="html"),
    "503": each("http", "submit", "poll", "download", status=503),
    "504 for an accepted submit": each("http", "submit", status=504, accept=True) + each("http", "poll", "download", status=504),
    "HTML in place of JSON": each("html", "submit", "poll", "download"),
    "HTML for an accepted submit": each("html", "submit", accept=True),
    "JSON cut short": each("garbage", "submit", "poll", "download"),
    "an error inside 200": each("error_in_200", "submit", "poll"),
    "an unknown status word": each("unknown_status", "poll"),
    "a status that goes backwards": each("backwards", "poll"),
    "a task id that is missing": each("no_task_id", "submit"),
    "a task that vanished for a while": each("vanish", "poll"),
    "an empty result": each("empty_result", "poll"),
    "a key that is refused for a while": each("unauthorized", "submit", "poll"),
    "a wrong content type": each("wrong_type", "download"),
    "a truncated body": each("truncate", "download", fraction=0.3),
    "a stalled body": each("stall_body", "download", seconds=600),
    "a redirect in a circle": each("redirect", "download"),
    "a redirect to a private address": each("redirect", "download", to="http://10.255.255.1/a.png"),
    "a redirect to the link-local address": each("redirect", "download", to="http://169.254.169.254/latest/meta-data"),
    "an expired address": each("expire", "download"),
}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # What takes a minute to give up takes half a second here.
    monkeypatch.setattr(PROCESS.connections, "_call_s", 0.5)
    monkeypatch.setenv("HAPPYHORSE_HOME", str(tmp_path / "home"))


async def weather(sandbox: SandboxServer, asked: list[Asked], accounts: dict[str, Account], store: Store) -> Verdict:
    """Make the batch in bad weather, twice; then in good, with a person looking up what is uncertain; and judge."""
    await make_all(asked, accounts, store)
    await make_all(asked, accounts, store)
    sandbox.clear_faults()
    sandbox.release()
    await at_the_console(sandbox, asked, accounts, store)
    assert await make_all(asked, accounts, store) == [None] * len(asked)
    return await judge(sandbox, asked, accounts, store)


@pytest.mark.parametrize("name", FAULTS)
async def test_each_fault_alone(sandbox: SandboxServer, tmp_path: Path, record: Recorder, name: str) -> None:
    """Struck at every job of every gateway, run again, and run once more when it is over."""
    sandbox.settings(job_s=0.05)
    for rule in FAULTS[name]:
        sandbox.fault(**rule)
    store = Store(url=str(tmp_path / "outputs"))
    verdict = await weather(sandbox, requests_of(JOBS, batch=name), accounts_at(sandbox.url), store)
    record(name, verdict, runs=1)


async def test_nobody_listens(sandbox: SandboxServer, tmp_path: Path, record: Recorder) -> None:
    """A refused connection bought nothing: the lease is given back, and the next run buys."""
    asked, store = requests_of(JOBS, batch="refused"), Store(url=str(tmp_path / "outputs"))
    nowhere = {
        name: Account(gateway=name, base_url="http://127.0.0.1:9", key=account.key) for name, account in accounts_at("http://x").items()
    }
    ended = await make_all(asked, nowhere, store)
    assert {getattr(error, "money", None) for error in ended} == {"not spent"}
    record("connection refused", await weather(sandbox, asked, accounts_at(sandbox.url), store), runs=1)


class BrokenStore(Store):
    """A store whose next so many operations of some kinds fail, as a full disk's or an unreachable one's do."""

    def break_down(self, moments: random.Random, code: int, kinds: tuple[str, ...], share: float, spared: tuple[str, ...] = ()) -> None:
        def broken(kind: str) -> Any:
            method = getattr(Store, kind)

            async def perhaps(what: str | dict[str, bytes], *args: Any, **kwargs: Any) -> Any:
                path = what if isinstance(what, str) else next(iter(what), "")
                if moments.random() < share and not path.endswith(spared):
                    raise OSError(code, os.strerror(code), path)
                return await method(self, what, *args, **kwargs)

            async def keep(file: Path, path: str, **how: Any) -> None:
                if moments.random() < share:
                    raise OSError(code, os.strerror(code), path)
                await Store.keep(self, file, path, **how)

            return keep if kind == "keep" else perhaps

        for kind in kinds:
            object.__setattr__(self, kind, broken(kind))

    def mend(self) -> None:
        for kind in ("create", "write", "write_all", "delete", "keep", "read", "size", "list", "folders"):
            self.__dict__.pop(kind, None)


@pytest.mark.parametrize("share", [0.2, 0.6, 1.0])
@pytest.mark.parametrize(
    ("name", "code", "kinds"),
    [
        ("a full disk", errno.ENOSPC, ("create", "write", "write_all", "keep")),
        ("a store that is down", errno.EIO, ("create", "write", "write_all", "delete", "keep", "read", "size", "list", "folders")),
    ],
)
async def test_the_store_fails(
    sandbox: SandboxServer, tmp_path: Path, record: Recorder, name: str, code: int, kinds: tuple[str, ...], share: float
) -> None:
    """At a fifth, at most and at all of its operations, also while the gateway has just accepted."""
    sandbox.settings(job_s=0.05)
    store = BrokenStore(url=str(tmp_path / "outputs"))
    asked, accounts = requests_of(JOBS, batch=name), accounts_at(sandbox.url)
    store.break_down(random.Random(7), code, kinds, share)  # noqa: S311 -- the same moments each time
    await make_all(asked, accounts, store)
    await make_all(asked, accounts, store)
    store.mend()
    record(f"{name}, {share:.0%} of its operations", await weather(sandbox, asked, accounts, store), runs=1)


async def test_the_store_fails_once_a_job_is_accepted(sandbox: SandboxServer, tmp_path: Path, record: Recorder) -> None:
    """The lease could be written, the job cannot: it goes on, and no later run buys it again."""
    sandbox.settings(job_s=0.05)
    store = BrokenStore(url=str(tmp_path / "outputs"))
    asked, accounts = requests_of(JOBS, batch="accepted"), accounts_at(sandbox.url)
    await PROCESS.prove(Journal(store))
    # The first revision of an entry is its lease.
    store.break_down(random.Random(7), errno.ENOSPC, ("create", "write", "write_all", "keep"), 1.0, spared=(".1.json",))  # noqa: S311
    await make_all(asked, accounts, store)
    assert len(sandbox.ledger()) == len(await Spool(store.url).digests()) == JOBS
    store.mend()
    assert {entry.state for entry in (await Journal(store).entries()).entries} == {"submitted"}
    record("a disk that is full once the job is accepted", await weather(sandbox, asked, accounts, store), runs=1)


@pytest.mark.parametrize("days", [-2, 2])
async def test_the_clock_jumps(sandbox: SandboxServer, tmp_path: Path, record: Recorder, days: int) -> None:
    """Between two runs every time that was written moves by two days: the jobs are asked for, collected, and not bought again."""
    sandbox.settings(job_s=0.3)
    store = Store(url=str(tmp_path / "outputs"))
    asked, accounts = requests_of(JOBS, batch="clock"), accounts_at(sandbox.url)
    sandbox.fault(at="poll", kind="drop_before", times=None)
    sandbox.fault(at="submit", kind="drop_after", times=2)
    running = asyncio.create_task(make_all(asked, accounts, store))
    while len(sandbox.ledger()) < JOBS:  # noqa: ASYNC110 -- the ledger is another thread's, and has no event to wait for
        await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait({running})
    sandbox.clear_faults()
    # Meanwhile the jobs have finished: with two days gone, each run asks only once before the deadline has passed.
    sandbox.advance(60)
    for file in (tmp_path / "outputs" / "journal").glob("??/*.json"):
        file.write_text(json.dumps(_shifted(json.loads(file.read_text()), timedelta(days=days))))
    record(f"a clock that jumps by {-days} days", await weather(sandbox, asked, accounts, store), runs=1)


def _shifted(value: Any, by: timedelta) -> Any:
    if isinstance(value, dict):
        return {name: _shifted(one, by) for name, one in value.items()}
    if isinstance(value, list):
        return [_shifted(one, by) for one in value]
    try:
        return (datetime.fromisoformat(value.replace("Z", "+00:00")) + by).astimezone(timezone.utc).isoformat()
    except (AttributeError, ValueError, TypeError):
        return value


SINGLE = [rule for rules in FAULTS.values() for rule in rules]


def test_faults_mixed_at_random(running_sandbox: SandboxServer, tmp_path_factory: pytest.TempPathFactory, record: Recorder) -> None:
    """Up to five of them at once, each striking when it will."""
    verdicts: list[Verdict] = []

    @settings(
        max_examples=150 if FULL else 8,
        derandomize=True,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(
        rules=st.lists(st.sampled_from(SINGLE), min_size=1, max_size=5),
        times=st.integers(1, 3),
        after=st.lists(st.integers(0, 4), min_size=5, max_size=5),
        gateway=st.one_of(st.none(), st.sampled_from(GATEWAYS)),
    )
    def weather_of(rules: list[Rule], times: int, after: list[int], gateway: str | None) -> None:
        running_sandbox.reset()
        running_sandbox.settings(job_s=0.05, media="tiny", check_inputs="never")
        for rule, calls in zip(rules, after, strict=False):
            running_sandbox.fault(**(rule | {"times": times, "after": calls, "gateway": gateway}))
        store = Store(url=str(tmp_path_factory.mktemp("mixed") / "outputs"))
        verdicts.append(asyncio.run(weather(running_sandbox, requests_of(JOBS, batch="mixed"), accounts_at(running_sandbox.url), store)))

    weather_of()
    record("one to five of these at random", added(verdicts), runs=len(verdicts))
