"""Where an output goes: every one has a path of its own, safe on every system."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID

from hypothesis import assume, example, given
from hypothesis import strategies as st

from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.engine.storage.paths import DEFAULT_TEMPLATE, safe
from prefect_happyhorse.engine.storage.store import Store

TEXT = st.text(max_size=120)


WHEN = st.datetimes(datetime(2020, 1, 1), datetime(2099, 1, 1), timezones=st.timezones())  # noqa: DTZ001 -- the strategy adds the zone


def job(task_id: str = "t-1", **changes: Any) -> Job:
    facts: dict[str, Any] = {"gateway": "ttapi", "account": "a", "capability": "text_to_video", "model": "m", "digest": "d"}
    return Job(**(facts | {"submitted_at": datetime(2026, 11, 20, tzinfo=timezone.utc)} | changes), task_id=task_id)


@given(text=TEXT)
@example(text="..")
@example(text="CON")
@example(text="con.txt")
@example(text="\ud800")
def test_safe_values(text: str) -> None:
    """Whatever a provider calls a job or model, it becomes an ordinary part of a path."""
    value = safe(text)
    assert 1 <= len(value) <= 80
    assert set(value) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert value not in {".", ".."}
    assert value.upper().partition(".")[0] not in {"CON", "PRN", "AUX", "NUL", "COM1", "LPT1"}


@given(one=TEXT, other=TEXT)
@example(one="a/b", other="a:b")
@example(one="a" * 100, other="a" * 101)
@example(one="", other=".")
def test_safe_values_stay_apart(one: str, other: str) -> None:
    """Different values stay different."""
    assume(one != other)
    assert safe(one) != safe(other)


FIELDS = ["{date}", "{gateway}", "{account}", "{capability}", "{model}", "{digest}", "{kind}", "-", "_", ".", "x"]


@given(
    parts=st.lists(st.lists(st.sampled_from(FIELDS), min_size=1, max_size=5).map("".join), max_size=4),
    facts=st.fixed_dictionaries(dict.fromkeys(("task_id", "gateway", "account", "capability", "model", "digest"), TEXT)),
    when=WHEN,
    index=st.integers(0, 99),
)
def test_rendered_paths(parts: list[str], facts: dict[str, str], when: datetime, index: int) -> None:
    """A rendered path never leaves the store, whatever the template and the provider say, and every system can write it."""
    assume(not any(part in {".", ".."} for part in parts))
    template = "/".join([*parts, "{task_id}{suffix}.{ext}"])
    store = Store("memory://x", template=template)
    path = store.path_for(job(**facts, submitted_at=when), index=index, extension="mp4", kind="video")
    assert path.endswith(".mp4")
    assert store.path_of(store.uri(path)) == path
    assert all(0 < len(segment) <= 200 and segment not in {".", ".."} for segment in path.split("/"))


IDS = st.one_of(
    TEXT,
    st.uuids().map(str),
    st.from_regex(r"[a-z]{1,4}_[A-Za-z0-9]{16,20}", fullmatch=True),
    st.from_regex(r"[ab](-[ab2]){0,4}", fullmatch=True),
)


@given(
    one=st.tuples(IDS, st.sampled_from(["a", "a-b", "b"]), st.sampled_from(["ttapi", "uniall"]), st.integers(0, 3)),
    other=st.tuples(IDS, st.sampled_from(["a", "a-b", "b"]), st.sampled_from(["ttapi", "uniall"]), st.integers(0, 3)),
)
@example(one=("t", "m", "ttapi", 1), other=("t-2", "m", "ttapi", 0))
@example(one=("t", "m", "ttapi", 0), other=("t", "m", "uniall", 0))
@example(one=("b-c", "a", "ttapi", 0), other=("c", "a-b", "ttapi", 0))
@example(one=("0123456789abcdef", "a-b", "ttapi", 0), other=("b-0123456789abcdef", "a", "ttapi", 0))
@example(one=("a/b", "m", "ttapi", 0), other=("a:b", "m", "ttapi", 0))
def test_every_output_has_its_own_place(one: tuple[str, str, str, int], other: tuple[str, str, str, int]) -> None:
    """Two outputs get the same path only if they are the same output of the same job."""
    # A long random id names a job by itself: no two gateways give out the same.
    assume((one[0], one[3]) != (other[0], other[3]) or len(one[0]) < 16)
    assume(one != other)
    store = Store("memory://x", template=DEFAULT_TEMPLATE)
    paths = {
        store.path_for(job(task_id, model=model, gateway=gateway), index=index, extension="mp4", kind="video")
        for task_id, model, gateway, index in (one, other)
    }
    assert len(paths) == 2


def test_default_template() -> None:
    """An output lies under its day, in UTC, and its capability, and its name tells model and task."""
    id_ = str(UUID(int=7))
    at = datetime(2026, 11, 21, 1, tzinfo=timezone(timedelta(hours=8)))
    path = Store("memory://x").path_for(job(id_, submitted_at=at), index=0, extension="mp4", kind="video")
    assert path == f"2026-11-20/text_to_video/m-{id_}.mp4"


def test_long_names() -> None:
    """A name too long for a file system is cut and stays its own; the extension stays."""
    store = Store("memory://x", template="{digest}{account}{model}{task_id}{suffix}.{ext}")
    paths = [store.path_for(job("t" * 60 + end, model="m" * 80, digest="d" * 80), index=0, extension="mp4", kind="video") for end in "ab"]
    assert [len(path) <= 200 and path.endswith(".mp4") for path in paths] == [True, True]
    assert paths[0] != paths[1]
    endless = Store("memory://x", template="x" * 300 + "/{task_id}{suffix}.{ext}")
    assert len(endless.path_for(job(), index=0, extension="mp4", kind="video").split("/")[0]) <= 200
