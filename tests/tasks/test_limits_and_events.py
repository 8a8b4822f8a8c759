"""What all workers share, and what the event feed hears."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path

import anyio
import pytest
from prefect import flow
from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.concurrency import services
from prefect.events.clients import AssertingEventsClient
from prefect.events.worker import EventsWorker
from prefect.exceptions import ObjectNotFound

from prefect_happyhorse import (
    Job,
    JobFailed,
    JobResult,
    MediaAsset,
    MediaStore,
    ModerationRejected,
    RowResult,
    SubmissionUncertain,
    TextToImage,
    generate,
    generate_many,
    generate_sync,
    submit,
)
from prefect_happyhorse.engine.jobs.results import StoredResult
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.runtime.automations import save, uncertain_automation
from prefect_happyhorse.runtime.concurrency import calls_limit, jobs_limit, save_limits
from prefect_happyhorse.runtime.lineage import asset_of
from prefect_happyhorse.sandbox import SandboxServer

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    # Prefect's client leaves connections to its own server for the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def horse(number: int) -> TextToImage:
    return TextToImage(model="gpt-image-2", prompt=f"Horse {number}")


@pytest.fixture
async def account(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """An account label that no other test uses, so that its limits are this test's alone."""
    label = f"Studio {abs(hash(request.node.nodeid))}"
    monkeypatch.setenv("HAPPYHORSE_ACCOUNT", label)
    return label


@flow
async def four() -> list[MediaAsset]:
    """Make four pictures at once."""
    return list(await asyncio.gather(*(generate(horse(number), "happyhorse") for number in range(4))))


@flow
async def two() -> list[MediaAsset]:
    """Make two pictures at once."""
    return list(await asyncio.gather(*(generate(horse(number), "happyhorse") for number in range(2))))


@flow
def four_mapped() -> list[MediaAsset]:
    """Make four pictures, each in a thread of its own."""
    return generate_sync.map([horse(number) for number in range(4)], "happyhorse").result()


async def test_no_more_jobs_are_open_than_the_limit_allows(sandbox_env: SandboxServer, account: str) -> None:
    """With one slot the jobs come one after the other, whoever runs them; none is stuck behind itself."""
    sandbox_env.settings(job_s=0.4)
    assert await save_limits("happyhorse", account, jobs=1, calls_per_s=None) == [jobs_limit("happyhorse", account)]
    await two()
    starts = sorted(entry.charged_at for entry in sandbox_env.ledger())
    assert all(later - earlier >= 0.4 for earlier, later in pairwise(starts))
    assert len(starts) == 2


def test_sync_tasks_share_the_limit(sandbox_env: SandboxServer, account: str) -> None:
    """The same holds for mapped sync tasks."""
    sandbox_env.settings(job_s=0.4)
    asyncio.run(save_limits("happyhorse", account, jobs=2, calls_per_s=None))
    four_mapped()
    starts = sorted(entry.charged_at for entry in sandbox_env.ledger())
    assert all(third - first >= 0.4 for first, third in zip(starts, starts[2:], strict=False))
    assert len(starts) == 4


@pytest.fixture
async def one_slot_for_the_tag() -> AsyncIterator[None]:
    """Prefect's limit of one task run at a time on the tag of all tasks here."""
    async with get_client() as client:
        await client.upsert_global_concurrency_limit_by_name("tag:happyhorse", 1)
    # Prefect remembers for five seconds that there was none.
    services._no_limits_cache.clear()
    yield
    async with get_client() as client:
        await client.delete_global_concurrency_limit_by_name("tag:happyhorse")


async def test_a_limit_on_the_tag_lets_steps_pass(sandbox_env: SandboxServer, one_slot_for_the_tag: None) -> None:
    """The `generate` that holds the only slot does not wait for itself; those beside it wait for it."""

    @flow
    async def three() -> list[MediaAsset]:
        return list(await asyncio.gather(*(generate(horse(number), "happyhorse") for number in range(3))))

    with anyio.fail_after(60):
        assert len(await three()) == 3
    jobs = sorted(sandbox_env.ledger(), key=lambda job: job.charged_at)
    assert [job.downloads for job in jobs] == [1, 1, 1]


