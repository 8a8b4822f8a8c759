"""What jobs teach of their route: written seldom, read once, and never a reason to fail."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prefect_happyhorse.engine.jobs.durations import Durations
from prefect_happyhorse.engine.storage.store import Store

FILE = "journal/durations/horse.json"


class Watch:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def durations(watch: Watch) -> Durations:
    return Durations(FILE, typical_s=120.0, clock=watch)


@pytest.fixture
def unusable(tmp_path: Path) -> Store:
    """A store in whose place a file lies, so that it can be neither read nor written."""
    (tmp_path / "a-file").write_text("A file is no folder.")
    return Store(str(tmp_path / "a-file" / "outputs"))


class Turnstile:
    """Stands in the way of a store's reads: what was read is handed out once `let_go` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, reads: int = 1) -> None:
        self.has_read = asyncio.Event()
        self.let_go = asyncio.Event()
        left, read = reads, Store.read

        async def slowly(store: Store, path: str) -> bytes:
            nonlocal left
            left -= 1
            must_wait = left >= 0
            content = await read(store, path)
            if must_wait:
                self.has_read.set()
                await self.let_go.wait()
            return content

        monkeypatch.setattr(Store, "read", slowly)


async def durations_in(store: Store, path: str = FILE) -> list[float]:
    return json.loads(await store.read(path))["durations_s"]


async def keep(store: Store, durations_s: list[float]) -> None:
    await store.write(FILE, json.dumps({"durations_s": durations_s}).encode())


async def test_the_first_job_is_written_at_once(durations: Durations, store: Store) -> None:
    """A process that makes a single job leaves what it learned."""
    await durations.learn(61.26, store)
    assert await durations_in(store) == [61.3]
    assert durations.belief.seen == 1


async def test_it_is_written_twice_a_minute_at_most(durations: Durations, store: Store, watch: Watch) -> None:
    """What is learned meanwhile is believed at once, and written with the first that comes after half a minute."""
    for number in range(1, 6):
        await durations.learn(number * 10.0, store)
        watch.now += 7.4
        assert durations.belief.seen == number
        assert await durations_in(store) == [10.0]
    watch.now = 1000.0 + 30.0
    await durations.learn(60.0, store)
    assert await durations_in(store) == [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]
    await durations.learn(70.0, store)
    assert len(await durations_in(store)) == 6
    assert durations.belief.seen == 7


async def test_the_latest_hundred_are_kept(durations: Durations, store: Store, watch: Watch) -> None:
    """The oldest go first, in the file and in what is believed."""
    for number in range(1, 131):
        await durations.learn(float(number), store)
    watch.now += 30.0
    await durations.learn(131.0, store)
    assert await durations_in(store) == [float(number) for number in range(32, 132)]
    assert durations.belief.seen == 100
    await keep(store, [float(number) for number in range(1, 251)])
    other = Durations(FILE, typical_s=120.0)
    await other.look(store)
    assert other.belief.seen == 100
    assert other.belief.median_s > 151.0, "the latest, not the first"


async def test_no_time_at_all_is_a_second(durations: Durations, store: Store) -> None:
    """A job that was finished before it could be asked for has no logarithm."""
    await durations.learn(0.0, store)
    assert await durations_in(store) == [1.0]


