"""OpenAI's Videos API (https://developers.openai.com/api/reference/resources/videos), and the gateways that speak it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar

import httpx

from prefect_happyhorse.catalog import ResponsePaths
from prefect_happyhorse.domain.jobs import JobStatus
from prefect_happyhorse.gateways import CallRejected, Gateway
from prefect_happyhorse.gateways.responses import json_object

__all__ = ["OpenAIVideos"]


class OpenAIVideos(Gateway):
    """A gateway that answers as OpenAI's `/v1/videos` does; where its results lie and how a job is deleted stands in its file."""

    words: ClassVar[Mapping[JobStatus, Collection[str]]] = {
        JobStatus.QUEUED: {"queued"},
        JobStatus.RUNNING: {"in_progress"},
        JobStatus.SUCCEEDED: {"completed"},
        JobStatus.FAILED: {"failed"},
    }
    paths: ClassVar[ResponsePaths] = ResponsePaths(task_id=("id",), status=("status",))
    code_paths: ClassVar[tuple[str, ...]] = ("error.code",)
    message_paths: ClassVar[tuple[str, ...]] = ("error.message",)
    failed_code_paths: ClassVar[tuple[str, ...]] = ("error.code",)
    failed_reason_paths: ClassVar[tuple[str, ...]] = ("error.message",)
    progress_paths: ClassVar[tuple[str, ...]] = ("progress",)

    def read_cancel(self, response: httpx.Response) -> str | None:
        """As every gateway's; one that answers well and deletes nothing says no."""
        request_id = super().read_cancel(response)
        if response.content and json_object(response).get("deleted") is not True:
            raise CallRejected(f"{self.facts.gateway} did not delete the video.", status_code=response.status_code, request_id=request_id)
        return request_id