def test_a_limit_on_the_tag_lets_sync_steps_pass(sandbox_env: SandboxServer, one_slot_for_the_tag: None) -> None:
    """As above."""

    @flow
    def one() -> MediaAsset:
        return generate_sync(horse(0), "happyhorse")

    assert one().bytes > 0


async def test_calls_wait_for_their_turn(sandbox_env: SandboxServer, account: str) -> None:
    """Submits and polls alike: at least eight calls at two a second, of which two may come at once."""
    name = calls_limit("happyhorse", account)
    assert await save_limits("happyhorse", account, jobs=None, calls_per_s=2) == [name]
    begun = time.monotonic()
    await four()
    assert time.monotonic() - begun >= 2.5
    async with get_client() as client:
        limit = await client.read_global_concurrency_limit_by_name(name)
    assert (limit.limit, limit.slot_decay_per_second) == (2, 2)
    assert len(sandbox_env.ledger()) == 4


async def test_without_limits_everything_works(sandbox_env: SandboxServer, account: str) -> None:
    """Nothing was set up, nothing is asked for, nothing is made."""
    await four()
    async with get_client() as client:
        for name in (jobs_limit("happyhorse", account), calls_limit("happyhorse", account)):
            with pytest.raises(ObjectNotFound):
                await client.read_global_concurrency_limit_by_name(name)
    assert len(sandbox_env.ledger()) == 4


@pytest.fixture
def feed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Every event that is emitted, as it would go to the server."""
    AssertingEventsClient.reset()
    worker = EventsWorker.instance(AssertingEventsClient)
    monkeypatch.setattr(EventsWorker, "instance", classmethod(lambda cls, client_type=None: worker))
    yield AssertingEventsClient.all
    AssertingEventsClient.reset()


def told() -> dict[str, dict[str, str]]:
    """Our events by name, with the labels of their resource."""
    EventsWorker.instance().drain()
    events = [event for client in AssertingEventsClient.all for event in getattr(client, "events", [])]
    return {event.event: dict(event.resource.root) for event in events if event.event.startswith("happyhorse.")}


async def test_the_feed_hears_of_a_jobs_life(sandbox_env: SandboxServer, feed: list[object]) -> None:
    """Submitted, running, succeeded, with the job as resource and no secret in it."""
    sandbox_env.settings(job_s=1.0)

    @flow
    async def one() -> MediaAsset:
        return await generate(horse(1), "happyhorse")

    asset = await one()
    events = told()
    assert set(events) == {f"happyhorse.job.{name}" for name in ("submitted", "running", "succeeded", "kept")}
    for labels in events.values():
        assert labels["prefect.resource.id"] == f"happyhorse.job.happyhorse.{asset.job.task_id}"
        assert (labels["happyhorse.model"], labels["happyhorse.account"]) == ("gpt-image-2", "sandbox")
    assert events["happyhorse.job.kept"]["happyhorse.url"] == asset.uri
    assert "sesame" not in str(events)


async def test_a_job_that_was_bought_before_says_so_and_is_not_submitted_again(
    sandbox_env: SandboxServer, feed: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    """The second run of the same request says with which job it goes on, and the feed hears of one submit."""

    @flow
    async def one() -> Job:
        return await submit(horse(1), "happyhorse")

    assert await one() == await one()
    EventsWorker.instance().drain()
    names = [event.event for client in AssertingEventsClient.all for event in getattr(client, "events", [])]
    assert names.count("happyhorse.job.submitted") == 1
    (entry,) = sandbox_env.ledger()
    assert caplog.text.count(f"already bought, going on with job {entry.task_id}") == 1


async def test_the_feed_hears_of_every_bad_end(sandbox_env: SandboxServer, feed: list[object]) -> None:
    """Failed and uncertain, with what an automation needs to tell them apart."""

    @flow
    async def one(number: int) -> MediaAsset:
        return await generate(horse(number), "happyhorse")

    sandbox_env.fault(at="submit", kind="drop_after")
    with pytest.raises(SubmissionUncertain):
        await one(1)
    sandbox_env.fault(at="poll", kind="fail_job")
    with pytest.raises(JobFailed):
        await one(2)
    sandbox_env.fault(at="submit", kind="moderation")
    with pytest.raises(ModerationRejected):
        await one(3)
    events = told()
    assert events["happyhorse.job.uncertain"]["happyhorse.gateway"] == "happyhorse"
    assert events["happyhorse.job.failed"]["happyhorse.reason"] == "moderation"


async def test_outside_a_run_nothing_is_emitted(sandbox_env: SandboxServer, feed: list[object]) -> None:
    """An error outside of a run belongs to no run, and a script needs no server."""
    from prefect_happyhorse.runtime.events import emitting_failure

    with pytest.raises(SubmissionUncertain), emitting_failure():
        raise SubmissionUncertain("Nobody knows.")
    assert told() == {}


async def test_the_automation_is_saved_once(sandbox_env: SandboxServer) -> None:
    """Saved twice it is there once, and it pauses the deployment whose submit is uncertain."""
    await save(uncertain_automation())
    name = await save(uncertain_automation())
    async with get_client() as client:
        (saved,) = await client.read_automations_by_name(name)
    assert saved.trigger.expect == {"happyhorse.job.uncertain"}
    assert [action.type for action in saved.actions] == ["pause-deployment"]
    assert isinstance(uncertain_automation(), Automation)


async def test_files_are_assets_with_what_they_were_made_from(sandbox_env: SandboxServer, feed: list[object]) -> None:
    """The video's materialization names the picture; a second run, which makes nothing, still shows where things come from."""
    from prefect_happyhorse import ReferenceToVideo

    @flow
    async def chain() -> list[MediaAsset]:
        picture = await generate(horse(1), "happyhorse")
        ride = ReferenceToVideo(model="happyhorse-1.0-r2v", prompt="It runs", references=[picture], resolution="720p", duration=3)
        return [picture, await generate(ride, "happyhorse")]

    picture, video = await chain()
    EventsWorker.instance().drain()
    events = [event for client in AssertingEventsClient.all for event in getattr(client, "events", [])]
    made = {event.resource.id: event for event in events if event.event == "prefect.asset.materialization.succeeded"}
    assert set(made) == {picture.uri, video.uri}
    assert picture.uri in {related.id for related in made[video.uri].related}
    assert made[video.uri].payload["sha256"] == video.sha256


