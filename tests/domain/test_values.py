"""Jobs, outputs and assets: what crosses every boundary."""

from __future__ import annotations

import pickle
from datetime import datetime, timezone
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
    gateway="ttapi",
    task_id="t/1",
    submitted_at=NOW,
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
    assert list(jobs.__all__) == sorted(own)


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
