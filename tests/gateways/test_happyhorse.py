"""happyhorse.pics: images, videos, and the two video families with a poll path of their own."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from prefect_happyhorse.catalog import find_route
from prefect_happyhorse.domain.errors import (
    ProtocolError,
)
from prefect_happyhorse.domain.jobs import JobStatus
from prefect_happyhorse.domain.requests import GenerationRequest, parse_request
from prefect_happyhorse.gateways import get_gateway

from .dialect import TASK_ID, URL
from .newapi_suite import NewAPISuite


class TestHappyHorseVideos(NewAPISuite):
    """happyhorse.pics, `POST /v1/videos`."""

    gateway: ClassVar[str] = "happyhorse"
    model: ClassVar[str] = "happyhorse-1.0-r2v"
    submit_path: ClassVar[str] = "/v1/videos"
    poll_path: ClassVar[str] = "/v1/videos/"

    def accepted(self, task_id: object = TASK_ID) -> dict[str, Any]:
        return {"id": task_id, "status": "queued"}

    def state(self, word: object, *, results: list[Any] | None = None, reason: str | None = None) -> dict[str, Any]:
        body: dict[str, Any] = {"id": TASK_ID, "status": word, "progress": "30%"}
        if reason is not None:
            body["error"] = {"message": reason}
        return {**body, "video_url": results[0]} if results else body

    @pytest.mark.parametrize(
        "body", [{"id": TASK_ID}, {"task_id": TASK_ID}, {"output": {"task_id": TASK_ID}}, {"id": "", "task_id": TASK_ID}]
    )
    def test_the_id_stands_in_three_places(self, body: dict[str, Any]) -> None:
        """First that is there."""
        assert self.submit(body).task_id == TASK_ID

    @pytest.mark.parametrize("body", [{"status": "completed"}, {"output": {"task_status": "SUCCEEDED"}}])
    @pytest.mark.parametrize(
        "places",
        [
            {"video_url": URL},
            {"media_url": URL},
            {"result_url": URL},
            {"metadata": {"url": URL}},
            {"results": [{"url": URL}]},
            {"video_url": None, "media_url": "", "results": [], "metadata": {}, "result_url": URL},
        ],
    )
    def test_status_and_result_stand_in_many_places(self, body: dict[str, Any], places: dict[str, Any]) -> None:
        """Two for the status, five for the result."""
        state = self.poll({**body, **places})
        assert (state.status, [output.url for output in state.outputs]) == (JobStatus.SUCCEEDED, [URL])

    def test_several_results_keep_their_order(self) -> None:
        """As they are listed."""
        state = self.poll({"status": "success", "results": [{"url": URL}, {"url": URL + "2"}]})
        assert [output.url for output in state.outputs] == [URL, URL + "2"]


class TestHappyHorseGenerations(NewAPISuite):
    """happyhorse.pics, `POST /v1/videos/generations`: Grok and every Omni Flash."""

    gateway: ClassVar[str] = "happyhorse"
    model: ClassVar[str] = "grok-imagine-video"
    submit_path: ClassVar[str] = "/v1/videos/generations"
    poll_path: ClassVar[str] = "/v1/videos/grok/"

    def accepted(self, task_id: object = TASK_ID) -> dict[str, Any]:
        return {"output": {"task_id": task_id, "task_status": "PENDING"}}

    def state(self, word: object, *, results: list[Any] | None = None, reason: str | None = None) -> dict[str, Any]:
        output: dict[str, Any] = {"task_id": TASK_ID, "task_status": word}
        if reason is not None:
            output["fail_reason"] = reason
        return {"output": {**output, "media_url": results[0]} if results else output}

    def wanted(self) -> GenerationRequest:
        return parse_request(
            {"capability": self.capability, "model": self.model, "prompt": "A horse", "references": ["https://example.com/a.png"]}
        )

    @pytest.mark.parametrize("place", ["media_url", "video_url", "result_url"])
    def test_the_result_stands_in_three_places(self, place: str) -> None:
        """All of them in the output."""
        (output,) = self.poll({"output": {"task_status": "success", place: URL}}).outputs
        assert output.url == URL

    def test_the_output_goes_before_the_top(self) -> None:
        """Its id and word are the documented ones; those at the top would be the exchange's."""
        body = {"id": "exchange-1", "status": "success", "output": {"task_id": TASK_ID, "task_status": "RUNNING"}}
        assert (self.submit(body).task_id, self.submit(body).status) == (TASK_ID, JobStatus.RUNNING)
        assert self.poll(body).status is JobStatus.RUNNING

    @pytest.mark.parametrize(
        ("capability", "model", "path"),
        [
            ("text_to_video", "grok-imagine-video", "/v1/videos/grok/t"),
            ("text_to_video", "omni_flash", "/v1/videos/notevideo/t"),
            ("video_edit", "omni_flash_edit-fast", "/v1/videos/notevideo/t"),
        ],
    )
    def test_a_model_is_asked_for_at_its_own_path(self, capability: str, model: str, path: str) -> None:
        """Two families, two paths."""
        call = get_gateway("happyhorse").poll_request(find_route("happyhorse", capability, model), "t", self.account)
        assert call.url.path == path


