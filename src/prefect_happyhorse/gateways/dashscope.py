"""The task protocol of Alibaba's DashScope (https://help.aliyun.com/zh/model-studio/video-generation-api)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar

from prefect_happyhorse.catalog import ResponsePaths
from prefect_happyhorse.domain.jobs import JobStatus
from prefect_happyhorse.gateways.base import Gateway, Paths

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
    message_paths: Paths = ("message", "output.message")
    failed_code_paths: Paths = ("output.code",)
    failed_reason_paths: Paths = ("output.message",)
