"""The list of tasks, as the maker's gateway has one."""

from __future__ import annotations

from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest

from prefect_happyhorse.sandbox import SandboxServer, SandboxSettings

BODY = {"model": "happyhorse-1.1-t2v", "input": {"prompt": "A horse"}, "parameters": {"resolution": "720P", "duration": 3}}


@pytest.fixture
def server() -> Iterator[SandboxServer]:
    with SandboxServer(SandboxSettings(job_s=0, list_delay_s=0, check_inputs="never", seed=3)) as server:
        yield server


class Client:
    """One account at the maker's gateway."""

    def __init__(self, server: SandboxServer, key: str = "key-1") -> None:
        self._http = httpx.Client(base_url=server.base_url("dashscope"), headers={"Authorization": f"Bearer {key}"}, trust_env=False)

    def submit(self, body: dict[str, Any] | None = None) -> str:
        answer = self._http.post(
            "/api/v1/services/aigc/video-generation/video-synthesis", json=body or BODY, headers={"X-DashScope-Async": "enable"}
        )
        return answer.raise_for_status().json()["output"]["task_id"]

    def list(self, **query: Any) -> httpx.Response:
        return self._http.get("/api/v1/tasks", params=query)


def test_an_account_lists_its_own(server: SandboxServer) -> None:
    """The latest first, page by page, each with what it is and when it was taken, and none of anybody else's."""
    mine = Client(server)
    ids = [mine.submit() for _ in range(3)]
    Client(server, "key-2").submit()
    page = mine.list(page_size=2).json()
    assert (page["total"], page["total_page"], page["page_no"], page["page_size"]) == (3, 2, 1, 2)
    assert [task["task_id"] for task in page["data"]] == ids[:0:-1]
    assert [task["task_id"] for task in mine.list(page_size=2, page_no=2).json()["data"]] == ids[:1]
    (first,) = mine.list(page_size=2, page_no=2).json()["data"]
    assert first["status"] == "SUCCEEDED"
    assert first["model_name"] == "happyhorse-1.1-t2v"
    assert "orig_prompt" not in first
    assert mine.list(model_name="wan2.7-t2v").json()["data"] == []
    assert mine.list().json()["page_size"] == 10


def test_a_job_appears_late_and_goes_after_a_day(server: SandboxServer) -> None:
    """Each after a time of its own."""
    mine = Client(server)
    server.settings(list_delay_s=1_000, task_ttl_s=200_000)
    ids = {mine.submit() for _ in range(20)}
    shown = {task["task_id"] for task in mine.list(page_size=100).json()["data"]}
    assert shown < ids
    server.advance(1_000)
    assert {task["task_id"] for task in mine.list(page_size=100).json()["data"]} == ids
    server.advance(86_400)
    assert mine.list().json()["total"] == 0


def test_what_is_asked_for_wrongly_is_refused(server: SandboxServer) -> None:
    """In the gateway's own words; and faults strike here too."""
    mine = Client(server)
    assert mine.list(page_no=0).json()["code"] == "InvalidParameter"
    assert mine.list(page_size="many").json()["code"] == "InvalidParameter"
    assert mine.list(page_size=1_000).json()["page_size"] == 100
    server.fault(at="list", kind="throttle")
    assert mine.list().status_code == 429
    assert httpx.get(f"{server.base_url('infiflow')}/api/v1/tasks", trust_env=False).status_code == 404


def test_every_answer_tells_the_time_of_the_sandbox(server: SandboxServer) -> None:
    """Which may be ahead of the machine's; it is that of its list."""
    mine = Client(server)
    server.advance(7_200)
    task_id = mine.submit()
    answer = mine.list()
    (date,) = answer.headers.get_list("date")
    (task,) = answer.json()["data"]
    assert task["task_id"] == task_id
    assert abs(parsedate_to_datetime(date).timestamp() - task["gmt_create"] / 1000) < 60


def test_what_is_billed_counts_what_was_put_in() -> None:
    """An edit pays for both, references for at most five seconds of what they are."""
    from prefect_happyhorse.catalog import find_route
    from prefect_happyhorse.sandbox.jobs.job import Job
    from prefect_happyhorse.sandbox.jobs.validate import validate
    from prefect_happyhorse.sandbox.media.probe import Probe

    def billed(capability: str, model: str, body: dict[str, object], seconds: float) -> tuple[float, float, float]:
        route = find_route("dashscope", capability, model)  # pyright: ignore[reportArgumentType]
        valid = validate([route], body, tolerated=frozenset(), cuts_prompt=False)
        probe = Probe(kind="video", format="mp4", size=1, duration_s=seconds)
        return Job(valid, "a", "t", "r", "d", 0.0, 0.0, SandboxSettings(), probes=(probe,)).billed_s()

    media = [{"type": "video", "url": "https://example.com/a.mp4"}]
    edit = {"model": "happyhorse-1.0-video-edit", "input": {"prompt": "x", "media": media}, "parameters": {}}
    assert billed("video_edit", "happyhorse-1.0-video-edit", edit, 7.5) == (15.0, 7.5, 7.5)
    assert billed("video_edit", "happyhorse-1.0-video-edit", edit, 40.0) == (30.0, 15.0, 15.0)
    media = [{"type": "reference_video", "url": "https://example.com/a.mp4"}]
    reference = {"model": "wan2.7-r2v", "input": {"prompt": "x", "media": media}, "parameters": {"duration": 4}}
    assert billed("reference_to_video", "wan2.7-r2v", reference, 9.0) == (9.0, 5.0, 4.0)
    text = {"model": "happyhorse-1.1-t2v", "input": {"prompt": "x"}, "parameters": {"duration": 4}}
    assert billed("text_to_video", "happyhorse-1.1-t2v", text, 9.0) == (4.0, 0.0, 4.0)
