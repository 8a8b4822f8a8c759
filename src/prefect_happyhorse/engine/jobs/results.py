"""Keep the outputs of a finished job: fetch each once, write down where it came from, and make a small picture of it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from prefect_happyhorse.catalog import find_differences, find_route
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.errors import CatalogError, GenerationError, InvalidRequest, JobExpired, Money, ProtocolError, error_context
from prefect_happyhorse.domain.jobs import Job, JobResult, JobStatus, Output
from prefect_happyhorse.domain.prices import Estimate
from prefect_happyhorse.domain.requests import iter_media
from prefect_happyhorse.domain.settings import current
from prefect_happyhorse.domain.texts import without_queries
from prefect_happyhorse.engine.download.download import DownloadOptions, StoredOutput, download, forget_partial
from prefect_happyhorse.engine.http.auth import TokenCache, TokenStore
from prefect_happyhorse.engine.http.client import is_local
from prefect_happyhorse.engine.http.connections import Client
from prefect_happyhorse.engine.http.result_key import ResultKey
from prefect_happyhorse.engine.http.ssrf import parse_url
from prefect_happyhorse.engine.jobs.poll import Poller
from prefect_happyhorse.engine.jobs.shared import PROCESS, Shared
from prefect_happyhorse.engine.journal.journal import JournalEntry
from prefect_happyhorse.engine.media.thumbnail import thumbnail_path
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.engine.telemetry import Step
from prefect_happyhorse.gateways import Account

__all__ = ["OutputStore", "StoredResult", "stored_thumbnail"]

_MOST_WARNINGS, _LONGEST_WARNING = 10, 200


@dataclass(frozen=True)
class StoredResult:
    """A stored asset and the thumbnails of it and its siblings.

    Args:
        asset: The first output; further ones are its siblings.
        thumbnails: Small JPEGs by the SHA-256 of what they show.
        inputs: The addresses of the media that the request held, where the journal knows it.
        failure: Why further outputs of the job are not stored, where it is so.
        earlier: The flow run that bought it, and when it was kept, where that was before.
    """

    asset: MediaAsset
    thumbnails: dict[str, bytes] = field(default_factory=dict, repr=False)
    inputs: tuple[str, ...] = ()
    failure: GenerationError | None = None
    earlier: tuple[str | None, datetime] | None = None

    def with_thumbnails(self) -> Iterator[tuple[MediaAsset, bytes | None]]:
        """Every asset with its small picture, or None where there is none."""
        for asset in (self.asset, *self.asset.siblings):
            yield asset, self.thumbnails.get(asset.sha256)


@dataclass(frozen=True)
class OutputStore:
    """Keeps outputs.

    Args:
        account: Who paid, for when a URL has to be polled again. Its key goes to no host but the gateway's own.
        store: Where outputs and the journal lie.
        tokens: Where access tokens are kept.
        limits: How long and how large a download may be; None for the usual limits.
        shared: What is shared with the rest of the process.
    """

    account: Account
    store: Store
    tokens: TokenCache = field(default_factory=TokenStore)
    limits: DownloadOptions | None = None
    shared: Shared = PROCESS

    async def store_outputs(self, result: JobResult) -> StoredResult:
        """Keep a job's outputs, or find that they are kept."""
        job = result.job
        journal = self.shared.journal(self.store)
        entry = await journal.latest(job.digest)
        if entry is not None and (whole := _kept(entry)) is not None and whole.job == job and await self._are_there([whole]) == [True]:
            return StoredResult(whole, await self._thumbnails(whole), _inputs(entry))
        async with self.shared.connections.client() as client:
            parent = None if entry is None else entry.traceparent
            url = result.outputs[0].url if result.outputs else None
            with client.telemetry.step("download", self.account, job, digest=job.digest, parent=parent, url=url) as step:
                return await self._store(client, result, entry, step)

    async def find_kept(self, digests: Collection[str]) -> dict[str, StoredResult]:
        """What was made of those requests of which all is kept, by their digests, without the small pictures."""
        read = self.shared.journal(self.store).read_some(digests)
        kept = [(one, asset) async for one in read if isinstance(one, JournalEntry) and (asset := _kept(one)) and asset.job == one.job]
        are_there = await self._are_there([asset for _, asset in kept])
        return {
            entry.digest: StoredResult(asset, inputs=_inputs(entry), earlier=(entry.flow_run_id, entry.updated_at))
            for (entry, asset), there in zip(kept, are_there, strict=True)
            if there
        }

    async def _store(self, client: Client, result: JobResult, entry: JournalEntry | None, step: Step) -> StoredResult:
        """Fetch a job's outputs, and write down which are kept."""
        job = result.job
        journal = self.shared.journal(self.store)
        with error_context(job):
            fetched = await asyncio.gather(
                *(self._fetch(client, result, index) for index in range(len(result.outputs))), return_exceptions=True
            )
            kept = [one for one in fetched if isinstance(one, StoredOutput)]
            came_bytes = sum(one.info.bytes for one in kept if not one.reused)
            step.tell("happyhorse.bytes", came_bytes)
            client.telemetry.count("downloaded_bytes", job.gateway, amount=came_bytes)
            # No failure of a download but a defect or the like: it is raised as it is, once what is there is recorded.
            other = next((one for one in fetched if isinstance(one, BaseException) and not isinstance(one, GenerationError)), None)
            if other is not None and not kept:
                raise other
            failure = _failure(fetched, job)
            if failure is not None and not kept:
                if isinstance(failure, JobExpired):
                    # Neither the gateway nor the address has it any more, so that it is not open for ever.
                    await journal.known_failure(failure, job)
                raise failure
        cost = None if entry is None else entry.estimate
        first, *others = (_compared(_asset(one, result, cost), entry, len(result.outputs)) for one in kept)
        asset = first.model_copy(update={"siblings": tuple(others)})
        thumbnails = {one.sha256: one.thumbnail for one in kept if one.thumbnail is not None}
        pictures = {thumbnail_path(sha256): jpeg for sha256, jpeg in thumbnails.items()}
        await self.store.write_all(
            {f"{stored.path}.json": _origin(one) for stored, one in zip(kept, (asset, *others), strict=True)} | pictures
        )
        # What is there of several outputs is kept and recorded, whatever became of the others.
        await journal.record(job, "kept" if len(kept) == len(fetched) else "succeeded", {"asset": asset, "result": result})
        for index, one in enumerate(fetched):
            if isinstance(one, StoredOutput):
                await forget_partial(job, index=index, store=self.store)
        if other is not None:
            raise other
        if failure is not None:
            step.failed(failure)
        return StoredResult(asset, thumbnails, _inputs(entry), failure)

    async def _are_there(self, assets: Sequence[MediaAsset]) -> list[bool]:
        """Of each asset whether its file and those of its siblings are in the store, as long as they were."""
        files = [[(self.store.path_of(one.uri), one.bytes) for one in (asset, *asset.siblings)] for asset in assets]
        lengths = await self.store.sizes([path for some in files for path, _ in some if path is not None])
        return [all(path is not None and lengths.get(path) == length for path, length in some) for some in files]

    async def _thumbnails(self, asset: MediaAsset) -> dict[str, bytes]:
        found = [(one.sha256, await stored_thumbnail(one, self.store)) for one in (asset, *asset.siblings)]
        return {sha256: jpeg for sha256, jpeg in found if jpeg is not None}

    async def _fetch(self, client: Client, result: JobResult, index: int) -> StoredOutput:
        job = result.job
        output = result.outputs[index]
        if output.is_inline and output.inline is None:
            # The bytes came inside the gateway's answer and were never written down, so the job is polled once more.
            output = await self._ask_again(job, index)
        key = ResultKey(client, self.account, self.tokens)
        if output.keyed and output.url is not None and not key.opens(parse_url(output.url)):
            # The gateway had another address then.
            output = await self._ask_again(job, index)
        return await download(
            output,
            job=job,
            index=index,
            store=self.store,
            client=client.http,
            slots=client.downloads,
            refresh=lambda: self._ask_again(job, index),
            local_allowed=is_local(self.account),
            expires_at=result.outputs_expire_at,
            options=self.limits,
            with_thumbnail=current().thumbnails,
            key=key,
        )

    async def _ask_again(self, job: Job, index: int) -> Output:
        state = await Poller(account=self.account, store=self.store, tokens=self.tokens, shared=self.shared).poll_once(job)
        if state.status is JobStatus.EXPIRED:
            raise JobExpired("The gateway does not know the job any more.", task_id=job.task_id, request_id=state.request_id)
        if state.status is not JobStatus.SUCCEEDED or index >= len(state.outputs):
            raise ProtocolError(
                f"The job was finished, and now the gateway says {state.provider_status!r} with {len(state.outputs)} outputs.",
                task_id=job.task_id,
                money=Money.SPENT,
            )
        return state.outputs[index]


