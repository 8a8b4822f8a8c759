"""UniAll and happyhorse.pics: two gateways whose answers follow the open-source gateway new-api (https://github.com/QuantumNous/new-api)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, cast

import httpx

from prefect_happyhorse.catalog import Route
from prefect_happyhorse.domain.errors import GenerationError
from prefect_happyhorse.domain.jobs import JobState, JobStatus, Submission
from prefect_happyhorse.gateways.answers import (
    dig,
    failure,
    first_text,
    outputs_from,
    progress_from,
    protocol_error,
    request_id_of,
    scrub,
    status_from,
    text_of,
)
from prefect_happyhorse.gateways.base import Gateway

__all__ = ["HappyHorseGateway", "UniAllGateway"]

# UNKNOWN and NOT_START are not final here, so neither is listed as an end.
_WORDS = {
    JobStatus.QUEUED: {"queued", "submitted", "not_start", "pending"},
    JobStatus.RUNNING: {"in_progress", "running", "processing"},
    JobStatus.SUCCEEDED: {"success", "succeeded", "completed"},
    JobStatus.FAILED: {"failed", "failure", "error"},
    JobStatus.CANCELED: {"canceled", "cancelled"},
}
_FINE_CODES = frozenset({"success", "0", "200"})


class _NewAPIGateway(Gateway):
    task_id_paths: ClassVar[tuple[str, ...]] = ("id", "task_id", "output.task_id", "data.task_id")
    status_paths: ClassVar[tuple[str, ...]] = ("status", "output.task_status", "data.status")
    result_paths: ClassVar[tuple[str, ...]] = ()
    reason_paths: ClassVar[tuple[str, ...]] = ("error.message", "error", "output.fail_reason", "data.fail_reason", "fail_reason", "message")
    # On success an address may stand in fail_reason, so it is looked at last and only for an address.
    late_result_paths: ClassVar[tuple[str, ...]] = ("data.result_url", "fail_reason", "data.fail_reason", "output.fail_reason")

    def _failure(self, data: dict[str, Any], response: httpx.Response) -> GenerationError | None:
        if response.is_success and first_text(data, self.status_paths) is not None:
            # A failed job answers 200 and carries its reason beside its status: that is a state, not a failed call.
            return None
        code = first_text(data, ("error.code", "error.type", "code"))
        if code is not None and code.lower() in _FINE_CODES:
            code = None
        message = first_text(data, ("error.message", "error", "message"))
        failed = failure(data, response, self.facts, code=code, message=message)
        if failed is None and (code is not None or isinstance(data.get("error"), (dict, str))):
            return protocol_error(f"{self.facts.gateway} answered {response.status_code} with an error it does not document.", response)
        return failed

    def _submission(self, data: dict[str, Any], response: httpx.Response, route: Route) -> Submission | None:
        task_id = first_text(data, self._task_id_paths(route))
        if task_id is None:
            return None
        word = first_text(data, self.status_paths)
        status = JobStatus.QUEUED if word is None else status_from(word, _WORDS)
        return Submission(task_id=task_id, request_id=request_id_of(data, response), status=status, provider_status=word)

    def _task_id_paths(self, route: Route) -> tuple[str, ...]:
        return self.task_id_paths

    def _state(self, data: dict[str, Any], response: httpx.Response, route: Route) -> JobState:
        word = first_text(data, self.status_paths)
        if word is None:
            raise protocol_error("The answer holds no status.", response)
        status = status_from(word, _WORDS)
        outputs = outputs_from(self._found(data), route, response) if status is JobStatus.SUCCEEDED else ()
        failed = status in {JobStatus.FAILED, JobStatus.CANCELED}
        reason = first_text(data, self.reason_paths) if failed else None
        usage = data.get("usage")
        return JobState(
            status=status,
            provider_status=word,
            progress=next((p for path in ("progress", "output.progress", "data.progress") if (p := progress_from(dig(data, path))) is not None), None),
            outputs=outputs,
            code=first_text(data, ("error.code", "output.code")) if failed else None,
            message=scrub(reason, response) if reason else None,
            request_id=request_id_of(data, response),
            usage=cast("dict[str, Any]", usage) if isinstance(usage, dict) else None,
        )

    def _found(self, data: dict[str, Any]) -> list[object]:
        # The same result may stand in several places: the first place that has one is the one to read.
        for path in self.result_paths:
            value = dig(data, path)
            found: list[object] = list(_entries(cast("list[object]", value))) if isinstance(value, list) else [value] if value else []
            if found:
                return found
        return [value for path in self.late_result_paths if isinstance(value := dig(data, path), str) and value.startswith("http")][:1]


def _entries(values: list[object]) -> Iterable[object]:
    """Each result of a list: its address, or its base64 data."""
    for value in values:
        if isinstance(value, str):
            yield value
        elif address := first_text(value, ("url", "video_url", "image_url")):
            yield address
        elif data := text_of(dig(value, "b64_json")):
            yield ("base64", data)


class UniAllGateway(_NewAPIGateway):
    """UniAll (docs.uniall.ai, HappyHorse video)."""

    result_paths = ("video_url", "result.video_url", "result.outputs")

    def __init__(self) -> None:
        super().__init__("uniall")


class HappyHorseGateway(_NewAPIGateway):
    """happyhorse.pics, API reference: images, videos, and the two video families with a poll path of their own."""

    result_paths = (
        "data.data.data",
        "output.media_url",
        "output.video_url",
        "output.result_url",
        "video_url",
        "media_url",
        "result_url",
        "metadata.url",
        "results",
    )

    def __init__(self) -> None:
        super().__init__("happyhorse")

    def _task_id_paths(self, route: Route) -> tuple[str, ...]:
        # An image submit answers {task_id}; an id beside it would be the exchange's.
        return ("task_id", "data.task_id") if route.kind == "image" else self.task_id_paths
