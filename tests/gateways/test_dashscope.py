"""DashScope itself, TTAPI and Infiflow: one protocol, as the sources and DashScope's own documents show it."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from prefect_happyhorse.catalog import find_route
from prefect_happyhorse.domain.errors import (
    AuthenticationFailed,
    CatalogError,
    GatewayUnavailable,
    InvalidRequest,
    ModerationRejected,
    ProtocolError,
    QuotaExceeded,
    RateLimited,
    RequestRejected,
)
from prefect_happyhorse.domain.jobs import JobStatus
from prefect_happyhorse.domain.requests import ImageToVideo
from prefect_happyhorse.gateways import Account, CallRejected, MalformedResponse, get_gateway

from .dialect import KEY, TASK_ID, URL, Refusal, response
from .gateway_suite import GatewaySuite


def code(code: str, message: str = "No.", **more: Any) -> dict[str, Any]:
    return {"code": code, "message": message, "request_id": "7438d53d-6eb8-4596-8835-xxxxxx", **more}


SHARED = [
    Refusal(400, code("InvalidParameter"), InvalidRequest, "InvalidParameter"),
    Refusal(401, code("InvalidApiKey", "No API-key provided."), AuthenticationFailed, "InvalidApiKey"),
    Refusal(403, code("AccessDenied"), AuthenticationFailed, "AccessDenied"),
    Refusal(404, code("ModelNotFound"), InvalidRequest, "ModelNotFound"),
    Refusal(429, code("Throttling"), RateLimited, "Throttling"),
    Refusal(429, code("Throttling.RateQuota"), RateLimited, "Throttling.RateQuota"),
    Refusal(429, code("Throttling.AllocationQuota"), RateLimited, "Throttling.AllocationQuota"),
    Refusal(400, code("Arrearage"), QuotaExceeded, "Arrearage"),
    Refusal(400, code("DataInspectionFailed"), ModerationRejected, "DataInspectionFailed"),
    Refusal(400, code("IPInfringementSuspect"), ModerationRejected, "IPInfringementSuspect"),
    Refusal(400, code("UnsupportedOperation"), InvalidRequest, "UnsupportedOperation"),
    Refusal(500, code("InternalError"), GatewayUnavailable, "InternalError", "may be spent"),
    # A documented code says what it says under HTTP 200 too, and in a server's error.
    Refusal(200, code("InvalidApiKey"), AuthenticationFailed, "InvalidApiKey"),
    Refusal(200, code("Throttling"), RateLimited, "Throttling"),
    Refusal(503, code("Throttling"), RateLimited, "Throttling"),
    Refusal(200, code("InternalError"), GatewayUnavailable, "InternalError", "may be spent"),
    # What is not documented is not guessed at: the status decides, and under 200 nothing does.
    Refusal(400, code("Nonsense"), InvalidRequest, "Nonsense"),
    Refusal(500, code("Nonsense"), GatewayUnavailable, "Nonsense", "may be spent"),
    Refusal(409, code("Nonsense"), ProtocolError, None, "may be spent"),
    Refusal(200, code("Nonsense"), ProtocolError, None, "may be spent"),
]


class DashScopeSuite(GatewaySuite):
    """What the three share."""

    model: ClassVar[str] = "happyhorse-1.1-r2v"
    words: ClassVar[dict[JobStatus, tuple[str, ...]]] = {
        JobStatus.QUEUED: ("PENDING",),
        JobStatus.RUNNING: ("RUNNING",),
        JobStatus.SUCCEEDED: ("SUCCEEDED",),
        JobStatus.FAILED: ("FAILED",),
        JobStatus.CANCELLED: ("CANCELED",),
        # Final here: the id is past its 24 hours.
        JobStatus.EXPIRED: ("UNKNOWN",),
    }

    def accepted(self, task_id: object = TASK_ID) -> dict[str, Any]:
        return {"output": {"task_status": "PENDING", "task_id": task_id}, "request_id": "4909100c-7b5a-9f92-bfe5-xxxxxx"}

    def state(self, word: object, *, results: list[Any] | None = None, reason: str | None = None) -> dict[str, Any]:
        output: dict[str, Any] = {"task_id": TASK_ID, "task_status": word, "submit_time": "2026-11-20 12:00:00.000"}
        if results:
            output["video_url"] = results[0]
        if reason is not None:
            output |= {"code": "InternalError.Algo", "message": reason}
        return {"request_id": "r-1", "output": output, "usage": {"duration": 5.5, "SR": 720}}

    def echo(self, text: str) -> list[tuple[int, dict[str, Any]]]:
        return [
            *((status, code(text, text)) for status in (200, 400, 401, 429, 500)),
            (200, {"code": "InvalidApiKey", "message": text, "request_id": text}),
            (200, {"output": {"task_id": TASK_ID, "task_status": text}, "request_id": text}),
            (200, {"output": {"task_id": TASK_ID, "task_status": "FAILED", "code": text, "message": text}}),
            (200, {text: text}),
        ]

    def test_request_id_and_word_of_a_submit_are_kept(self) -> None:
        """As the source's own example shows them."""
        submission = self.submit(self.accepted())
        assert (submission.request_id, submission.provider_status) == ("4909100c-7b5a-9f92-bfe5-xxxxxx", "PENDING")

    def test_an_id_without_a_word_is_a_job(self) -> None:
        """It waits, for all that is known."""
        submission = self.submit({"output": {"task_id": TASK_ID}, "code": "200"})
        assert (submission.task_id, submission.status, submission.provider_status, submission.request_id) == (
            TASK_ID,
            JobStatus.QUEUED,
            None,
            None,
        )

    @pytest.mark.parametrize("output", [None, [], "t-1", 5, {}])
    def test_an_output_that_is_none_holds_no_id(self, output: object) -> None:
        """Whatever stands in its place."""
        assert (type(self.refused({"output": output})), self.refused({"output": output}).money) == (ProtocolError, "may be spent")

    def test_a_failed_job_answers_200_with_code_and_message(self) -> None:
        """Both stand in the output."""
        state = self.poll(self.state("FAILED", reason="too dark"))
        assert (state.code, state.message, state.request_id) == ("InternalError.Algo", "too dark", "r-1")

    def test_usage_keeps_its_fractions(self) -> None:
        """What was billed is recorded as it was said."""
        assert self.poll(self.state("SUCCEEDED", results=[URL])).usage == {"duration": 5.5, "SR": 720}
        assert self.poll({"output": {"task_status": "RUNNING"}, "usage": "none"}).usage is None

    def test_results_may_stand_in_a_list(self) -> None:
        """As DashScope's picture models answer; an address that stands twice is one output."""
        body = {
            "output": {"task_status": "SUCCEEDED", "results": [{"url": URL}, {"url": URL + "2"}, {"code": "x"}, None, "y", {"url": URL}]}
        }
        assert [output.url for output in self.poll(body).outputs] == [URL, URL + "2"]

    @pytest.mark.parametrize("results", [5, "https://example.com/a.mp4", {"url": URL}, None, True])
    def test_results_that_are_no_list_hold_none(self, results: object) -> None:
        """They are not walked through as if they were."""
        assert type(self.not_polled({"output": {"task_status": "SUCCEEDED", "results": results}})) is ProtocolError

    def test_a_cancel_gives_its_request_id(self) -> None:
        """And a refused one says why."""
        assert self.protocol.read_cancel(response({"request_id": "r-9"})) == "r-9"
        assert self.protocol.read_cancel(response({})) is None
        with pytest.raises(CallRejected) as caught:
            self.protocol.read_cancel(response(code("UnsupportedOperation", "The job runs."), 400))
        assert (caught.value.meaning, caught.value.code) == ("invalid", "UnsupportedOperation")
        with pytest.raises(MalformedResponse):
            self.protocol.read_cancel(response(b"<html>"))


