"""Fetch the outputs of a job into a store: whole, checked, once, and on from where an earlier attempt ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import httpx
from anyio import to_thread

from prefect_happyhorse.domain.errors import DownloadFailed, GenerationError, JobExpired
from prefect_happyhorse.domain.jobs import Job, Output
from prefect_happyhorse.domain.values import AssetKind
from prefect_happyhorse.engine.download.attempt import Progress, Transfer, is_inline
from prefect_happyhorse.engine.download.exchange import DownloadOptions, FetchProblem
from prefect_happyhorse.engine.download.part_file import Finished, Partial, lock_partial, partial_key
from prefect_happyhorse.engine.http.client import download_turn
from prefect_happyhorse.engine.http.rate_limit import backoff_s
from prefect_happyhorse.engine.http.urls import stable_url
from prefect_happyhorse.engine.media.probe import MediaNotReadable, Probe, decoders
from prefect_happyhorse.engine.media.thumbnail import poster
from prefect_happyhorse.engine.storage.local import CHUNK_BYTES
from prefect_happyhorse.engine.storage.store import Store

__all__ = ["DownloadOptions", "Progress", "StoredOutput", "download", "forget_partial"]

_LOCK_WAIT_S = 0.2
_COLLECT_AGAIN = "Collect the job again; nothing is bought anew."


def _now() -> datetime:
    return datetime.now(timezone.utc)


@dataclass(frozen=True)
class StoredOutput:
    """An output that is in its place.

    Args:
        path: Its path below the store's folder.
        uri: Its fsspec URL.
        sha256: The SHA-256 of its bytes, in hexadecimal.
        facts: Its format, kind, length, sides, playing time, frame rate and codec, as far as they are known.
        url: The provider's address that it came from; None for one that came inside the gateway's answer.
        reused: Whether it was there already, so that nothing was fetched.
        poster: A small JPEG of it, where one was asked for and could be made.
    """

    path: str
    uri: str
    sha256: str
    facts: Probe
    url: str | None
    reused: bool = False
    poster: bytes | None = field(default=None, repr=False)

    @property
    def bytes(self) -> int:
        """Its length."""
        return self.facts.bytes

    @property
    def kind(self) -> AssetKind:
        """What it is."""
        return self.facts.kind

    @property
    def media_type(self) -> str:
        """Its media type, told from its bytes."""
        return self.facts.media_type


async def download(
    output: Output,
    *,
    job: Job,
    index: int = 0,
    store: Store,
    client: httpx.AsyncClient,
    refresh: Callable[[], Awaitable[Output]],
    local_allowed: bool = False,
    expires_at: datetime | None = None,
    limits: DownloadOptions | None = None,
    progress: Progress | None = None,
    with_poster: bool = False,
    now: Callable[[], datetime] = _now,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> StoredOutput:
    """Fetch one output of a job into the store.

    Nothing of the client but its connections is used: no key, header or cookie of it is sent. An attempt that breaks off goes on where it
    ended, in another process too, where the server has a way for it. An output that is finished already is not fetched again until
    `forget_partial` is called.
    """
    limits = limits or DownloadOptions()
    transfer = Transfer(output.kind, client, limits, local_allowed, progress, now)
    return await _Download(output, job, index, store, transfer, limits, refresh, expires_at, with_poster, sleep).run()


async def forget_partial(job: Job, *, index: int = 0, store: Store) -> None:
    """Drop what is remembered of a download, once its output is recorded elsewhere as kept."""

    def forget() -> None:
        folder, key = store.scratch_dir(), partial_key(job, index)
        lock = lock_partial(folder, key)
        # Somebody else who is at it finds the finished file by what is remembered, and will have it dropped in turn.
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
    limits: DownloadOptions
    refresh: Callable[[], Awaitable[Output]]
    expires_at: datetime | None
    with_poster: bool
    sleep: Callable[[float], Awaitable[None]]

    async def run(self) -> StoredOutput:
        try:
            async with self._locked() as partial:
                await to_thread.run_sync(partial.load)
                finished = partial.finished
                if finished is not None and await self.store.holds(finished.path, length=finished.facts.bytes, sha256=finished.sha256):
                    return await self._kept(finished, None if self.store.folder is None else self.store.folder / finished.path, reused=True)
                is_there = finished is not None and partial.sha256 == finished.sha256
                facts = finished.facts if finished is not None and is_there else await self._fetch(partial)
                return await self._keep(partial, facts)
        except FileExistsError as error:
            why = f"another file lies at {error.filename}, and nothing is overwritten"
            raise self._failed(why, advice="Move that file away and collect the job again.") from error
        except (OSError, ImportError) as error:
            why = f"it could not be written to {self.store.url}: {error}"
            raise self._failed(why, advice="Make room or mend the store, then collect the job again.") from error

    @asynccontextmanager
    async def _locked(self) -> AsyncGenerator[Partial, None]:
        """The unfinished file, once nobody else is at it: whoever was has it finished by then, or has died."""
        folder, key = await to_thread.run_sync(self.store.scratch_dir), partial_key(self.job, self.index)
        while (lock := await to_thread.run_sync(lock_partial, folder, key)) is None:
            await self.sleep(_LOCK_WAIT_S)
        partial = Partial(folder, key, checkpoint_bytes=self.limits.checkpoint_bytes)
        try:
            yield partial
        finally:
            partial.close()
            lock.release()

    async def _fetch(self, partial: Partial) -> Probe:
        """Fetch and check the output, as often as it takes and the limits allow."""
        failures = refreshes = high_water = 0
        while True:
            try:
                async with download_turn():
                    return await self.transfer.bring(self.output, partial, self.expires_at)
            except FetchProblem as problem:
                if partial.high_water - high_water >= CHUNK_BYTES:
                    # It comes in pieces, but it comes.
                    failures, high_water = 0, partial.high_water
                if problem.remedy == "refresh" and refreshes < self.limits.refreshes:
                    refreshes += 1
                    self.output = await self._refreshed(problem)
                elif problem.remedy == "retry" and failures < self.limits.retries:
                    failures += 1
                    await self.sleep(self._backoff_s(failures, problem))
                else:
                    asked = f" ({refreshes} fresh address{'es' if refreshes > 1 else ''} tried too)" if refreshes else ""
                    raise self._failed(problem.message + asked, advice=_COLLECT_AGAIN, status_code=problem.status_code) from problem

    def _backoff_s(self, failures: int, problem: FetchProblem) -> float:
        longest_s = self.limits.backoff_max_s
        return max(backoff_s(failures, first_s=self.limits.backoff_s, longest_s=longest_s), min(problem.retry_after_s or 0.0, longest_s))

    async def _refreshed(self, problem: FetchProblem) -> Output:
        # How long the fresh address lives is not known here; the server will say when it does not.
        self.expires_at = None
        try:
            return await self.refresh()
        except JobExpired as error:
            raise self._about(error) from problem
        except GenerationError as error:
            why = f"{problem.message}, and the gateway gave no fresh address: {error.message}"
            raise self._failed(why, advice=_COLLECT_AGAIN, code=error.code, status_code=error.status_code) from error

    async def _keep(self, partial: Partial, facts: Probe) -> StoredOutput:
        path = self.store.path_for(self.job, index=self.index, extension=facts.extension, kind=facts.kind)
        finished = Finished(path=path, sha256=partial.sha256, facts=facts)
        await to_thread.run_sync(partial.finish, finished)
        kept = await self._kept(finished, partial.path, reused=False)
        await self.store.keep(partial.path, path)
        return kept

    async def _kept(self, finished: Finished, file: Path | None, *, reused: bool) -> StoredOutput:
        picture = None
        if self.with_poster and file is not None:
            picture = await to_thread.run_sync(_poster, file, finished.facts.kind, limiter=decoders())
        url = None if is_inline(self.output) else self.output.url
        return StoredOutput(
            finished.path, self.store.uri(finished.path), finished.sha256, finished.facts, url, reused=reused, poster=picture
        )

    def _failed(self, why: str, *, advice: str, code: str | None = None, status_code: int | None = None) -> GenerationError:
        at = "" if self.output.url is None or is_inline(self.output) else f" from {stable_url(self.output.url)}"
        message = f"Output {self.index + 1} could not be fetched{at}: {why}."
        return self._about(DownloadFailed(message, advice=advice, code=code, status_code=status_code))

    def _about(self, error: GenerationError) -> GenerationError:
        job = self.job
        return error.about(
            gateway=job.gateway,
            account=job.account,
            model=job.model,
            capability=job.capability,
            task_id=job.task_id,
            request_id=job.request_id,
            digest=job.digest,
        )


def _poster(file: Path, kind: AssetKind) -> bytes | None:
    try:
        return poster(file, kind)
    except (MediaNotReadable, OSError):
        # A card without a picture is no reason to lose a file that is whole.
        return None
