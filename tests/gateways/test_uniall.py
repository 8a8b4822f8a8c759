"""UniAll: its document and its query page."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from prefect_happyhorse.catalog import find_route
from prefect_happyhorse.domain.jobs import JobStatus
from prefect_happyhorse.gateways import Account, get_gateway

from .dialect import TASK_ID, URL
from .newapi_suite import NewAPISuite


class TestUniAll(NewAPISuite):
    """UniAll."""

    gateway: ClassVar[str] = "uniall"
    model: ClassVar[str] = "happy-horse-720p"
    submit_path: ClassVar[str] = "/v1/video/generations"
    poll_path: ClassVar[str] = "/v1/videos/generations/"

    def accepted(self, task_id: object = TASK_ID) -> dict[str, Any]:
        return {
            "id": task_id,
            "task_id": task_id,
            "object": "video.generation.job",
            "model": "happy-horse-edit-720p",
            "status": "queued",
            "progress": 0,
            "created_at": 1777355454,
        }

    def state(self, word: object, *, results: list[Any] | None = None, reason: str | None = None) -> dict[str, Any]:
        body: dict[str, Any] = {"id": TASK_ID, "status": word, "progress": 30, "error": None if reason is None else {"message": reason}}
        return {**body, "video_url": results[0]} if results else body

    @pytest.mark.parametrize(
        "places",
        [
            {"video_url": URL},
            {"result": {"video_url": URL}},
            {"result": {"outputs": [URL]}},
            {"result": {"outputs": [{"url": URL}]}},
            {"video_url": "", "result": {"video_url": None, "outputs": [{"video_url": URL}]}},
            {"video_url": URL, "result": {"video_url": URL + "2", "outputs": [URL + "3"]}},
        ],
    )
    def test_the_result_stands_in_the_first_place_that_has_one(self, places: dict[str, Any]) -> None:
        """The query page shows three; one video is not read thrice."""
        assert [output.url for output in self.poll({"id": TASK_ID, "status": "completed", **places}).outputs] == [URL]

    def test_several_outputs_keep_their_order(self) -> None:
        """As they are listed."""
        state = self.poll({"status": "completed", "result": {"outputs": [URL, {"url": URL + "2"}]}})
        assert [output.url for output in state.outputs] == [URL, URL + "2"]

    @pytest.mark.parametrize(
        "body", [{"id": TASK_ID}, {"task_id": TASK_ID}, {"data": {"task_id": TASK_ID}}, {"code": "success", "data": {"task_id": TASK_ID}}]
    )
    def test_the_id_stands_at_the_top_or_in_the_data(self, body: dict[str, Any]) -> None:
        """Each place that is known."""
        submission = self.submit(body)
        assert (submission.task_id, submission.status, submission.provider_status) == (TASK_ID, JobStatus.QUEUED, None)


def test_uniall_polls_at_either_path() -> None:
    """The account's setting replaces the catalog's path."""
    account = Account(gateway="uniall", base_url="https://gateway.example", poll_path="/v1/videos/{task_id}")
    call = get_gateway("uniall").poll_request(find_route("uniall", "text_to_video", "happy-horse-720p"), "t", account)
    assert call.url.path == "/v1/videos/t"