class TestInfiflow(DashScopeSuite):
    """Infiflow: `code` and `message` in the body when a request fails."""

    gateway: ClassVar[str] = "infiflow"
    submit_path: ClassVar[str] = "/dashscope/api/v1/services/aigc/video-generation/video-synthesis"
    poll_path: ClassVar[str] = "/dashscope/api/v1/tasks/"
    cancel_path: ClassVar[str | None] = "/dashscope/api/v1/tasks/{}/cancel"
    refusals: ClassVar[list[Refusal]] = SHARED

    def test_a_submit_asks_for_a_task(self) -> None:
        """Without the header DashScope would keep the connection until the video is made."""
        assert self.signed().headers["x-dashscope-async"] == "enable"


class TestTTAPI(DashScopeSuite):
    """TTAPI: the same, and its platform's own error shape beside it."""

    gateway: ClassVar[str] = "ttapi"
    key_header: ClassVar[tuple[str, str]] = ("tt-api-key", KEY)
    submit_path: ClassVar[str] = "/happyhorse/api/v1/services/aigc/video-generation/video-synthesis"
    poll_path: ClassVar[str] = "/happyhorse/api/v1/tasks/"
    cancel_path: ClassVar[str | None] = "/happyhorse/api/v1/tasks/{}/cancel"
    missing: ClassVar[list[tuple[int, dict[str, Any]]]] = [
        (404, {"status": 404, "message": "job not found", "jobId": TASK_ID, "data": None}),
        (200, {"status": "404", "message": "job not found", "jobId": TASK_ID, "data": None}),
    ]
    refusals: ClassVar[list[Refusal]] = [
        *SHARED,
        *(
            Refusal(http, {"status": status, "message": "No.", "jobId": "", "data": None}, kind, str(status), money)
            for status, kind, money in [
                (400, InvalidRequest, "not spent"),
                (401, AuthenticationFailed, "not spent"),
                (402, QuotaExceeded, "not spent"),
                (404, RequestRejected, "not spent"),
                (429, RateLimited, "not spent"),
                # The queue is exhausted: nothing was taken, and it may be sent again.
                (499, GatewayUnavailable, "not spent"),
            ]
            for http in (status, 200)
        ),
        Refusal(500, {"status": 500, "message": "No.", "jobId": "", "data": None}, GatewayUnavailable, "500", "may be spent"),
        Refusal(504, {"status": 504, "message": "No.", "jobId": "", "data": None}, GatewayUnavailable, "504", "may be spent"),
        Refusal(200, {"status": 500, "message": "No.", "jobId": "", "data": None}, ProtocolError, None, "may be spent"),
    ]

    def echo(self, text: str) -> list[tuple[int, dict[str, Any]]]:
        platform = {"status": text, "message": text, "jobId": text, "data": text}
        return [*super().echo(text), (200, platform), (401, platform), (401, {**platform, "status": 401})]

    def test_a_success_of_the_platform_without_an_id_is_uncertain(self) -> None:
        """Its own shape is not the one that this endpoint documents."""
        error = self.refused({"status": "SUCCESS", "message": "", "data": {"jobId": "j-1"}})
        assert (type(error), error.money) == (ProtocolError, "may be spent")
        assert "task id" in error.message


