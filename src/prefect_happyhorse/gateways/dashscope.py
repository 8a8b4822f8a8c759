"""The task protocol of Alibaba's DashScope (https://help.aliyun.com/zh/model-studio/video-generation-api)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, ClassVar

import httpx

from prefect_happyhorse.catalog import ResponsePaths, Route
from prefect_happyhorse.domain.errors import GenerationError
from prefect_happyhorse.domain.jobs import JobStatus
from prefect_happyhorse.gateways.base import Gateway
from prefect_happyhorse.gateways.failures import error_code, failure
from prefect_happyhorse.gateways.redaction import shown
from prefect_happyhorse.gateways.responses import first_text, protocol_error, values_at

__all__ = ["DashScopeGateway"]


class DashScopeGateway(Gateway):
    """A gateway in front of DashScope."""

    # UNKNOWN is final here: the task id is past its 24 hours.
    words: ClassVar[Mapping[JobStatus, Collection[str]]] = {
        JobStatus.QUEUED: {"pending"},
        JobStatus.RUNNING: {"running"},
        JobStatus.SUCCEEDED: {"succeeded"},
        JobStatus.FAILED: {"failed"},
        JobStatus.CANCELLED: {"canceled"},
        JobStatus.EXPIRED: {"unknown"},
    }
    paths: ClassVar[ResponsePaths] = ResponsePaths(
        task_id=("output.task_id",), status=("output.task_status",), result=("output.video_url", "output.results.*.url")
    )
    failed_code_paths: ClassVar[tuple[str, ...]] = ("output.code",)
    failed_reason_paths: ClassVar[tuple[str, ...]] = ("output.message",)

    def _failure(self, data: dict[str, Any], response: httpx.Response, route: Route | None) -> GenerationError | None:
        if response.is_success and first_text(data, self._paths("status", route)):
            # A failed task answers 200 and carries its reason in the output: that is a state, not a failed call.
            return None
        code = error_code(data, self.facts.code_paths or ("code",))
        failed = failure(data, response, self.facts, code=code, message=first_text(data, ("message", "output.message")))
        if failed is None and code is not None:
            return protocol_error(
                f"{self.facts.gateway} answered {response.status_code} with the unknown code {shown(code, response)!r}.", response
            )
        return failed

    def _results(self, data: dict[str, Any], route: Route) -> Iterable[object]:
        return [value for path in self._paths("result", route) for value in values_at(data, path)]
