"""A journal some of whose files somebody or something has spoilt, and what may be expected of the others."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect_happyhorse.domain.errors import SubmissionUncertain
from prefect_happyhorse.engine.jobs.prepare import prepare
from prefect_happyhorse.engine.jobs.submit import Submitter
from prefect_happyhorse.engine.journal.journal import Journal
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.sandbox import SandboxServer

from .work import Verdict, accounts_of_environment, judge, make_all, requests_of

__all__ = ["DAMAGES", "SpoiltJournal"]

DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "empty": lambda _, __: b"",
    "cut": lambda content, moments: content[: moments.randrange(1, len(content) - 1)],
    "no JSON": lambda content, moments: bytes(moments.randrange(128, 256) for _ in content),
    "a byte too many": lambda content, moments: content + bytes([moments.choice(b"}],x\x00")]),
    "nested": lambda _, __: b'{"version": ' + b"[" * 100_000,
    "of a later form": lambda content, _: content.replace(b'"version": 2', b'"version": 3'),
    "another type": lambda content, _: b"[" + content + b"]",
}

_UNKNOWN = {"mood": {"of": ["a", "later", {"version": 7}]}}
_UNKNOWN_OF_JOB = {"lane": "fast"}


class SpoiltJournal:
    """Jobs that are kept, open, open with unknown fields, and open with a spoilt file; and a spoilt file under which nothing was bought.

    Args:
        sandbox: Where they are bought.
        folder: Where the store lies.
        moments: Says what is spoilt, and how.
        damages: How each of so many files is spoilt.
        others: How many jobs of each other kind there are.
    """

    def __init__(self, sandbox: SandboxServer, folder: Path, moments: random.Random, damages: list[str], *, others: int = 2) -> None:
        self.sandbox = sandbox
        self.accounts = accounts_of_environment()
        self.store = Store(url=str(folder))
        self.folder = folder
        self.asked = requests_of(3 * others + len(damages) + 1, batch=folder.parent.name)
        moments.shuffle(self.asked)
        self.digests = asyncio.run(self._digests())
        self.kept, self.open, self.marked, rest = (
            self.digests[:others],
            self.digests[others : 2 * others],
            self.digests[2 * others : 3 * others],
            self.digests[3 * others :],
        )
        *self.spoilt, self.stray = rest
        asyncio.run(self._buy(others))
        self.whole: dict[Path, bytes] = {}
        for digest, damage in zip(self.spoilt, damages, strict=True):
            file = self.latest(digest)
            self.whole[file] = file.read_bytes()
            file.write_bytes(DAMAGES[damage](self.whole[file], moments))
        for digest in self.marked:
            file = self.latest(digest)
            facts = json.loads(file.read_text(encoding="utf-8"))
            file.write_text(json.dumps(facts | _UNKNOWN | {"job": facts["job"] | _UNKNOWN_OF_JOB}), encoding="utf-8")
        self.stray_file = folder / "journal" / self.stray[:2] / f"{self.stray}.1.json"
        self.stray_file.parent.mkdir(exist_ok=True)
        self.stray_file.write_bytes(DAMAGES[damages[0]](next(iter(self.whole.values())), moments))

    async def _digests(self) -> list[str]:
        return [(await prepare(request, self.accounts[gateway])).digest for gateway, request in self.asked]

    async def _buy(self, kept: int) -> None:
        assert await make_all(self.asked[:kept], self.accounts, self.store) == [None] * kept
        for gateway, request in self.asked[kept:-1]:
            await Submitter(store=self.store).submit(await prepare(request, self.accounts[gateway]))

    def latest(self, digest: str) -> Path:
        """The file of an entry's latest revision."""
        journal = Journal(self.store)
        return self.folder / journal.path(digest, asyncio.run(journal.revision(digest)))

    @property
    def spoilt_files(self) -> list[str]:
        """The names of the files that cannot be read."""
        return [file.name for file in (*self.whole, self.stray_file)]

    def states(self) -> dict[str, str]:
        """The state of each entry that can be read."""
        return {entry.digest: entry.state for entry in asyncio.run(Journal(self.store).entries()).entries}

    def buys_nothing_under_them(self) -> bool:
        """Whether the requests of spoilt files are refused, and nothing is charged."""
        before = len(self.sandbox.ledger())
        asked = [one for one, digest in zip(self.asked, self.digests, strict=True) if digest in {*self.spoilt, self.stray}]
        refused = asyncio.run(make_all(asked, self.accounts, self.store))
        return all(isinstance(error, SubmissionUncertain) for error in refused) and len(self.sandbox.ledger()) == before

    def keeps_unknown_fields(self) -> bool:
        """Whether what a later version wrote still stands in the entries."""

        def told(digest: str) -> bool:
            facts: dict[str, Any] = json.loads(self.latest(digest).read_text(encoding="utf-8"))
            return _UNKNOWN.items() <= facts.items() and _UNKNOWN_OF_JOB.items() <= facts["job"].items()

        return all(map(told, self.marked))

    def mend(self) -> None:
        """Put back what was in the spoilt files."""
        for file, content in self.whole.items():
            file.write_bytes(content)

    def verdict(self) -> Verdict:
        """Make what is not made yet, and hold the ledger against the journal."""

        async def finish() -> Verdict:
            assert await make_all(self.asked, self.accounts, self.store) == [None] * len(self.asked)
            return await judge(self.sandbox, self.asked, self.accounts, self.store)

        return asyncio.run(finish())
