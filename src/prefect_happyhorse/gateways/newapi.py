"""The open-source gateway new-api, and the gateways whose responses follow it (https://github.com/QuantumNous/new-api)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, ClassVar, cast

import httpx

from prefect_happyhorse.catalog import ResponsePaths, Route
from prefect_happyhorse.domain.errors import GenerationError
from prefect_happyhorse.domain.jobs import JobStatus
from prefect_happyhorse.gateways.base import Gateway
from prefect_happyhorse.gateways.failures import error_code, failure
from prefect_happyhorse.gateways.responses import as_text, first_text, protocol_error, value_at

__all__ = ["NewAPIGateway"]

# On success an address may stand in fail_reason, so it is looked at last and only for an address.
_LATE_RESULT_PATHS = ("data.result_url", "fail_reason", "data.fail_reason", "output.fail_reason")


class NewAPIGateway(Gateway):
    """A gateway that answers as new-api does."""

    # UNKNOWN and NOT_START are not final here, so neither is listed as an end.
    words: ClassVar[Mapping[JobStatus, Collection[str]]] = {
        JobStatus.QUEUED: {"queued", "submitted", "not_start", "pending"},
        JobStatus.RUNNING: {"in_progress", "running", "processing"},
        JobStatus.SUCCEEDED: {"success", "succeeded", "completed"},
        JobStatus.FAILED: {"failed", "failure", "error"},
        JobStatus.CANCELLED: {"canceled", "cancelled"},
    }
    paths: ClassVar[ResponsePaths] = ResponsePaths(
        task_id=("id", "task_id", "output.task_id", "data.task_id"),
        status=("status", "output.task_status", "data.status"),
        result=("video_url", "result_url", "metadata.url", "results"),
    )
    failed_code_paths: ClassVar[tuple[str, ...]] = ("error.code", "output.code")
    failed_reason_paths: ClassVar[tuple[str, ...]] = (
        "error.message",
        "error",
        "output.fail_reason",
        "data.fail_reason",
        "fail_reason",
        "message",
    )
    progress_paths: ClassVar[tuple[str, ...]] = ("progress", "output.progress", "data.progress")

    def _failure(self, data: dict[str, Any], response: httpx.Response, route: Route | None) -> GenerationError | None:
        has_status = first_text(data, self._paths("status", route)) is not None
        if response.is_success and has_status and first_text(data, ("code",)) not in self.facts.codes:
            # A failed job answers 200 and carries its reason beside its status: that is a state, not a failed call.
            return None
        code_paths = self.facts.code_paths or ("error.code", "code", "error.type")
        if response.is_server_error or response.status_code == 404:
            # A type is coarse, and a broken server or a wrong path has one too: there the status says more.
            code_paths = tuple(path for path in code_paths if path != "error.type")
        code = error_code(data, code_paths)
        failed = failure(data, response, self.facts, code=code, message=first_text(data, ("error.message", "error", "message")))
        if failed is None and (code is not None or data.get("error")):
            return protocol_error(f"{self.facts.gateway} answered {response.status_code} with an error it does not document.", response)
        return failed

    def _results(self, data: dict[str, Any], route: Route) -> Iterable[object]:
        # The same result may stand in several places: the first place that has one is the one to read.
        for path in self._paths("result", route):
            value: object = value_at(data, path)
            found = list(_entries(cast("list[object]", value) if isinstance(value, list) else [value])) if value else []
            if found:
                return found
        late = (as_text(value_at(data, path)) for path in _LATE_RESULT_PATHS)
        return [text for text in late if text is not None and text.lower().startswith(("http://", "https://"))][:1]


def _entries(values: list[object]) -> Iterable[object]:
    """Each result of a list: its address, or its base64 data as a data URL."""
    for value in values:
        if isinstance(value, str):
            yield value
        elif address := first_text(value, ("url", "video_url", "image_url")):
            yield address
        elif data := as_text(value_at(value, "b64_json")):
            yield data if data.startswith("data:") else f"data:;base64,{data}"
