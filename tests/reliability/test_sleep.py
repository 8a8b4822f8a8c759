"""A buyer that stands still between a refusal and its next try, as a laptop does whose lid is shut, and what others do meanwhile."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.stack import until

from prefect_happyhorse.domain.requests import TextToImage
from prefect_happyhorse.engine.journal.journal import Journal
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.sandbox import SandboxServer

from .buyers import Buyer, command
from .conftest import Recorder
from .work import Asked, Verdict, accounts_at, added, judge

# Longer than all that happens meanwhile takes to begin: whoever is refused can not have asked again when it is stopped.
RETRY_AFTER_S = 8.0


class Night:
    """A laptop that falls asleep with some requests refused, and what happens meanwhile.

    Args:
        sandbox: The gateway.
        folder: Where the store lies.
        running: Ends the processes.
        count: How many pictures are bought at the same time.
        refusals: How often each is refused before the laptop sleeps.
    """

    def __init__(self, sandbox: SandboxServer, folder: Path, running: ExitStack, *, count: int = 1, refusals: int = 1) -> None:
        self.sandbox, self.folder, self.running, self.count = sandbox, folder, running, count
        self.store = str(folder / "outputs")
        sandbox.reset()
        sandbox.settings(job_s=0)
        asked = refusals * count
        if refusals > 1:
            sandbox.fault(at="submit", kind="throttle", retry_after_s=0.1, times=asked - count)
        last = sandbox.fault(at="submit", kind="throttle", retry_after_s=RETRY_AFTER_S, times=count)
        self.laptop = self.buyer("laptop")
        until(lambda: any(rule["number"] == last and rule["struck"] == count for rule in sandbox.faults()))
        self.laptop.stop()
        assert sandbox.ledger() == []

    def buyer(self, machine: str, **more: Any) -> Buyer:
        """One that buys the same pictures."""
        buyer = Buyer(self.running, self.folder, machine=machine)
        said = {"store": self.store, "options": {}, "base_url": self.sandbox.base_url("happyhorse"), "count": self.count}
        buyer.tell(said | {"on_uncertain": "raise"} | more)
        return buyer

    def digests(self) -> list[str]:
        return list(asyncio.run(Journal(Store(url=self.store)).revisions()))

    def verdict(self) -> Verdict:
        asked: list[Asked] = [("happyhorse", TextToImage(model="gpt-image-2", prompt=f"Horse {one}")) for one in range(self.count)]
        return asyncio.run(judge(self.sandbox, asked, accounts_at(self.sandbox.url), Store(url=self.store)))


def forgotten(night: Night) -> list[list[str]]:
    """Another machine is told that nobody knows, a person looks and forgets, and it buys."""
    told = night.buyer("tower").end()
    assert told.code != 0
    assert "SubmissionUncertain" in told.err
    assert night.sandbox.ledger() == []
    for digest in night.digests():
        done = command("--store", night.store, "forget", digest, "--yes", machine="tower")
        assert done.code == 0, done.err
    return night.buyer("tower").end().made


def resubmitted(night: Night) -> list[list[str]]:
    """Another machine was told to rather pay than ask."""
    return night.buyer("tower", on_uncertain="resubmit").end().made


def on_this_machine(night: Night) -> None:
    """A process that stands still is not gone: nobody of its machine buys in its place, and nobody forgets it."""
    told = night.buyer("laptop", on_uncertain="resubmit").end()
    assert told.code != 0
    assert "which is still alive and was silent for" in told.err
    for digest in night.digests():
        done = command("--store", night.store, "forget", digest, "--yes", machine="laptop")
        assert done.code != 0
        assert "is being submitted right now" in done.err


FULL = os.environ.get("CHAOS") == "full"
MEANWHILE = {each.__name__: each for each in (forgotten, on_this_machine, *([resubmitted] if FULL else []))}


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as running:
        yield running


@pytest.mark.parametrize("name", MEANWHILE)
def test_who_wakes_up_sends_nothing_that_may_be_anothers(
    sandbox: SandboxServer, tmp_path: Path, running: ExitStack, record: Recorder, name: str
) -> None:
    """Stopped after a 429 and before it would ask again, and woken when others have bought: it finds their pictures, each charged once."""
    moments = random.Random(name)  # noqa: S311 -- the same moments each time
    verdicts: list[Verdict] = []
    for number in range(5 if FULL else 1):
        sizes = {"count": moments.randint(1, 3), "refusals": moments.randint(1, 4)} if FULL else {}
        folder = tmp_path / f"{number}"
        folder.mkdir()
        night = Night(sandbox, folder, running, **sizes)
        others = MEANWHILE[name](night)
        night.laptop.wake()
        made = night.laptop.end().made
        assert others in (None, made)
        verdicts.append(night.verdict())
    record(f"asleep between a 429 and the next try: {name.replace('_', ' ')}", added(verdicts), runs=len(verdicts))