class TestHappyHorseImages(NewAPISuite):
    """happyhorse.pics, `POST /v1/images/async/...`."""

    gateway: ClassVar[str] = "happyhorse"
    capability: ClassVar[str] = "text_to_image"
    model: ClassVar[str] = "gpt-image-2"
    submit_path: ClassVar[str] = "/v1/images/async/generations"
    poll_path: ClassVar[str] = "/v1/images/async/"

    def accepted(self, task_id: object = TASK_ID) -> dict[str, Any]:
        return {"task_id": task_id}

    def state(self, word: object, *, results: list[Any] | None = None, reason: str | None = None) -> dict[str, Any]:
        data: dict[str, Any] = {"status": word}
        if reason is not None:
            data["fail_reason"] = reason
        if results:
            data["data"] = {"data": [{"url": result} if isinstance(result, str) else result for result in results]}
        return {"code": "success", "message": "", "data": data}

    def wanted(self) -> GenerationRequest:
        return parse_request({"capability": "text_to_image", "model": self.model, "prompt": "A horse"})

    @pytest.mark.parametrize(
        "result", [{"url": 7}, {"url": "horse.png"}, {"url": "ftp://example.com/a.png"}, {"no": 1}, ["x"], 7, {"b64_json": "马"}]
    )
    def test_a_result_that_nothing_fetches_is_odd(self, result: object) -> None:
        """Here a result is an object; one that holds no address is passed over, and none is left."""
        assert type(self.not_polled(self.state("success", results=[result]))) is ProtocolError

    def test_a_result_may_be_base64(self) -> None:
        """Its bytes are at hand, and there is no address to keep."""
        (output,) = self.poll(self.state("success", results=[{"b64_json": "AAAA", "url": ""}])).outputs
        assert (output.kind, output.inline, output.url) == ("image", "AAAA", None)

    def test_base64_may_be_a_data_url_already(self) -> None:
        """It is not wrapped twice."""
        (output,) = self.poll(self.state("success", results=[{"b64_json": "data:image/png;base64,AAAA"}])).outputs
        assert output.inline == "AAAA"

    def test_an_address_goes_before_base64(self) -> None:
        """Where an answer holds both."""
        (output,) = self.poll(self.state("success", results=[{"b64_json": "AAAA", "url": URL}])).outputs
        assert (output.url, output.inline) == (URL, None)

    def test_several_pictures_keep_their_order(self) -> None:
        """Two alike are two where their bytes came along: they were bought as two. The same address is one."""
        results = [{"url": URL}, {"b64_json": "AAAA"}, {"b64_json": "AAAA"}, {"url": URL + "2"}, {"url": URL}]
        outputs = self.poll(self.state("success", results=results)).outputs
        assert [output.url or output.inline for output in outputs] == [URL, "AAAA", "AAAA", URL + "2"]

    def test_results_may_be_bare_addresses(self) -> None:
        """As other answers of the same kind list them."""
        (output,) = self.poll({"data": {"status": "success", "data": {"data": [URL]}}}).outputs
        assert output.url == URL

    def test_an_id_at_the_top_is_the_exchanges(self) -> None:
        """The document names `task_id` alone."""
        assert self.submit({"id": "exchange-1", "task_id": TASK_ID}).task_id == TASK_ID
        assert self.submit({"id": "exchange-1", "data": {"task_id": TASK_ID}}).task_id == TASK_ID
        assert self.refused({"id": "exchange-1"}).money == "may be spent"

    def test_the_data_goes_before_the_top(self) -> None:
        """A status at the top is the envelope's."""
        assert self.poll({"status": "success", "data": {"status": "in_progress"}}).status is JobStatus.RUNNING
        assert self.poll({"status": "in_progress"}).status is JobStatus.RUNNING


def test_the_two_share_their_codes() -> None:
    """Both look like forks of the same gateway."""
    assert get_gateway("uniall").facts.codes == get_gateway("happyhorse").facts.codes
