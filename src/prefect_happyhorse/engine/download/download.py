"""Download the outputs of a job into a store: whole, checked, once, and continued from where an earlier attempt ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

import httpx
from anyio import to_thread

from prefect_happyhorse.domain.errors import DownloadFailed, GenerationError, JobExpired, error_context
from prefect_happyhorse.domain.jobs import Job, Output
from prefect_happyhorse.domain.texts import without_queries
from prefect_happyhorse.domain.values import AssetKind
from prefect_happyhorse.engine.download.attempt import OnBytes, Transfer
from prefect_happyhorse.engine.download.exchange import DownloadOptions, FetchProblem, UnknownFormat
from prefect_happyhorse.engine.download.part_file import Finished, Partial, lock_partial, open_partial, partial_key
from prefect_happyhorse.engine.http.rate_limit import backoff_s
from prefect_happyhorse.engine.http.result_key import ResultKey
from prefect_happyhorse.engine.http.urls import stable_url
from prefect_happyhorse.engine.media.probe import MediaInfo, MediaNotReadable, in_decoder
from prefect_happyhorse.engine.media.thumbnail import thumbnail
from prefect_happyhorse.engine.storage.local import CHUNK_BYTES
from prefect_happyhorse.engine.storage.store import Store

__all__ = ["DownloadOptions", "OnBytes", "StoredOutput", "download", "forget_partial"]

_log = logging.getLogger(__name__)

_LOCK_WAIT_S = 0.2
_COLLECT_AGAIN = "Collect the job again; nothing is bought anew."


def _now() -> datetime:
    return datetime.now(timezone.utc)


@dataclass(frozen=True)
class StoredOutput:
    """An output in the store, and the provider's address that it came from; `reused` when it was there already.

    The thumbnail is None where none was requested or none could be made.
    """

    path: str
    uri: str
    sha256: str
    info: MediaInfo
    url: str | None
    reused: bool = False
    thumbnail: bytes | None = field(default=None, repr=False)


async def download(
    output: Output,
    *,
    job: Job,
    index: int = 0,
    store: Store,
    client: httpx.AsyncClient,
    slots: AbstractAsyncContextManager[object] | None = None,
    refresh: Callable[[], Awaitable[Output]],
    local_allowed: bool = False,
    expires_at: datetime | None = None,
    options: DownloadOptions | None = None,
    on_bytes: OnBytes | None = None,
    with_thumbnail: bool = False,
    key: ResultKey | None = None,
    now: Callable[[], datetime] = _now,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> StoredOutput:
    """Download one output of a job into the store.

    Only the client's connections are used: no key, header or cookie of it is sent. The account's key is sent for an output that needs it,
    and only to the gateway's own origin. An attempt that breaks off is continued where it ended,
    in another process too, if the server supports that. An output that is finished is not fetched again until `forget_partial` is called.
    Each attempt holds one of the slots, where there are any.
    """
    options = options or DownloadOptions()
    transfer = Transfer(output.kind, client, options, local_allowed, on_bytes, now, with_thumbnail, key=key)
    with error_context(job):
        return await _Download(output, job, index, store, transfer, slots or nullcontext(), options, refresh, expires_at, sleep).run()


async def forget_partial(job: Job, *, index: int = 0, store: Store) -> None:
    """Drop the partial file and its state, once the journal holds the output."""

    def forget() -> None:
        folder, key = store.scratch_dir(), partial_key(job, index)
        lock = lock_partial(folder, key)
        # Whoever holds the lock finds the finished file by this state, and drops it afterwards.
        if lock is not None:
            try:
                Partial(folder, key, checkpoint_bytes=1).forget()
            finally:
                lock.release()

    await to_thread.run_sync(forget)


@dataclass
class _Download:
    output: Output
    job: Job
    index: int
    store: Store
    transfer: Transfer
    slots: AbstractAsyncContextManager[object]
    options: DownloadOptions
    refresh: Callable[[], Awaitable[Output]]
    expires_at: datetime | None
    sleep: Callable[[float], Awaitable[None]]

    async def run(self) -> StoredOutput:
        try:
            async with self._locked() as partial:
                finished = partial.finished
                if finished is not None and await self.store.holds(finished.path, length=finished.info.bytes, sha256=finished.sha256):
                    file = None if self.store.folder is None else self.store.folder / finished.path
                    return self._stored(finished, await self._thumbnail(file, finished.info), reused=True)
                if finished is not None and partial.sha256 == finished.sha256:
                    return await self._store(partial, finished.info, await self._thumbnail(partial.path, finished.info))
                return await self._store(partial, *await self._fetch(partial))
        except FileExistsError as error:
            why = f"another file lies at {error.filename}, and nothing is overwritten"
            raise self._failed(why, advice="Move that file away and collect the job again.") from error
        except (OSError, ImportError) as error:
            why = f"it could not be written to {self.store.url}: {error}"
            raise self._failed(why, advice="Free some space or repair the store, then collect the job again.") from error

    @asynccontextmanager
    async def _locked(self) -> AsyncGenerator[Partial, None]:
        """The partial file, once no other process or task holds its lock: by then that one has finished it, or has died."""
        how = (self.store.scratch_dir, partial_key(self.job, self.index), self.options.checkpoint_bytes)
        while (found := await to_thread.run_sync(open_partial, *how)) is None:
            await self.sleep(_LOCK_WAIT_S)
        partial, lock = found
        try:
            yield partial
        finally:
            partial.close()
            lock.release()

    async def _fetch(self, partial: Partial) -> tuple[MediaInfo, bytes | None]:
        """Fetch and check the output, with as many attempts as the options allow."""
        failures = refreshes = high_water = 0
        while True:
            try:
                async with self.slots:
                    return await self.transfer.run(self.output, partial, self.expires_at)
            except FetchProblem as problem:
                if partial.high_water - high_water >= CHUNK_BYTES:
                    # Each attempt brings something new.
                    failures, high_water = 0, partial.high_water
                if problem.remedy == "refresh" and refreshes < self.options.refreshes:
                    refreshes += 1
                    try:
                        self.output = await self._refreshed(problem)
                    except GenerationError:
                        if not isinstance(problem, UnknownFormat):
                            raise
                        refreshes = self.options.refreshes
                elif isinstance(problem, UnknownFormat):
                    # It was no passing fault. What was paid for is kept as it is, rather than left to expire.
                    self.transfer = replace(self.transfer, unknown_allowed=True)
                elif problem.remedy == "retry" and failures < self.options.retries:
                    failures += 1
                    await self.sleep(self._backoff_s(failures, problem))
                else:
                    tried = f" ({refreshes} fresh address{'es' if refreshes > 1 else ''} tried too)" if refreshes else ""
                    raise self._failed(problem.message + tried, advice=_COLLECT_AGAIN, status_code=problem.status_code) from problem

    def _backoff_s(self, failures: int, problem: FetchProblem) -> float:
        longest_s = self.options.backoff_max_s
        return max(backoff_s(failures, first_s=self.options.backoff_s, longest_s=longest_s), min(problem.retry_after_s or 0.0, longest_s))

    async def _refreshed(self, problem: FetchProblem) -> Output:
        # How long the fresh address lives is not known here; the server will refuse it when it has expired.
        self.expires_at = None
        try:
            return await self.refresh()
        except JobExpired as error:
            raise error from problem
        except GenerationError as error:
            why = f"{problem.message}, and the gateway gave no fresh address: {error.message}"
            raise self._failed(why, advice=_COLLECT_AGAIN, code=error.code, status_code=error.status_code) from error

    async def _store(self, partial: Partial, info: MediaInfo, thumbnail: bytes | None) -> StoredOutput:
        if info.format == "bin":
            _log.warning(
                "Output %d of job %s is in no media format that is known here; it is kept as it came.", self.index + 1, self.job.task_id
            )
        path = self.store.path_for(self.job, index=self.index, extension=info.extension, kind=info.kind)
        finished = Finished(path=path, sha256=partial.sha256, info=info)
        await self.store.keep(partial.path, path, first=lambda: partial.finish(finished))
        return self._stored(finished, thumbnail, reused=False)

    async def _thumbnail(self, file: Path | None, info: MediaInfo) -> bytes | None:
        if file is None or not self.transfer.with_thumbnail or info.format == "bin":
            return None
        return await in_decoder(_thumbnail, file, info.kind)

    def _stored(self, finished: Finished, thumbnail: bytes | None, *, reused: bool) -> StoredOutput:
        uri = self.store.uri(finished.path)
        # An address that only the key opens is of no use to whoever is handed the asset, another gateway for example.
        url = None if self.output.keyed else self.output.url
        return StoredOutput(finished.path, uri, finished.sha256, finished.info, url, reused=reused, thumbnail=thumbnail)

    def _failed(self, why: str, *, advice: str, code: str | None = None, status_code: int | None = None) -> GenerationError:
        at = "" if self.output.url is None else f" from {without_queries(stable_url(self.output.url))}"
        message = f"Output {self.index + 1} could not be downloaded{at}: {why}."
        return DownloadFailed(message, advice=advice, code=code, status_code=status_code)


def _thumbnail(file: Path, kind: AssetKind) -> bytes | None:
    try:
        return thumbnail(file, kind)
    except (MediaNotReadable, OSError):
        # A card without a picture is no reason to lose a file that is whole.
        return None