async def test_what_is_found_kept_is_told_as_made_unless_the_run_that_made_it_told_so(
    sandbox_env: SandboxServer, feed: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry of the same run tells what its first try kept, and so does another run once the first has failed, or was not heard of."""
    keep = Session.store_outputs
    failures = [OSError("no space left on device")]

    async def fail_once(self: Session, result: JobResult) -> StoredResult:
        if result.job.prompt == "Horse 1" and failures:
            raise failures.pop()
        return await keep(self, result)

    monkeypatch.setattr(Session, "store_outputs", fail_once)

    @flow
    async def many(numbers: list[int], fails: bool = False) -> list[RowResult]:
        rows = await generate_many.with_options(retry_delay_seconds=0)([horse(number) for number in numbers], "happyhorse")
        if fails:
            raise ValueError("after all of it was kept")
        return rows

    await many([1, 2, 3])
    await many([1, 2, 3])
    await many([1, 4], fails=True, return_state=True)
    rows = [*await many([1, 2, 3]), *await many([4])]
    EventsWorker.instance().drain()
    events = [event for client in AssertingEventsClient.all for event in getattr(client, "events", [])]
    made = Counter(event.resource.id for event in events if event.event == "prefect.asset.materialization.succeeded")
    assert [made[row.asset.uri] for row in rows if row.asset] == [1, 1, 1, 2]


async def test_a_lineage_that_cannot_be_told_fails_nothing(sandbox_env: SandboxServer, feed: list[object], tmp_path: Path) -> None:
    """Of a folder whose name no asset key may hold."""

    @flow
    async def one() -> MediaAsset:
        return await generate(horse(1), "happyhorse", MediaStore(url=str(tmp_path / "50% off")))

    assert (await one()).kind == "image"


def test_a_long_prompt_is_cut_in_the_lineage() -> None:
    """An asset's description holds so many characters; the lineage of a longer prompt is drawn all the same."""
    made = asset_of("s3://studio/horse.png", description="A horse " * 900)
    assert made is not None
    assert made.properties is not None
    description = made.properties.description or ""
    assert description.startswith("A horse A horse")
    assert description.endswith("… (7,200 characters)")
    assert len(description) == 2500
