"""UniAll and happyhorse.pics: their documents, and the habits of the gateway that they look like forks of."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from prefect_happyhorse.catalog import find_route
from prefect_happyhorse.domain.errors import (
    AuthenticationFailed,
    GatewayUnavailable,
    InvalidRequest,
    ModerationRejected,
    ProtocolError,
    QuotaExceeded,
    RateLimited,
    RequestRejected,
)
from prefect_happyhorse.domain.jobs import JobStatus
from prefect_happyhorse.domain.requests import GenerationRequest, parse_request
from prefect_happyhorse.gateways import Account, get_gateway

from .contract import TASK_ID, URL, GatewayContract, Refusal

MISSING = [
    (400, {"code": "task_not_exist", "message": "task_not_exist", "data": None}),
    (400, {"error": {"message": "task_not_exist", "type": "invalid_request_error", "code": "task_not_exist"}}),
    (200, {"code": "task_not_exist", "message": "task_not_exist", "data": None}),
    (404, {"code": "task_not_exist", "message": "task_not_exist", "data": None}),
]


def error(code: object, kind: object = "new_api_error", message: object = "No.") -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "code": code}}


def flat(code: object, message: object = "No.", data: object = None) -> dict[str, Any]:
    return {"code": code, "message": message, "data": data}


REFUSALS = [
    *(
        Refusal(status, shape(code), kind, code)
        for status, code, kind in [
            (400, "invalid_request", InvalidRequest),
            (400, "invalid_request_error", InvalidRequest),
            (401, "invalid_api_key", AuthenticationFailed),
            (403, "insufficient_user_quota", QuotaExceeded),
            (403, "pre_consume_token_quota_failed", QuotaExceeded),
            (429, "insufficient_quota", QuotaExceeded),
            (429, "rate_limit_exceeded", RateLimited),
            (400, "content_policy_violation", ModerationRejected),
            # Refused before anything is passed on, though the status is a server's error.
            (500, "sensitive_words_detected", ModerationRejected),
            (503, "model_not_found", InvalidRequest),
            (200, "rate_limit_exceeded", RateLimited),
            (200, "insufficient_user_quota", QuotaExceeded),
        ]
        for shape in (error, flat)
    ),
    # A type says it where no code does, but neither in a server's error nor where a path is wrong.
    Refusal(400, error(None, "invalid_request_error"), InvalidRequest, "invalid_request_error"),
    Refusal(429, error("", "rate_limit_exceeded"), RateLimited, "rate_limit_exceeded"),
    Refusal(500, error(None, "invalid_request_error"), GatewayUnavailable, None, "may be spent"),
    Refusal(404, error("", "invalid_request_error", "Invalid URL (GET /v1/x)"), RequestRejected, None),
    # The status decides where the code is not documented, and under 200 nothing does.
    Refusal(403, error("access_denied"), AuthenticationFailed, "access_denied"),
    Refusal(500, error("do_request_failed"), GatewayUnavailable, "do_request_failed", "may be spent"),
    Refusal(500, flat("fail_to_fetch_task"), GatewayUnavailable, "fail_to_fetch_task", "may be spent"),
    Refusal(409, flat("duplicate"), ProtocolError, None, "may be spent"),
    Refusal(200, flat("do_request_failed"), ProtocolError, None, "may be spent"),
    Refusal(200, {"error": "No."}, ProtocolError, None, "may be spent"),
    Refusal(200, error(None, None), ProtocolError, None, "may be spent"),
    Refusal(200, flat("success"), ProtocolError, None, "may be spent"),
    Refusal(200, flat(0), ProtocolError, None, "may be spent"),
    Refusal(200, flat("SUCCESS", "", {}), ProtocolError, None, "may be spent"),
]


class NewAPIContract(GatewayContract):
    """What the two share."""

    words: ClassVar[dict[JobStatus, tuple[str, ...]]] = {
        JobStatus.QUEUED: ("queued", "NOT_START", "SUBMITTED"),
        JobStatus.RUNNING: ("in_progress", "processing"),
        JobStatus.SUCCEEDED: ("completed", "success", "succeeded"),
        JobStatus.FAILED: ("failed", "failure", "error"),
        JobStatus.CANCELED: ("cancelled", "canceled"),
        # Not final here, where DashScope's is.
        JobStatus.UNKNOWN: ("UNKNOWN",),
    }
    refusals: ClassVar[list[Refusal]] = REFUSALS
    missing: ClassVar[list[tuple[int, dict[str, Any]]]] = MISSING

    def echo(self, text: str) -> list[tuple[int, dict[str, Any]]]:
        return [
            *((status, shape(text, message=text)) for status in (200, 400, 401, 404, 500) for shape in (error, flat)),
            *((status, error(code, text, text)) for status in (200, 400, 500) for code in (None, "invalid_api_key")),
            (200, {"id": TASK_ID, "task_id": TASK_ID, "status": text, "request_id": text}),
            (200, {"id": TASK_ID, "status": "failed", "error": {"code": text, "message": text}}),
            (200, {"output": {"task_status": "failed", "fail_reason": text, "code": text}}),
            (200, {"data": {"status": "failed", "fail_reason": text}}),
            (200, {text: text}),
        ]

    @pytest.mark.parametrize(
        ("progress", "fraction"),
        [
            (0, 0.0),
            (30, 0.3),
            (100, 1.0),
            (1, 0.01),
            (0.3, 0.3),
            (1.0, 1.0),
            (45.5, 0.455),
            ("30%", 0.3),
            ("30", 0.3),
            (" 30 % ", 0.3),
            ("100%", 1.0),
            (250, 1.0),
            (10**400, None),
            (-1, None),
            ("soon", None),
            ("", None),
            ("nan", None),
            (float("nan"), None),
            (float("inf"), 1.0),
            (True, None),
            (None, None),
            ([30], None),
        ],
    )
    def test_progress_is_a_number_or_a_text(self, progress: object, fraction: float | None) -> None:
        """In per cent, or as a fraction with a point; what is neither says nothing."""
        told = self.poll({**self.state("in_progress"), "progress": progress}).progress
        assert told == (None if fraction is None else pytest.approx(fraction))

    @pytest.mark.parametrize("place", ["progress", "output", "data"])
    def test_progress_may_stand_inside(self, place: str) -> None:
        """Where the status does."""
        inside: dict[str, Any] = {"progress": "40%"} if place == "progress" else {place: {"progress": "40%"}}
        assert self.poll({"status": "in_progress", **inside}).progress == pytest.approx(0.4)

    @pytest.mark.parametrize(
        "body",
        [
            {"error": {"message": "too dark", "code": "c-1"}},
            {"error": "too dark"},
            {"fail_reason": "too dark"},
            {"output": {"fail_reason": "too dark"}},
            {"data": {"fail_reason": "too dark"}},
            {"message": "too dark"},
        ],
    )
    def test_a_reason_may_stand_in_many_places(self, body: dict[str, Any]) -> None:
        """It is a failed job's, not a failed call's."""
        state = self.poll({"id": TASK_ID, "status": "failed", **body})
        assert (state.status, state.message) == (JobStatus.FAILED, "too dark")
        assert state.code == ("c-1" if isinstance(body.get("error"), dict) else None)

    def test_a_documented_code_beside_a_word_is_a_failed_call(self) -> None:
        """An envelope's own status is not the job's: a throttled poll must not end a job that is paid for."""
        assert type(self.not_polled({"status": "error", "code": "rate_limit_exceeded", "message": "Slow down."})) is RateLimited

    def test_a_jobs_own_code_does_not_fail_the_call(self) -> None:
        """It stands inside, beside the job's word."""
        state = self.poll({"id": TASK_ID, "status": "failed", "error": {"code": "content_policy_violation", "message": "No."}})
        assert (state.status, state.code) == (JobStatus.FAILED, "content_policy_violation")

    def test_success_is_never_undone_by_a_reason(self) -> None:
        """On success the address may stand where the reason does otherwise."""
        for body in ({"fail_reason": URL}, {"data": {"fail_reason": URL}}, {"output": {"fail_reason": URL}}, {"data": {"result_url": URL}}):
            state = self.poll({"status": "SUCCESS", **body})
            assert (state.status, [output.url for output in state.outputs], state.message) == (JobStatus.SUCCEEDED, [URL], None)

    def test_a_remark_is_no_result(self) -> None:
        """A text in the same place that is no address."""
        assert type(self.not_polled({"status": "SUCCESS", "fail_reason": "none"})) is ProtocolError

    def test_an_empty_error_is_none(self) -> None:
        """A field that is always there must not lose a job that is paid for."""
        for nothing in (None, "", {}, []):
            assert self.submit({"task_id": TASK_ID, "error": nothing}).task_id == TASK_ID

    def test_usage_is_kept(self) -> None:
        """Where it is an object."""
        assert self.poll({"status": "queued", "usage": {"seconds": 4.5}}).usage == {"seconds": 4.5}
        assert self.poll({"status": "queued", "usage": 4.5}).usage is None


