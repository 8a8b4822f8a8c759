"""The task protocol of Alibaba's DashScope (https://help.aliyun.com/zh/model-studio/video-generation-api)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timezone
from typing import ClassVar

import httpx

from prefect_happyhorse.catalog import ResponsePaths, Route
from prefect_happyhorse.domain.jobs import JobSnapshot, JobStatus, ListedTask, TaskPage
from prefect_happyhorse.domain.requests import GenerationRequest, iter_media
from prefect_happyhorse.gateways.account import Account, UploadForm
from prefect_happyhorse.gateways.base import Gateway, Paths
from prefect_happyhorse.gateways.errors import CallError, CallRejected
from prefect_happyhorse.gateways.redaction import as_id
from prefect_happyhorse.gateways.responses import as_text, malformed, value_at, values_at

__all__ = ["DashScopeGateway"]

# The largest is not documented. A smaller page that comes all the same is read by its own count of pages.
_PAGE_SIZE = 100
# Of a field: what is a secret is looked for in all that is shown, spelling by spelling.
_MOST_POLICY_CHARS = 8_192
_LATEST_MS = 1e14

_UPLOADED = "oss://"
_RESOLVE = {"X-DashScope-OssResourceResolve": "enable"}
# What of a policy goes into the form, by its name there.
_FORM = {
    "oss_access_key_id": "OSSAccessKeyId",
    "signature": "Signature",
    "policy": "policy",
    "x_oss_object_acl": "x-oss-object-acl",
    "x_oss_forbid_overwrite": "x-oss-forbid-overwrite",
}
_SECRET = ("OSSAccessKeyId", "Signature", "policy")


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
    prompt_paths: Paths = ("output.orig_prompt", "output.results.0.orig_prompt")

    def submit_request(self, request: GenerationRequest, route: Route, account: Account) -> httpx.Request:
        """As every gateway's; it is told where an input lies in its temporary storage."""
        call = super().submit_request(request, route, account)
        if any(str(medium).startswith(_UPLOADED) for _, _, medium in iter_media(request)):
            call.headers.update(_RESOLVE)
        return call

    def read_policy(self, response: httpx.Response, name: str) -> UploadForm:
        """The form of an upload to OSS (https://help.aliyun.com/zh/oss/developer-reference/postobject)."""
        data = self._checked(response)
        host, folder = (value_at(data, f"data.{field}") for field in ("upload_host", "upload_dir"))
        values = {field: as_text(value_at(data, f"data.{said}")) for said, field in _FORM.items()}
        is_whole = isinstance(host, str) and isinstance(folder, str) and all((host, folder, *values.values()))
        if not is_whole or max(len(str(value)) for value in (host, folder, *values.values())) > _MOST_POLICY_CHARS:
            error = malformed("The response is no policy for an upload.", response)
            # It may hold a part of one, which is as good as a key.
            error.excerpt = ""
            raise error
        fields = {field: value for field, value in values.items() if value is not None}
        if fields["x-oss-object-acl"] != "private":
            raise CallRejected("The policy would let others read the input: its x_oss_object_acl is not 'private'. Nothing was uploaded.")
        key = f"{folder.strip('/')}/{name}"
        more = {"key": key, "success_action_status": "200"}
        return UploadForm(host, _UPLOADED + key, {**fields, **more}, secrets=tuple(fields[name] for name in _SECRET))

    def read_poll(
        self, response: httpx.Response, route: Route, *, task_id: str | None = None, account: Account | None = None
    ) -> JobSnapshot:
        """As every gateway's; of a picture that failed the answer may hold the reason alone, with no word of the task."""
        try:
            return super().read_poll(response, route, task_id=task_id, account=account)
        except CallError as error:
            says_why = self.facts.codes.get(error.code or "") in {"invalid", "moderation", "internal"}
            if route.kind != "image" or not response.is_success or not says_why:
                raise
            return JobSnapshot(
                status=JobStatus.FAILED, provider_status="FAILED", code=error.code, message=error.message, request_id=error.request_id
            )

    def tasks_query(self, model: str, page: int) -> dict[str, str | int]:
        """Without times, whose zone is not documented, it is the last 24 hours that are listed."""
        return {"model_name": model, "page_no": page, "page_size": _PAGE_SIZE}

    def read_tasks(self, response: httpx.Response) -> TaskPage:
        """The list's tasks, each with the time at which it was taken, in milliseconds since 1970."""
        data = self._checked(response)
        total, pages = (value_at(data, name) for name in ("total", "total_page"))
        listed = [_task(entry) for entry in values_at(data, "data.*")]
        if not all(isinstance(number, int) and number >= 0 for number in (total, pages)) or not all(listed):
            raise malformed("The response is no page of a list of tasks.", response)
        return TaskPage(tasks=tuple(filter(None, listed)), total=total, pages=pages)


def _task(entry: object) -> ListedTask | None:
    task_id, created_ms = as_id(as_text(value_at(entry, "task_id")) or ""), value_at(entry, "gmt_create")
    if task_id is None or isinstance(created_ms, bool) or not isinstance(created_ms, int) or not 0 <= created_ms < _LATEST_MS:
        return None
    return ListedTask(task_id=task_id, created_at=datetime.fromtimestamp(created_ms / 1000, timezone.utc))
