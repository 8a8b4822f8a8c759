"""The batch that every part of the campaign makes, the person at the provider's console, and the judge."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path

import av
from PIL import Image
from pydantic import SecretStr

from prefect_happyhorse.domain.errors import GenerationError
from prefect_happyhorse.domain.requests import GenerationRequest, ReferenceToVideo, TextToImage, TextToVideo
from prefect_happyhorse.engine.download.exchange import DownloadOptions
from prefect_happyhorse.engine.jobs.manage import forget
from prefect_happyhorse.engine.jobs.poll import Poller
from prefect_happyhorse.engine.jobs.prepare import prepare
from prefect_happyhorse.engine.jobs.results import OutputStore
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.submit import Submitter
from prefect_happyhorse.engine.journal.journal import Journal, JournalEntry
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account
from prefect_happyhorse.sandbox import SandboxServer

__all__ = [
    "GATEWAYS",
    "Asked",
    "Verdict",
    "accounts_at",
    "accounts_of_environment",
    "added",
    "at_the_console",
    "judge",
    "make_all",
    "requests_of",
]

GATEWAYS = ("happyhorse", "infiflow", "uniall", "ttapi", "chanjing")
Asked = tuple[str, GenerationRequest]


def requests_of(count: int, *, batch: str = "batch") -> list[Asked]:
    """So many different requests for every gateway; their prompts tell them apart.

    Args:
        count: How many.
        batch: What makes this batch's prompts its own.
    """
    return [_request(GATEWAYS[number % len(GATEWAYS)], f"{batch} shot {number}") for number in range(count)]


def _request(gateway: str, prompt: str) -> Asked:
    if gateway == "happyhorse":
        return gateway, TextToImage(model="gpt-image-2", prompt=prompt)
    if gateway == "uniall":
        return gateway, TextToVideo(model="happy-horse-720p", prompt=prompt, aspect_ratio="16:9", duration=3)
    picture = ("https://example.com/a.png",)
    model = "happyhorse-1.0-r2v"
    return gateway, ReferenceToVideo(model=model, prompt=prompt, references=picture, resolution="720p", aspect_ratio="16:9", duration=3)


def accounts_at(base_url: str) -> dict[str, Account]:
    """An account of each gateway at a sandbox.

    Args:
        base_url: The sandbox's address.
    """
    return {name: Account(gateway=name, base_url=f"{base_url}/{name}", key=SecretStr("sesame-1234")) for name in GATEWAYS}


def accounts_of_environment() -> dict[str, Account]:
    """An account of each gateway, as a run finds it in its environment."""
    # Not at the top: with it comes Prefect, for which a process that is to be killed would wait.
    from prefect_happyhorse.blocks import GatewayCredentials

    return {name: GatewayCredentials.from_environment(name).to_account() for name in GATEWAYS}


_IMPATIENT = DownloadOptions(stall_s=0.5, backoff_s=0.01, backoff_max_s=0.02, retries=3)


async def _nap(seconds: float) -> None:
    await asyncio.sleep(min(seconds, 0.02))


async def make_all(asked: list[Asked], accounts: dict[str, Account], store: Store) -> list[BaseException | None]:
    """Make a batch through the engine, all at once and without patience.

    Args:
        asked: The batch.
        accounts: Who pays at each gateway.
        store: Where journal and files are kept.

    Returns:
        For each request None, or why it has no file yet.
    """

    async def one(gateway: str, request: GenerationRequest) -> None:
        account = accounts[gateway]
        job = await Submitter(store=store, sleep=_nap).submit(await prepare(request, account))
        result = await Poller(account=account, store=store, sleep=_nap, deadline_s=30).poll(job)
        await OutputStore(account=account, store=store, limits=_IMPATIENT).store_outputs(result)

    ended = await asyncio.gather(*(one(*each) for each in asked), return_exceptions=True)
    for error in ended:
        if error is not None and not isinstance(error, (GenerationError, OSError)):
            raise error
    return ended


async def at_the_console(sandbox: SandboxServer, asked: list[Asked], accounts: dict[str, Account], store: Store) -> int:
    """Be the person who looks each uncertain submit up at the provider: adopt what is there, forget what is not.

    Args:
        sandbox: The provider.
        asked: The batch.
        accounts: Who pays at each gateway.
        store: Where the journal lies.

    Returns:
        How many were looked up.
    """
    journal = Journal(store)
    looked_up = 0
    for gateway, request in asked:
        prepared = await prepare(request, accounts[gateway])
        entry = await journal.read(prepared.digest)
        if entry is None or entry.job is not None or entry.may_be_bought_again:
            continue
        looked_up += 1
        # What a provider's console shows of a job: among other things its prompt.
        found = [job for job in sandbox._state.jobs.values() if job.body.text("prompt") == request.prompt]
        if found:
            await Session(accounts[gateway], store).adopt(entry, found[0].task_id)
        else:
            await forget(journal, entry)
    return looked_up


@dataclass(frozen=True)
class Verdict:
    """What the ledger and the store say of a batch."""

    jobs: int
    charges: int
    double: int
    lost: int
    corrupt: int


def added(verdicts: list[Verdict]) -> Verdict:
    """The sum of several.

    Args:
        verdicts: The verdicts.
    """
    return Verdict(*(sum(getattr(one, field.name) for one in verdicts) for field in fields(Verdict)))


async def judge(sandbox: SandboxServer, asked: list[Asked], accounts: dict[str, Account], store: Store) -> Verdict:
    """Hold the sandbox's ledger against the journal and the files.

    Args:
        sandbox: The provider.
        asked: The batch.
        accounts: Who pays at each gateway.
        store: Where journal and files are kept.

    Returns:
        The verdict. Lost is a request without a kept file, a charge that stands nowhere in the journal, and an entry that cannot be read.
    """
    charged = [entry for entry in sandbox.ledger() if not entry.refunded]
    listing = await Journal(store).entries()
    entries = listing.entries
    known = {entry.job.task_id for entry in entries if entry.job is not None}
    kept = {entry.digest for entry in entries if entry.state == "kept"}
    wanted = {(await prepare(request, accounts[gateway])).digest for gateway, request in asked}
    unknown = [entry for entry in charged if entry.task_id not in known]
    return Verdict(
        jobs=len(asked),
        charges=len(charged),
        double=sum(count - 1 for count in Counter((entry.gateway, entry.digest) for entry in charged).values()),
        lost=len(wanted - kept) + len(unknown) + len(listing.unreadable),
        corrupt=await _spoilt(store, entries),
    )


async def _spoilt(store: Store, entries: list[JournalEntry]) -> int:
    if store.folder is not None:
        return sum(not _is_whole(file) for file in _visible(store.folder))
    assets = [entry.asset for entry in entries if entry.asset is not None]
    contents = [await store.read(store.path_of(asset.uri) or "") for asset in assets]
    return sum(hashlib.sha256(content).hexdigest() != asset.sha256 for content, asset in zip(contents, assets, strict=True))


def _visible(folder: Path) -> list[Path]:
    """What somebody sees who looks into the folder of outputs."""
    return [
        file
        for file in folder.rglob("*")
        if file.is_file() and file.suffix in {".png", ".mp4"} and not any(part.startswith(".") for part in file.parts)
    ]


def _is_whole(file: Path) -> bool:
    """Whether a file opens, and is what is said beside it; a run that was killed may not have said anything yet."""
    beside = file.with_name(f"{file.name}.json")
    if beside.exists() and json.loads(beside.read_text())["sha256"] != hashlib.sha256(file.read_bytes()).hexdigest():
        return False
    try:
        if file.suffix == ".png":
            with Image.open(file) as image:
                image.load()
        else:
            with av.open(str(file)) as container:
                assert sum(1 for _ in container.decode(video=0)) > 0
    except (OSError, av.FFmpegError, AssertionError):
        return False
    return True