class TestDashScope(DashScopeSuite):
    """The maker's own: more codes, pictures too, and a word for a task that stands still."""

    gateway: ClassVar[str] = "dashscope"
    submit_path: ClassVar[str] = "/api/v1/services/aigc/video-generation/video-synthesis"
    poll_path: ClassVar[str] = "/api/v1/tasks/"
    cancel_path: ClassVar[str | None] = "/api/v1/tasks/{}/cancel"
    refusals: ClassVar[list[Refusal]] = [
        *SHARED,
        # Money, and not the rate: sending it again would not help.
        *(
            Refusal(429, code(word), QuotaExceeded, word)
            for word in ("CommodityNotPurchased", "PrepaidBillOverdue", "PostpaidBillOverdue", "BudgetLimitExceeded")
        ),
        Refusal(403, code("AllocationQuota.FreeTierOnly"), QuotaExceeded, "AllocationQuota.FreeTierOnly"),
        Refusal(429, code("Throttling.BurstRate"), RateLimited, "Throttling.BurstRate"),
        # The inspection could not fetch the medium, which is no word on what it shows.
        Refusal(400, code("InvalidParameter.DataInspection"), InvalidRequest, "InvalidParameter.DataInspection"),
        Refusal(400, code("InvalidFile.Duration"), InvalidRequest, "InvalidFile.Duration"),
        Refusal(503, code("ModelUnavailable"), GatewayUnavailable, "ModelUnavailable"),
        Refusal(500, code("InternalError.Timeout"), GatewayUnavailable, "InternalError.Timeout", "may be spent"),
        Refusal(413, code("TooMuch"), InvalidRequest, "TooMuch"),
    ]

    def test_a_task_that_stands_still_is_waited_for(self) -> None:
        """Its own package knows the word."""
        assert self.poll(self.state("SUSPENDED")).status is JobStatus.QUEUED


PICTURE = find_route("dashscope", "text_to_image", "wan2.7-image")