def _kept(entry: JournalEntry) -> MediaAsset | None:
    """What was made of a request, once all of it is kept."""
    return entry.asset if entry.state == "kept" else None


def _origin(asset: MediaAsset) -> bytes:
    """What is written to `<file>.json`: where a file came from, for whoever finds it without the journal."""
    told = asset.model_copy(update={"url": asset.url and without_queries(asset.url)})
    return (told.model_dump_json(indent=2, exclude={"siblings"}, exclude_none=True) + "\n").encode()


def _failure(fetched: Sequence[StoredOutput | BaseException], job: Job) -> GenerationError | None:
    """What to tell of the outputs that could not be stored."""
    failures = [(index, one) for index, one in enumerate(fetched) if isinstance(one, GenerationError)]
    if not failures:
        return None
    index, error = failures[0]
    with suppress(GenerationError), error_context(job):
        raise error
    if len(fetched) > 1:
        others = sum(isinstance(one, StoredOutput) for one in fetched)
        error.args = (f"Output {index + 1} of {len(fetched)}: {error.message} Stored: {others} of {len(fetched)}.",)
    return error


async def stored_thumbnail(asset: MediaAsset, store: Store) -> bytes | None:
    """The small picture that was made of an asset when it was kept, or None."""
    try:
        return await store.read(thumbnail_path(asset.sha256))
    except FileNotFoundError:
        return None


