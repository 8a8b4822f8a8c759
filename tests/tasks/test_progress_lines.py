"""Where no page shows a job's progress, as in a notebook, the log does."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from prefect_happyhorse import Job, JobSnapshot, JobStatus
from prefect_happyhorse.tasks import poll as poll_module

JOB = Job(
    gateway="ttapi",
    account="default",
    capability="reference_to_video",
    model="happyhorse-1.1-r2v",
    task_id="t/1",
    digest="d",
    prompt="@1 runs",
    submitted_at=datetime(2026, 11, 20, tzinfo=timezone.utc),
)


async def test_without_a_flow_run_every_tenth_is_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal tenths are one line; within a flow run, whose page shows progress, only a new state is."""

    async def lines() -> list[str]:
        caplog.clear()
        report = poll_module._Report(JOB)
        with caplog.at_level("INFO"):
            for progress in (0.0, 0.11, 0.19, 0.5):
                await report(JOB, JobSnapshot(status=JobStatus.RUNNING, progress=progress), 1.0)
        return [record.getMessage() for record in caplog.records if "is running" in record.getMessage()]

    assert [line.partition("%")[0].rpartition(" ")[2] for line in await lines()] == ["0", "11", "50"]
    monkeypatch.setattr(poll_module, "flow_run_id", lambda: "a run")  # its logger is still the one without
    assert len(await lines()) == 1