def test_pictures_stand_in_messages() -> None:
    """One choice for each, in their order."""
    choices = [{"message": {"content": [{"type": "image", "image": URL + number}]}} for number in ("1", "2")]
    state = get_gateway("dashscope").read_poll(response({"output": {"task_status": "SUCCEEDED", "choices": choices}}), PICTURE)
    assert [(output.kind, output.url) for output in state.outputs] == [("image", URL + "1"), ("image", URL + "2")]


def test_a_picture_that_failed_may_say_the_reason_alone() -> None:
    """That is the end of the job where the reason is one of a job, and nothing where it is one of the call."""
    gateway = get_gateway("dashscope")
    state = gateway.read_poll(response(code("DataInspectionFailed", "No such horses.")), PICTURE)
    assert (state.status, state.code, state.request_id) == (JobStatus.FAILED, "DataInspectionFailed", "7438d53d-6eb8-4596-8835-xxxxxx")
    assert "No such horses." in (state.message or "")
    video = find_route("dashscope", "text_to_video", "wan2.7-t2v")
    for status, word, route in (
        (200, "InvalidApiKey", PICTURE),
        (400, "DataInspectionFailed", PICTURE),
        (200, "DataInspectionFailed", video),
    ):
        with pytest.raises(CallRejected):
            gateway.read_poll(response(code(word), status), route)


class TestTheListOfTasks:
    """What DashScope itself lists, and what is no list."""

    gateway = get_gateway("dashscope")
    account = Account(gateway="dashscope", base_url="https://dashscope.aliyuncs.com")

    def test_it_is_asked_for_by_model_and_page(self) -> None:
        """Without times, whose zone no page tells."""
        request = self.gateway.tasks_request(self.account, "happyhorse-1.1-t2v", 2)
        assert str(request.url) == "https://dashscope.aliyuncs.com/api/v1/tasks?model_name=happyhorse-1.1-t2v&page_no=2&page_size=100"
        assert request.method == "GET"

    def test_a_page_is_read(self) -> None:
        """Ids, and times in milliseconds."""
        entry = {"task_id": "t-1", "status": "PENDING", "model_name": "m", "gmt_create": 1_764_000_000_123, "caller_uid": "7"}
        page = self.gateway.read_tasks(response({"total": 1, "total_page": 1, "page_no": 1, "page_size": 10, "data": [entry]}))
        assert (page.total, page.pages, page.tasks[0].task_id) == (1, 1, "t-1")
        assert page.tasks[0].created_at.timestamp() == pytest.approx(1_764_000_000.123)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"total": None},
            {"total": -1},
            {"total_page": "1"},
            {"data": [{"task_id": "t-1"}]},
            {"data": [{"task_id": "t-1", "gmt_create": True}]},
            {"data": [{"task_id": "t-1", "gmt_create": 10**18}]},
            {"data": [{"task_id": "t-1", "gmt_create": "2026-11-30 12:00:00"}]},
            {"data": [{"task_id": "a b", "gmt_create": 1}]},
            {"data": ["t-1"]},
        ],
    )
    def test_what_is_no_page_is_malformed(self, wrong: dict[str, Any]) -> None:
        """A task that cannot be read may be the one that is looked for."""
        with pytest.raises(MalformedResponse):
            self.gateway.read_tasks(response({"total": 1, "total_page": 1, "data": [], **wrong}))

    def test_a_refusal_is_one(self) -> None:
        """As of every call."""
        with pytest.raises(CallRejected):
            self.gateway.read_tasks(response(code("InvalidApiKey"), 401))

    def test_another_gateway_has_none(self) -> None:
        """Nothing can be asked for, and a dialect that lists nothing cannot be told to."""
        with pytest.raises(CatalogError, match="infiflow documents no list of tasks"):
            get_gateway("infiflow").tasks_request(Account(gateway="infiflow", base_url="https://example.com"), "m", 1)
        newapi = get_gateway("happyhorse")
        with pytest.raises(CatalogError, match="which lists no tasks"):
            newapi.tasks_query("m", 1)
        with pytest.raises(CatalogError, match="which lists no tasks"):
            newapi.read_tasks(response({}))
        with pytest.raises(CatalogError, match="lists no tasks"):
            type(newapi)(newapi.facts.model_copy(update={"list_tasks": "GET /tasks"}))

    def test_the_prompt_of_a_task_is_read(self) -> None:
        """It stands in the answer to a poll of a finished one."""
        route = find_route("dashscope", "text_to_video", "happyhorse-1.1-t2v")
        output = {"task_id": "t-1", "task_status": "SUCCEEDED", "orig_prompt": "A horse", "video_url": "https://example.com/a.mp4"}
        assert self.gateway.read_poll(response({"request_id": "r", "output": output}), route).prompt == "A horse"


