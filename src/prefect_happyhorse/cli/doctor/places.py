"""Whether the store keeps two buyers apart, others can read it, there is room, and the journal is in order."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from pathlib import Path

from anyio import to_thread

from prefect_happyhorse.blocks import MediaStore
from prefect_happyhorse.cli.doctor.findings import Finding, ok, problem, warning
from prefect_happyhorse.cli.doctor.server import api_url
from prefect_happyhorse.domain.errors import SubmissionUncertain
from prefect_happyhorse.domain.settings import current
from prefect_happyhorse.engine.download.exchange import DownloadOptions, FetchProblem, open_result
from prefect_happyhorse.engine.http.connections import Connections
from prefect_happyhorse.engine.http.ssrf import host_of, is_local_host
from prefect_happyhorse.engine.inputs.upload import INPUTS_FOLDER
from prefect_happyhorse.engine.jobs.shared import PROCESS
from prefect_happyhorse.engine.journal.index import contents
from prefect_happyhorse.engine.journal.journal import JournalEntry
from prefect_happyhorse.engine.storage.machine import cache_folder, state_folder
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.tasks.resolve import why_it_would_be_lost

__all__ = ["check_home", "check_journal", "check_store"]

_GIB = 1024**3
_LITTLE = 5 * _GIB
_TOO_LITTLE = _GIB // 2
_NEAR = timedelta(hours=2)
# A submit takes a minute or two; one that takes an hour was left.
_LONG = timedelta(hours=1)
_SHOWN = 3


class _NoStore(Exception):
    """There is no such store."""


async def _find(url: str | None, block: str | None) -> tuple[Store, str]:
    """The store, and its URL as it was given."""
    if block is not None and api_url() is None:
        raise _NoStore(f"no server holds the block {block!r}: set PREFECT_API_URL")
    try:
        found = await MediaStore.find(block) if block else MediaStore(url=url or current().store or "outputs")
        return found.to_store(), found.url
    except (ValueError, OSError) as error:
        raise _NoStore(str(error)) from error


async def check_store(url: str | None, block: str | None, *, call_s: float) -> list[Finding]:
    """Whether the store refuses the second of two who create a file, and others read it as a provider does."""
    try:
        store, given = await _find(url, block)
    except _NoStore as error:
        return [problem("store", str(error), "Name a folder, a URL such as s3://bucket/outputs, or a saved block.")]
    is_named = bool(url or block or current().store)
    found = [*_lasting(store, given, is_named=is_named), *await _room(store)]
    if not is_named and store.folder is not None and not store.folder.exists():
        return found
    try:
        await store.prove(f"journal/proofs/{uuid.uuid4().hex}")
    except (OSError, ImportError) as error:
        what = "Install it" if isinstance(error, ImportError) else "Give a store that can be written, and that knows conditional writes"
        advice = f"{what}. Until then nothing is submitted."
        return [*found, problem("store", f"{store.url}: {error}", advice)]
    return [*found, ok("store", f"{store.url} refuses the second of two who create a file"), await _public(store, call_s)]


def _lasting(store: Store, url: str, *, is_named: bool) -> Iterable[Finding]:
    if (why := why_it_would_be_lost(url, store, is_named=is_named)) is None:
        return []
    advice = "Name an absolute folder or a URL by HAPPYHORSE_STORE, in the worker's environment too, or a block."
    return [warning("worker's folder", f"a deployment's run would be refused, for its outputs could be lost: {why}", advice)]


async def _public(store: Store, call_s: float) -> Finding:
    """Write a small file, and fetch it by the address that a provider would be given."""
    check = "public address"
    content = uuid.uuid4().hex.encode()
    path = f"{INPUTS_FOLDER}/doctor-{content.decode()}.txt"
    advice = "A provider would not get your pictures either: correct public_base_url of the MediaStore block, or who may read the store."
    try:
        url = await store.public_url(path)
        if url is None:
            return ok(check, "the store has none; what you give from it travels inside the request, where a gateway takes that")
        if is_local_host(host_of(url) or ""):
            return warning(check, f"{host_of(url)} is reached from this network alone", "Gateways on the internet need a public one.")
        await store.write(path, content)
        try:
            options = DownloadOptions(connect_s=call_s, stall_s=call_s)
            async with (
                Connections(call_s=call_s).client() as client,
                open_result(client.http, url, headers={}, options=options, local_allowed=True) as response,
            ):
                there = await response.aread()
        finally:
            await store.delete(path)
    except (FetchProblem, OSError, ImportError) as error:
        return problem(check, f"a file cannot be fetched by it: {error}", advice)
    if there != content:
        return problem(check, "another file comes by it than was written", advice)
    return ok(check, f"{host_of(url)} gives what is written, as seen from here")


async def _room(store: Store) -> list[Finding]:
    folders = {"outputs": store.folder} if store.folder is not None else {"partial downloads": cache_folder()}
    return await to_thread.run_sync(lambda: [_disk(what, folder) for what, folder in folders.items()])


def _disk(what: str, folder: Path) -> Finding:
    there = next((place for place in (folder, *folder.parents) if place.exists()), folder)
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        return problem("disk", f"the room for {what} is not known: {error}", "Check the folder.")
    said = f"{free / _GIB:.1f} GiB are free for {what} ({there})"
    if free >= _LITTLE:
        return ok("disk", said)
    advice = "Make room: one output may have up to 5 GiB."
    return problem("disk", said, advice) if free < _TOO_LITTLE else warning("disk", said, advice)


async def check_home(url: str | None, block: str | None) -> list[Finding]:
    """Whether a job that the store would not take can be written down on this machine, and whether such jobs wait."""
    folder = state_folder()
    try:
        spool = PROCESS.journal((await _find(url, block))[0]).spool
        await spool.check()
        here = len(await spool.digests())
        elsewhere = await to_thread.run_sync(lambda: len(list(folder.glob("spool/*/*.json")))) - here
    except _NoStore:
        return []
    except OSError as error:
        advice = "Name another folder by the setting home. Until then nothing is submitted."
        return [problem("spool", f"{folder} cannot be written: {error}", advice)]
    found: list[Finding] = []
    if here:
        found.append(problem("spool", f"{here} paid jobs wait for the store in {spool}", "`happyhorse jobs list` brings them into it."))
    if elsewhere:
        advice = "`happyhorse jobs --store URL list` with the store's URL brings them into it."
        found.append(warning("spool", f"{elsewhere} paid jobs wait in {folder / 'spool'} for other stores", advice))
    return found or [ok("spool", f"{folder} can be written, and no job waits in it")]


async def check_journal(url: str | None, block: str | None) -> list[Finding]:
    """What of the journal cannot be read, and which jobs need somebody."""
    try:
        store, _ = await _find(url, block)
    except _NoStore:
        return []
    if store.folder is not None and not store.folder.exists():
        return [ok("journal", "there is none yet")]
    journal = PROCESS.journal(store)
    try:
        await journal.check_form()
        lines, entries, unreadable = await contents(journal, read_only=True)
    except SubmissionUncertain as error:
        return [problem("journal", error.message, error.advice or "")]
    except (OSError, ImportError) as error:
        return [problem("journal", f"{store.url} cannot be read: {error}", "See what is said of the store.")]
    found = [problem("journal", one.error.message, one.error.advice or "") for one in unreadable[:_SHOWN]]
    if len(unreadable) > _SHOWN:
        what = f"{len(unreadable) - _SHOWN} more entries cannot be read"
        found.append(problem("journal", what, "`happyhorse jobs list` names each."))
    found += _open(entries)
    return found or [ok("journal", f"all is in order: {len(lines)} {'entry' if len(lines) == 1 else 'entries'}, {len(entries)} open")]


def _open(entries: list[JournalEntry]) -> list[Finding]:
    now = datetime.now(timezone.utc)
    kinds: dict[str, list[JournalEntry]] = {"left": [], "uncertain": [], "over": [], "near": []}
    for entry in entries:
        ends = None if entry.job is None else entry.job.expires_at
        if entry.state == "uncertain":
            kinds["uncertain"].append(entry)
        elif entry.state == "intent":
            if entry.owner.lives() is False or now - entry.begun_at > _LONG:
                kinds["left"].append(entry)
        elif ends is not None and ends - now < _NEAR:
            kinds["over" if ends < now else "near"].append(entry)
    collect = "`happyhorse jobs resume DIGEST`, or the flow collect, now."
    told = {
        "left": (
            problem,
            "submits were begun and left, so nobody knows whether they were accepted",
            "`happyhorse jobs show DIGEST` says how to find out.",
        ),
        "uncertain": (problem, "submits may have been accepted", "`happyhorse jobs show DIGEST` says how to find out."),
        "over": (problem, "paid jobs were not collected in their life", f"An address may still be good: {collect}"),
        "near": (warning, f"paid jobs end within {_NEAR.seconds // 3600} hours and are not collected", f"Collect them: {collect}"),
    }
    found: list[Finding] = []
    for kind, (level, what, advice) in told.items():
        if ones := kinds[kind]:
            digests = ", ".join(entry.digest[:12] for entry in ones[:_SHOWN]) + (", ..." if len(ones) > _SHOWN else "")
            found.append(level("journal", f"{len(ones)} {what}: {digests}", advice))
    return found
