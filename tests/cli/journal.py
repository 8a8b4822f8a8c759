"""What the tests of `happyhorse jobs` have in common: requests, a way to run a command, and what stands in a journal."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from click.testing import CliRunner, Result

from prefect_happyhorse.cli import main
from prefect_happyhorse.domain.errors import SubmissionUncertain
from prefect_happyhorse.domain.requests import ReferenceToVideo, TextToImage
from prefect_happyhorse.engine.jobs.prepare import prepare
from prefect_happyhorse.engine.jobs.submit import Submitter
from prefect_happyhorse.engine.journal.journal import Journal, JournalEntry
from prefect_happyhorse.engine.storage.store import Store

HORSE = TextToImage(model="gpt-image-2", prompt="A white [horse]")
RIDE = ReferenceToVideo(
    model="happyhorse-1.0-r2v", prompt="It runs", references=("https://example.com/a.png",), resolution="720p", duration=5
)


def run(*arguments: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(main, ["jobs", *arguments], input=typed)


async def _buy(store: Store, request: TextToImage | ReferenceToVideo, gateway: str, take: int) -> JournalEntry:
    from prefect_happyhorse.blocks import GatewayCredentials

    account = GatewayCredentials.from_environment(gateway).to_account()
    prepared = await prepare(request, account, take=take)
    with suppress(SubmissionUncertain):
        await Submitter(store=store).submit(prepared)
    entry = await Journal(store).read(prepared.digest)
    assert entry is not None
    return entry


def bought(store: Store, *, take: int = 1) -> JournalEntry:
    return asyncio.run(_buy(store, HORSE, "happyhorse", take))


def riding(store: Store, *, take: int = 1) -> JournalEntry:
    return asyncio.run(_buy(store, RIDE, "infiflow", take))


def entry_of(store: Store, digest: str) -> JournalEntry | None:
    return asyncio.run(Journal(store).read(digest))


def write(store: Store, entry: JournalEntry) -> None:
    """Write an entry in the place of the one that is there."""
    asyncio.run(Journal(store).update(entry.digest, lambda _: entry))