class TestTheTemporaryStorage:
    """A policy becomes a form, and a submit says that it names what was uploaded."""

    gateway = get_gateway("dashscope")
    account = Account(gateway="dashscope", base_url="https://dashscope.aliyuncs.com")
    policy: ClassVar[dict[str, Any]] = {
        "oss_access_key_id": "LTAI1",
        "signature": "s=",
        "policy": "p=",
        "x_oss_object_acl": "private",
        "x_oss_forbid_overwrite": "true",
        "upload_dir": "dashscope-instant/d",
        "upload_host": "https://dashscope-file.oss-cn-beijing.aliyuncs.com",
        "expire_in_seconds": 300,
    }

    def test_it_is_asked_for_by_model(self) -> None:
        """What is uploaded is bound to the model."""
        request = self.gateway.policy_request(self.account, "wan2.7-i2v")
        assert str(request.url) == "https://dashscope.aliyuncs.com/api/v1/uploads?action=getPolicy&model=wan2.7-i2v"
        assert request.method == "GET"

    def test_a_policy_is_a_form(self) -> None:
        """Its repr shows nothing by which something could be uploaded."""
        form = self.gateway.read_policy(response({"request_id": "r", "data": self.policy}), "a.png")
        assert form.url == self.policy["upload_host"]
        assert form.address == "oss://dashscope-instant/d/a.png"
        assert form.fields == {
            "OSSAccessKeyId": "LTAI1",
            "Signature": "s=",
            "policy": "p=",
            "x-oss-object-acl": "private",
            "x-oss-forbid-overwrite": "true",
            "key": "dashscope-instant/d/a.png",
            "success_action_status": "200",
        }
        assert form.secrets == ("LTAI1", "s=", "p=")
        assert "LTAI1" not in repr(form)

    @pytest.mark.parametrize("lost", ["oss_access_key_id", "signature", "policy", "upload_dir", "upload_host"])
    @pytest.mark.parametrize("value", ["", None, [], "x" * 900_000])
    def test_what_is_no_policy_is_malformed(self, lost: str, value: object) -> None:
        """What of it there is is not shown."""
        with pytest.raises(MalformedResponse, match="no policy") as caught:
            self.gateway.read_policy(response({"data": {**self.policy, lost: value}}), "a.png")
        assert caught.value.excerpt == ""

    @pytest.mark.parametrize("acl", ["public-read", "public-read-write", "default"])
    def test_a_policy_that_shows_the_input_to_others_is_refused(self, acl: str) -> None:
        """What is uploaded may be read with a signature alone."""
        with pytest.raises(CallRejected, match="let others read"):
            self.gateway.read_policy(response({"data": {**self.policy, "x_oss_object_acl": acl}}), "a.png")

    def test_a_refusal_is_one(self) -> None:
        """As of every call."""
        with pytest.raises(CallRejected):
            self.gateway.read_policy(response(code("InvalidApiKey"), 401), "a.png")

    def test_a_submit_says_that_it_names_an_upload(self) -> None:
        """And none that names none."""
        for url, said in (("oss://dashscope-instant/d/a.png", "enable"), ("https://example.com/a.png", None)):
            request = ImageToVideo(model="wan2.7-i2v", prompt="It runs", image=url)
            sent = self.gateway.submit_request(request, find_route("dashscope", "image_to_video", "wan2.7-i2v"), self.account)
            assert sent.headers.get("X-DashScope-OssResourceResolve") == said

    def test_another_gateway_has_none(self) -> None:
        """Nothing can be asked for, and a dialect that uploads nothing cannot be told to."""
        with pytest.raises(CatalogError, match="infiflow documents no temporary storage"):
            get_gateway("infiflow").policy_request(Account(gateway="infiflow", base_url="https://example.com"), "m")
        newapi = get_gateway("happyhorse")
        with pytest.raises(CatalogError, match="which uploads nothing"):
            newapi.read_policy(response({}), "a.png")
        with pytest.raises(CatalogError, match="uploads nothing"):
            type(newapi)(newapi.facts.model_copy(update={"upload_policy": "GET /uploads"}))
