"""UniAll and happyhorse.pics: two gateways whose answers follow the open-source gateway new-api (https://github.com/QuantumNous/new-api)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import httpx

from prefect_happyhorse.catalog import Route
from prefect_happyhorse.domain.errors import GenerationError
from prefect_happyhorse.domain.jobs import JobSnapshot, JobStatus, Submission
from prefect_happyhorse.gateways.answers import (
    dig,
    first_text,
    outputs_from,
    progress_from,
    protocol_error,
    request_id_of,
    status_from,
    text_of,
)
from prefect_happyhorse.gateways.base import Gateway
from prefect_happyhorse.gateways.failures import error_code, failure
from prefect_happyhorse.gateways.redaction import scrub, shown

__all__ = ["HappyHorseGateway", "UniAllGateway"]

# UNKNOWN and NOT_START are not final here, so neither is listed as an end.
_WORDS = {
    JobStatus.QUEUED: {"queued", "submitted", "not_start", "pending"},
    JobStatus.RUNNING: {"in_progress", "running", "processing"},
    JobStatus.SUCCEEDED: {"success", "succeeded", "completed"},
    JobStatus.FAILED: {"failed", "failure", "error"},
    JobStatus.CANCELLED: {"canceled", "cancelled"},
}


@dataclass(frozen=True)
class _Places:
    """Where a kind of answer holds a job's id and its status, the documented place first."""

    task_id: tuple[str, ...]
    status: tuple[str, ...]


_VIDEO = _Places(task_id=("id", "task_id", "output.task_id", "data.task_id"), status=("status", "output.task_status", "data.status"))
# An id or status at the top of an image's answer would be the exchange's.
_IMAGE = _Places(task_id=("task_id", "data.task_id"), status=("data.status", "status"))
_GENERATION = _Places(task_id=("output.task_id", "task_id", "id", "data.task_id"), status=("output.task_status", "status", "data.status"))


class _NewAPIGateway(Gateway):
    result_paths: ClassVar[tuple[str, ...]] = ()
    reason_paths: ClassVar[tuple[str, ...]] = ("error.message", "error", "output.fail_reason", "data.fail_reason", "fail_reason", "message")
    # On success an address may stand in fail_reason, so it is looked at last and only for an address.
    late_result_paths: ClassVar[tuple[str, ...]] = ("data.result_url", "fail_reason", "data.fail_reason", "output.fail_reason")
    progress_paths: ClassVar[tuple[str, ...]] = ("progress", "output.progress", "data.progress")

    def _failure(self, data: dict[str, Any], response: httpx.Response) -> GenerationError | None:
        if response.is_success and first_text(data, _VIDEO.status) is not None and first_text(data, ("code",)) not in self.facts.codes:
            # A failed job answers 200 and carries its reason beside its status: that is a state, not a failed call.
            return None
        # A type is coarse, and a broken server or a wrong path has one too: there the status says more.
        vague = response.is_server_error or response.status_code == 404
        code = error_code(data, ("error.code", "code") if vague else ("error.code", "code", "error.type"))
        failed = failure(data, response, self.facts, code=code, message=first_text(data, ("error.message", "error", "message")))
        if failed is None and (code is not None or data.get("error")):
            return protocol_error(f"{self.facts.gateway} answered {response.status_code} with an error it does not document.", response)
        return failed

    def _places(self, route: Route) -> _Places:
        return _VIDEO

    def _submission(self, data: dict[str, Any], response: httpx.Response, route: Route) -> Submission | None:
        places = self._places(route)
        task_id = first_text(data, places.task_id)
        if task_id is None:
            return None
        word = first_text(data, places.status)
        return Submission(
            task_id=task_id,
            request_id=request_id_of(data, response),
            status=JobStatus.QUEUED if word is None else status_from(word, _WORDS),
            provider_status=shown(word, response) if word else None,
        )

    def _state(self, data: dict[str, Any], response: httpx.Response, route: Route) -> JobSnapshot:
        word = first_text(data, self._places(route).status)
        if word is None:
            raise protocol_error("The answer holds no status.", response)
        status = status_from(word, _WORDS)
        failed = status in {JobStatus.FAILED, JobStatus.CANCELLED}
        reason = first_text(data, self.reason_paths) if failed else None
        code = first_text(data, ("error.code", "output.code")) if failed else None
        told = (progress_from(dig(data, path)) for path in self.progress_paths)
        usage = data.get("usage")
        return JobSnapshot(
            status=status,
            provider_status=shown(word, response),
            progress=next((progress for progress in told if progress is not None), None),
            outputs=outputs_from(self._found(data), route, response) if status is JobStatus.SUCCEEDED else (),
            code=shown(code, response) if code else None,
            message=scrub(reason, response) if reason else None,
            request_id=request_id_of(data, response),
            usage=cast("dict[str, Any]", usage) if isinstance(usage, dict) else None,
        )

    def _found(self, data: dict[str, Any]) -> Iterable[object]:
        # The same result may stand in several places: the first place that has one is the one to read.
        for path in self.result_paths:
            value: object = dig(data, path)
            found = list(_entries(cast("list[object]", value) if isinstance(value, list) else [value])) if value else []
            if found:
                return found
        late = (text_of(dig(data, path)) for path in self.late_result_paths)
        return [text for text in late if text is not None and text.lower().startswith(("http://", "https://"))][:1]


def _entries(values: list[object]) -> Iterable[object]:
    """Each result of a list: its address, or its base64 data as a data URL."""
    for value in values:
        if isinstance(value, str):
            yield value
        elif address := first_text(value, ("url", "video_url", "image_url")):
            yield address
        elif data := text_of(dig(value, "b64_json")):
            yield data if data.startswith("data:") else f"data:;base64,{data}"


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

    def _places(self, route: Route) -> _Places:
        if route.kind == "image":
            return _IMAGE
        return _GENERATION if route.submit.endswith("/v1/videos/generations") else _VIDEO