class TestUniAll(NewAPIContract):
    """UniAll."""

    gateway: ClassVar[str] = "uniall"
    model: ClassVar[str] = "happy-horse-720p"
    submit_path: ClassVar[str] = "/v1/video/generations"
    poll_path: ClassVar[str] = "/v1/videos/"

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


class TestHappyHorseVideos(NewAPIContract):
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


class TestHappyHorseGenerations(NewAPIContract):
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


class TestHappyHorseImages(NewAPIContract):
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

    def test_a_result_that_nothing_fetches_is_odd(self, result: object = {"url": 7}) -> None:
        """Here a result is an object; one that holds no address is passed over, and none is left."""
        for odd in ({"url": 7}, {"url": "horse.png"}, {"url": "ftp://example.com/a.png"}, {"no": 1}, ["x"], 7, {"b64_json": "马"}):
            assert type(self.not_polled(self.state("success", results=[odd]))) is ProtocolError, odd
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


def test_uniall_polls_at_either_path() -> None:
    """The account's setting replaces the catalog's path."""
    account = Account(gateway="uniall", base_url="https://gateway.example", poll_path="/v1/videos/generations/{task_id}")
    call = get_gateway("uniall").poll_request(find_route("uniall", "text_to_video", "happy-horse-720p"), "t", account)
    assert call.url.path == "/v1/videos/generations/t"
