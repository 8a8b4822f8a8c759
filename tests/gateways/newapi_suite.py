"""UniAll and happyhorse.pics: the habits of the gateway that they look like forks of."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

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

from .dialect import TASK_ID, URL, Refusal
from .gateway_suite import GatewaySuite

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


class NewAPISuite(GatewaySuite):
    """What the two share."""

    words: ClassVar[dict[JobStatus, tuple[str, ...]]] = {
        JobStatus.QUEUED: ("queued", "NOT_START", "SUBMITTED"),
        JobStatus.RUNNING: ("in_progress", "processing"),
        JobStatus.SUCCEEDED: ("completed", "success", "succeeded"),
        JobStatus.FAILED: ("failed", "failure", "error"),
        JobStatus.CANCELLED: ("cancelled", "canceled"),
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
