"""TTAPI and Infiflow: two fronts of DashScope's task protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

import httpx

from prefect_happyhorse.catalog import Route
from prefect_happyhorse.domain.errors import GenerationError
from prefect_happyhorse.domain.jobs import JobSnapshot, JobStatus, Submission
from prefect_happyhorse.gateways.answers import (
    dig,
    first_text,
    outputs_from,
    protocol_error,
    request_id_of,
    status_from,
    text_of,
)
from prefect_happyhorse.gateways.base import Gateway
from prefect_happyhorse.gateways.failures import error_code, failure
from prefect_happyhorse.gateways.redaction import scrub, shown

__all__ = ["InfiflowGateway", "TTAPIGateway"]

# UNKNOWN is final here: the task id is past its 24 hours.
_WORDS = {
    JobStatus.QUEUED: {"pending"},
    JobStatus.RUNNING: {"running"},
    JobStatus.SUCCEEDED: {"succeeded"},
    JobStatus.FAILED: {"failed"},
    JobStatus.CANCELLED: {"canceled"},
    JobStatus.EXPIRED: {"unknown"},
}


class TTAPIGateway(Gateway):
    """TTAPI (docs.ttapi.io, HappyHorse)."""

    def __init__(self) -> None:
        super().__init__("ttapi")

    def _failure(self, data: dict[str, Any], response: httpx.Response) -> GenerationError | None:
        # Two shapes are seen: {code, message, request_id} of DashScope, and {status, message, jobId, data} of the platform.
        return _dashscope_failure(self, data, response, codes=("code", "output.code", "status"))

    def _submission(self, data: dict[str, Any], response: httpx.Response, route: Route) -> Submission | None:
        return _submission(data, response)

    def _state(self, data: dict[str, Any], response: httpx.Response, route: Route) -> JobSnapshot:
        return _state(data, response, route)


class InfiflowGateway(Gateway):
    """Infiflow (llm.infiflow.cn), DashScope behind a prefix."""

    submit_headers: ClassVar[Mapping[str, str]] = {"X-DashScope-Async": "enable"}

    def __init__(self) -> None:
        super().__init__("infiflow")

    def _failure(self, data: dict[str, Any], response: httpx.Response) -> GenerationError | None:
        return _dashscope_failure(self, data, response, codes=("code",))

    def _submission(self, data: dict[str, Any], response: httpx.Response, route: Route) -> Submission | None:
        return _submission(data, response)

    def _state(self, data: dict[str, Any], response: httpx.Response, route: Route) -> JobSnapshot:
        return _state(data, response, route)


def _dashscope_failure(
    gateway: Gateway, data: dict[str, Any], response: httpx.Response, *, codes: tuple[str, ...]
) -> GenerationError | None:
    if response.is_success and isinstance(data.get("output"), dict) and text_of(dig(data, "output.task_status")):
        # A failed task answers 200 and carries its reason in the output: that is a state, not a failed call.
        return None
    code = error_code(data, codes)
    failed = failure(data, response, gateway.facts, code=code, message=first_text(data, ("message", "output.message")))
    if failed is None and code is not None:
        said = f"{gateway.facts.gateway} answered {response.status_code} with the unknown code {shown(code, response)!r}."
        return protocol_error(said, response)
    return failed


def _submission(data: dict[str, Any], response: httpx.Response) -> Submission | None:
    task_id = text_of(dig(data, "output.task_id"))
    if task_id is None:
        return None
    word = text_of(dig(data, "output.task_status"))
    status = JobStatus.QUEUED if word is None else status_from(word, _WORDS)
    return Submission(
        task_id=task_id,
        request_id=request_id_of(data, response),
        status=status,
        provider_status=shown(word, response) if word else None,
    )


def _state(data: dict[str, Any], response: httpx.Response, route: Route) -> JobSnapshot:
    output = data.get("output")
    word = text_of(dig(output, "task_status"))
    if word is None:
        raise protocol_error("The answer holds no task_status.", response)
    status = status_from(word, _WORDS)
    results = dig(output, "results")
    entries = cast("list[object]", results) if isinstance(results, list) else []
    found = [dig(output, "video_url"), *(dig(entry, "url") for entry in entries)]
    usage = data.get("usage")
    code, message = text_of(dig(output, "code")), text_of(dig(output, "message"))
    return JobSnapshot(
        status=status,
        provider_status=shown(word, response),
        outputs=outputs_from(found, route, response) if status is JobStatus.SUCCEEDED else (),
        code=shown(code, response) if code else None,
        message=scrub(message, response) if message else None,
        request_id=request_id_of(data, response),
        usage=cast("dict[str, Any]", usage) if isinstance(usage, dict) else None,
    )
