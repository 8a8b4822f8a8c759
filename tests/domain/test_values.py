"""Jobs, outputs and assets: what crosses every boundary."""

from __future__ import annotations

import pickle
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from prefect_happyhorse.domain import jobs
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.jobs import Job, JobResult, JobSnapshot, JobStatus, Output, Submission

NOW = datetime(2026, 11, 20, 12, 30, tzinfo=timezone.utc)
JOB = Job(
    gateway="ttapi",
    account="default",
    capability="reference_to_video",
    model="happyhorse-1.1-r2v",
    task_id="t/1",
    request_id="r-1",
    digest="d",
    prompt="@1 runs",
    submitted_at=NOW,
    expires_at=NOW,
)
OUTPUT = Output(kind="video", url="https://example.com/a.mp4")
ASSET = MediaAsset(
    kind="video",
    uri="s3://b/a.mp4",
    url=OUTPUT.url,
    url_expires_at=NOW,
    media_type="video/mp4",
    bytes=3,
    sha256="00",
    width=1280,
    height=720,
    duration_s=5.04,
    fps=23.976,
    job=JOB,
    siblings=(MediaAsset(kind="image", uri="file:///b.png", media_type="image/png", bytes=1, sha256="01"),),
)
VALUES: list[BaseModel] = [
    JOB,
    Submission(task_id="t/1", status=JobStatus.RUNNING, provider_status="RUNNING"),
    JobSnapshot(status=JobStatus.UNKNOWN, provider_status="RESTING", progress=0.5, outputs=(OUTPUT,), usage={"duration": 5.5}),
    JobResult(job=JOB, outputs=(OUTPUT,), outputs_expire_at=NOW, finished_at=NOW, polls=3, usage={"SR": 720}),
    OUTPUT,
    ASSET,
]
every_value = pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)


@every_value
def test_a_value_survives_json_and_pickle(value: BaseModel) -> None:
    """Times keep their zone, numbers their fraction."""
    assert type(value).model_validate_json(value.model_dump_json()) == value
    assert pickle.loads(pickle.dumps(value)) == value  # noqa: S301 -- our own bytes


@every_value
def test_a_value_is_frozen_and_closed(value: BaseModel) -> None:
    """It cannot be changed, and takes no field that it does not have."""
    name = next(iter(type(value).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(value, name, getattr(value, name))
    with pytest.raises(ValidationError, match="horse"):
        type(value).model_validate({**value.model_dump(), "horse": 1})


def test_the_module_gives_all_its_names() -> None:
    """`__all__` is what the module defines."""
    own = {name for name, value in vars(jobs).items() if not name.startswith("_") and getattr(value, "__module__", "") == jobs.__name__}
    assert list(jobs.__all__) == sorted({"DEADLINE_S", *own})


@pytest.mark.parametrize("status", list(JobStatus))
def test_what_is_final(status: JobStatus) -> None:
    """An unknown word is not: it keeps being asked."""
    assert status.final == (status.value in {"succeeded", "failed", "cancelled", "expired"})


def test_inline_bytes_stay_out_of_json_and_repr() -> None:
    """A result that came inside an answer is known to be one, and is not kept in journals and logs."""
    output = Output(kind="image", inline="aGVsbG8=")
    assert output.is_inline
    assert "aGVsbG8=" not in repr(output)
    again = Output.model_validate_json(output.model_dump_json())
    assert (again.is_inline, again.inline) == (True, None)
    assert not OUTPUT.is_inline


@pytest.mark.parametrize("progress", [-0.1, 1.1, float("nan")])
def test_progress_is_between_none_and_all(progress: float) -> None:
    """From 0 to 1."""
    with pytest.raises(ValidationError):
        JobSnapshot(status=JobStatus.RUNNING, progress=progress)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (MediaAsset, {"bytes": -1}),
        (MediaAsset, {"kind": "horse"}),
        (JobResult, {"polls": -1}),
    ],
)
def test_what_cannot_be_is_refused(kind: type[BaseModel], wrong: dict[str, Any]) -> None:
    """Negative lengths and counts, and a kind that there is not."""
    whole = next(value for value in VALUES if type(value) is kind).model_dump()
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        kind.model_validate({**whole, **wrong})


def _local(path: Path, content: bytes, **facts: Any) -> MediaAsset:
    path.write_bytes(content)
    usual = {"kind": "image", "media_type": "image/png", "bytes": len(content), "sha256": "00"}
    return MediaAsset(**(usual | facts), uri=f"file://{path}")


def test_a_local_asset_has_a_path_and_a_distant_one_has_none(tmp_path: Path) -> None:
    """Also with a space and a percent sign in its name, which stand in the URI as they are."""
    asset = _local(tmp_path / "a 100%25 horse.png", b"png")
    assert asset.path is not None
    assert asset.path.read_bytes() == b"png"
    assert ASSET.path is None


@pytest.mark.parametrize(("kind", "tag"), [("image", "<img"), ("video", "<video controls"), ("audio", "<audio controls")])
def test_a_notebook_shows_a_small_local_file_itself(kind: str, tag: str, tmp_path: Path) -> None:
    """By the tag of its kind, with its bytes in the page."""
    shown = _local(tmp_path / "a", b"hello", kind=kind, media_type="x/y")._repr_html_()
    assert f'{tag} src="data:x/y;base64,aGVsbG8="' in shown


def test_a_notebook_shows_facts_and_a_link_of_any_other(tmp_path: Path) -> None:
    """A large file, one that is gone, and one in an object store are not embedded."""
    large = _local(tmp_path / "large.png", bytes(4 * 1024 * 1024 + 1))
    grown = large.model_copy(update={"bytes": 3})
    gone = _local(tmp_path / "gone.png", b"")
    (tmp_path / "gone.png").unlink()
    for asset in (large, grown, gone, ASSET):
        assert "data:" not in asset._repr_html_()
        assert asset.uri in asset._repr_html_()
    assert "video, 1280×720, 5.0 s, 3 bytes" in ASSET._repr_html_()


def test_a_notebook_is_shown_no_markup_of_others(tmp_path: Path) -> None:
    """What a provider says stands in the page as text."""
    asset = _local(tmp_path / "<b>'\"&.png", b"x", media_type='"><script>')
    shown = asset._repr_html_()
    assert "<b>" not in shown
    assert "<script>" not in shown
    assert "&lt;b&gt;&#x27;&quot;&amp;.png" in shown
    assert MediaAsset(kind="image", uri="javascript:alert(1)", media_type="a/b", bytes=1, sha256="0")._repr_html_().count("href") == 0


def test_how_long_a_job_took() -> None:
    """From its submit until it was seen to be finished; unknown without either."""
    assert ASSET.elapsed_s is None
    assert ASSET.siblings[0].elapsed_s is None
    assert ASSET.model_copy(update={"finished_at": NOW + timedelta(seconds=90)}).elapsed_s == 90
