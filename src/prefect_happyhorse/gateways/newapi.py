"""The open-source gateway new-api, and the gateways whose responses follow it (https://github.com/QuantumNous/new-api)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, ClassVar, cast

import httpx

from prefect_happyhorse.catalog import ResponsePaths, Route
from prefect_happyhorse.domain.jobs import JobStatus
from prefect_happyhorse.gateways.base import Gateway, Paths
from prefect_happyhorse.gateways.responses import as_text, first_text, value_at

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
        task_id=("id", "task_id", "output.task_id", "data.task_id", "data"),
        status=("status", "output.task_status", "data.status"),
        result=("video_url", "result_url", "metadata.url", "results"),
    )
    code_paths: Paths = ("error.code", "code", "error.type")
    message_paths: Paths = ("error.message", "error", "message")
    failed_code_paths: Paths = ("error.code", "output.code")
    failed_reason_paths: Paths = ("error.message", "error", "output.fail_reason", "data.fail_reason", "fail_reason", "message")
    progress_paths: Paths = ("progress", "output.progress", "data.progress")

    def _code_paths(self, response: httpx.Response) -> tuple[str, ...]:
        # A type is coarse, and a broken server or a wrong path has one too: there the status says more.
        is_vague = response.is_server_error or response.status_code == 404
        return tuple(path for path in super()._code_paths(response) if path != "error.type" or not is_vague)

    def _is_success(self, data: dict[str, Any], code: str | None, route: Route | None) -> bool:
        # A documented code is the call's own, whatever status stands beside it.
        return super()._is_success(data, code, route) and first_text(data, ("code",)) not in self.facts.codes

    def _is_error(self, data: dict[str, Any], code: str | None) -> bool:
        return code is not None or bool(data.get("error"))

    def _results(self, data: dict[str, Any], route: Route) -> Iterable[object]:
        # The same result may stand in several places: the first place that has one is the one to read.
        for path in self._paths("result", route):
            value: object = value_at(data, path)
            found = list(_entries(cast("list[object]", value) if isinstance(value, list) else [value])) if value else []
            if any(found):
                return found
        late = (as_text(value_at(data, path)) for path in _LATE_RESULT_PATHS)
        return [text for text in late if text is not None and text.lower().startswith(("http://", "https://"))][:1]


def _entries(values: list[object]) -> Iterable[object]:
    """Each result of a list: its address, its base64 data as a data URL, or None where it has neither."""
    for value in values:
        if isinstance(value, str):
            yield value
        elif address := first_text(value, ("url", "video_url", "image_url")):
            yield address
        elif data := as_text(value_at(value, "b64_json")):
            yield data if data.startswith("data:") else f"data:;base64,{data}"
        else:
            yield None