def _inputs(entry: JournalEntry | None) -> tuple[str, ...]:
    media = () if entry is None else (medium for _, _, medium in iter_media(entry.request))
    return tuple(medium if isinstance(medium, str) else medium.uri for medium in media)


def _compared(asset: MediaAsset, entry: JournalEntry | None, outputs: int) -> MediaAsset:
    """The asset with what of it is not as the journal says that it was asked for."""
    if entry is None:
        return asset
    route = None
    # A gateway may be gone by now.
    with suppress(InvalidRequest, CatalogError):
        route = find_route(entry.gateway, entry.request.capability, entry.request.model)
    found = (*find_differences(asset, entry.request, route, outputs=outputs), *asset.warnings)
    return asset.model_copy(update={"warnings": tuple(text[:_LONGEST_WARNING] for text in found[:_MOST_WARNINGS])})


def _asset(kept: StoredOutput, result: JobResult, cost: Estimate | None) -> MediaAsset:
    return MediaAsset(
        kind=kept.info.kind,
        uri=kept.uri,
        url=kept.url,
        # A URL that was polled again expires later than the result says, and nobody knows when.
        url_expires_at=result.outputs_expire_at if any(kept.url == output.url for output in result.outputs) else None,
        media_type=kept.info.media_type,
        bytes=kept.info.bytes,
        sha256=kept.sha256,
        width=kept.info.width,
        height=kept.info.height,
        duration_s=kept.info.duration_s,
        fps=kept.info.fps,
        has_sound=kept.info.has_sound,
        c2pa=kept.info.c2pa,
        warnings=kept.info.warnings,
        job=result.job,
        finished_at=result.finished_at,
        estimate=cost,
        usage=result.usage,
    )