async def test_another_process_goes_on(durations: Durations, store: Store, watch: Watch) -> None:
    """It reads what the first has written, and only once; what both learn is in the file."""
    await durations.learn(60.0, store)
    other = Durations(FILE, typical_s=120.0, clock=watch)
    await other.look(store)
    assert other.belief == durations.belief
    await keep(store, [60.0, 61.0])
    await other.look(store)
    assert other.belief == durations.belief, "it has looked already"
    await other.learn(62.0, store)
    assert await durations_in(store) == [60.0, 61.0, 62.0]
    assert other.belief.seen == 3, "whoever writes learns what others wrote meanwhile"
    watch.now += 30.0
    await durations.learn(63.0, store)
    assert await durations_in(store) == [60.0, 61.0, 62.0, 63.0]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b'{"durations_s": [60.0, 6',
        b"[60.0]",
        b"null",
        b'{"durations_s": 60.0}',
        b'{"durations_s": null}',
        b'{"durations_s": ["soon"]}',
        b'{"durations_s": [60.0, -1.0]}',
        b'{"durations_s": [60.0, 0.0]}',
        b'{"durations_s": [60.0, NaN]}',
        b'{"durations_s": [60.0, Infinity]}',
        b'{"durations_s": [60.0, 1e999]}',
    ],
)
async def test_a_damaged_file_is_as_good_as_none(
    content: bytes, durations: Durations, store: Store, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is told but who looks for it; the next write mends it with all that this process knows."""
    caplog.set_level(logging.DEBUG, "prefect_happyhorse")
    await store.write(FILE, content)
    await durations.look(store)
    assert durations.belief == Durations(FILE, typical_s=120.0).belief
    assert [(record.levelname, FILE in record.message) for record in caplog.records] == [("DEBUG", True)]
    await durations.learn(60.0, store)
    assert await durations_in(store) == [60.0]
    await store.write(FILE, content)
    watch.now += 30.0
    await durations.learn(61.0, store)
    assert await durations_in(store) == [60.0, 61.0]
    assert durations.belief.seen == 2


@given(durations_s=st.lists(st.floats(0, exclude_min=True, allow_nan=False, allow_infinity=False), max_size=150))
@example(durations_s=[5e-324] * 100)
@example(durations_s=[1.7e308] * 100)
@example(durations_s=[5e-324, 1.7e308])
async def test_whatever_numbers_are_there_give_a_pause(durations_s: list[float]) -> None:
    """Nonsense of the right type is believed, but the pause that follows is a number of seconds."""
    store = Store("memory://nonsense")
    await keep(store, durations_s)
    durations = Durations(FILE, typical_s=120.0)
    await durations.look(store)
    assert durations.belief.seen == min(len(durations_s), 100)
    assert all(0.5 <= durations.belief.pause_s(elapsed_s) < float("inf") for elapsed_s in (0.0, 120.0, 3600.0))


async def test_a_file_of_a_later_version_is_read(durations: Durations, store: Store) -> None:
    """More than is known today does no harm."""
    await store.write(FILE, b'{"version": 2, "durations_s": [60.0], "queues_s": [1.0]}')
    await durations.look(store)
    assert durations.belief.seen == 1


async def test_a_store_that_fails_is_no_harm(
    durations: Durations, unusable: Store, watch: Watch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """What a process learns it still believes, hundreds of jobs long, and writes once the store is there."""
    caplog.set_level(logging.DEBUG, "prefect_happyhorse")
    await durations.look(unusable)
    for number in range(1, 201):
        await durations.learn(float(number), unusable)
        watch.now += 31.0
        assert durations.belief.seen == min(number, 100)
    assert {record.levelname for record in caplog.records} == {"DEBUG"}
    (tmp_path / "a-file").unlink()
    await durations.learn(201.0, unusable)
    assert await durations_in(unusable) == [float(number) for number in range(102, 202)]


async def test_what_cannot_be_read_is_not_written_over(
    durations: Durations, store: Store, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that fails for once must not cost what all others have learned."""

    async def fail(*_: object) -> bytes:
        raise TimeoutError

    await keep(store, [50.0] * 90)
    with monkeypatch.context() as patched:
        patched.setattr(Store, "read", fail)
        await durations.look(store)
        await durations.learn(60.0, store)
    assert await durations_in(store) == [50.0] * 90
    watch.now += 30.0
    await durations.learn(61.0, store)
    assert await durations_in(store) == [50.0] * 90 + [60.0, 61.0]
    assert durations.belief.seen == 92


async def test_a_file_that_is_gone_is_written_anew(durations: Durations, store: Store, watch: Watch) -> None:
    """With all that is known, not only with the latest news."""
    await keep(store, [50.0] * 20)
    await durations.look(store)
    await store.delete(FILE)
    await durations.learn(60.0, store)
    assert await durations_in(store) == [50.0] * 20 + [60.0]
    assert durations.belief.seen == 21


@pytest.mark.parametrize("jobs", [1, 3])
async def test_what_is_learned_while_looking_is_not_lost(
    jobs: int, durations: Durations, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job may end, and be written, while the first look is still under way."""
    await keep(store, [50.0] * 5)
    stile = Turnstile(monkeypatch)
    look = asyncio.create_task(durations.look(store))
    await stile.has_read.wait()
    await durations.look(store)
    assert durations.belief.seen == 0, "whoever comes second does not wait"
    for _ in range(jobs):
        await durations.learn(60.0, store)
    assert await durations_in(store) == [50.0] * 5 + [60.0]
    stile.let_go.set()
    await look
    assert durations.belief.seen == 5 + jobs


async def test_what_is_learned_while_writing_is_not_lost(
    durations: Durations, store: Store, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that ends while another's is being written is in what is believed, and in the next write."""
    await keep(store, [50.0] * 5)
    stile = Turnstile(monkeypatch)
    first = asyncio.create_task(durations.learn(60.0, store))
    await stile.has_read.wait()
    await durations.learn(61.0, store)
    stile.let_go.set()
    await first
    assert await durations_in(store) == [50.0] * 5 + [60.0]
    assert durations.belief.seen == 7
    watch.now += 30.0
    await durations.learn(62.0, store)
    assert await durations_in(store) == [50.0] * 5 + [60.0, 61.0, 62.0]


async def test_a_look_while_writing_counts_nothing_twice(durations: Durations, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of the two ends first, what is believed is what lies in the file."""
    await keep(store, [50.0] * 5)
    stile = Turnstile(monkeypatch)
    write = asyncio.create_task(durations.learn(60.0, store))
    await stile.has_read.wait()
    await durations.look(store)
    assert durations.belief.seen == 6
    stile.let_go.set()
    await write
    assert durations.belief.seen == 6
    await durations.look(store)
    assert durations.belief.seen == 6


async def test_many_at_once_write_once(durations: Durations, store: Store) -> None:
    """A crowd of jobs that end together is one write, and all of them are believed."""
    await asyncio.gather(*(durations.learn(60.0, store) for _ in range(50)))
    assert await durations_in(store) == [60.0]
    assert durations.belief.seen == 50
