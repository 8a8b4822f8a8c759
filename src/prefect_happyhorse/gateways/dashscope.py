"""The task protocol of Alibaba's DashScope (https://help.aliyun.com/zh/model-studio/video-generation-api)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar

import httpx

from prefect_happyhorse.catalog import ResponsePaths, Route
from prefect_happyhorse.domain.jobs import JobSnapshot, JobStatus
from prefect_happyhorse.gateways.base import Gateway, Paths
from prefect_happyhorse.gateways.errors import CallError

__all__ = ["DashScopeGateway"]


class DashScopeGateway(Gateway):
    """A gateway in front of DashScope."""

    # UNKNOWN is final here: the task id is past its 24 hours.
    words: ClassVar[Mapping[JobStatus, Collection[str]]] = {
        JobStatus.QUEUED: {"pending", "suspended"},
        JobStatus.RUNNING: {"running"},
        JobStatus.SUCCEEDED: {"succeeded"},
        JobStatus.FAILED: {"failed"},
        JobStatus.CANCELLED: {"canceled"},
        JobStatus.EXPIRED: {"unknown"},
    }
    paths: ClassVar[ResponsePaths] = ResponsePaths(
        task_id=("output.task_id",),
        status=("output.task_status",),
        result=("output.video_url", "output.results.*.url", "output.choices.*.message.content.*.image"),
    )
    message_paths: Paths = ("message", "output.message")
    failed_code_paths: Paths = ("output.code",)
    failed_reason_paths: Paths = ("output.message",)

    def read_poll(self, response: httpx.Response, route: Route) -> JobSnapshot:
        """As every gateway's; of a picture that failed the answer may hold the reason alone, with no word of the task."""
        try:
            return super().read_poll(response, route)
        except CallError as error:
            says_why = self.facts.codes.get(error.code or "") in {"invalid", "moderation", "internal"}
            if route.kind != "image" or not response.is_success or not says_why:
                raise
            return JobSnapshot(
                status=JobStatus.FAILED, provider_status="FAILED", code=error.code, message=error.message, request_id=error.request_id
            )
