"""DashScope's tasks, as Infiflow passes them on behind a prefix and TTAPI behind a platform of its own.

Sources: the providers' pages on HappyHorse reference-to-video, TTAPI's page on fetching a task, and DashScope's documents of
asynchronous tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone

from starlette.datastructures import Headers

from prefect_happyhorse.catalog import GatewayFacts
from prefect_happyhorse.sandbox.dialects.base import Answer, Dialect, PollView
from prefect_happyhorse.sandbox.jobs.job import Failure, Job, LedgerState, Meaning
from prefect_happyhorse.sandbox.jobs.state import SandboxState
from prefect_happyhorse.sandbox.jobs.uploads import Grant

__all__ = ["DashScope"]

_ERRORS: dict[Meaning, tuple[int, str]] = {
    "invalid": (400, "InvalidParameter"),
    "authentication": (401, "InvalidApiKey"),
    "moderation": (400, "DataInspectionFailed"),
    "quota": (400, "Arrearage"),
    "rate_limit": (429, "Throttling.RateQuota"),
    "not_found": (404, "ModelNotFound"),
    "missing_task": (404, "InvalidParameter"),
    "unsupported": (400, "UnsupportedOperation"),
    "internal": (500, "InternalError"),
}
_PLATFORM_ERRORS: dict[Meaning, int] = {"authentication": 401, "quota": 402, "rate_limit": 429, "internal": 500}
_WORDS: dict[LedgerState, str] = {
    "queued": "PENDING",
    "running": "RUNNING",
    "succeeded": "SUCCEEDED",
    "failed": "FAILED",
    "cancelled": "CANCELED",
}
_LARGEST_PAGE = 100
_CHINA = timezone(timedelta(hours=8))


class DashScope(Dialect):
    """DashScope."""

    def __init__(self, facts: GatewayFacts, state: SandboxState) -> None:
        super().__init__(facts, state)
        # A platform before DashScope answers for keys, balance and rate in a shape of its own, and cuts a long prompt. Without one
        # DashScope's own client may come, which puts the first two into every video request, and the third into every picture's.
        self._has_platform = "status" in facts.code_paths
        self.cuts_prompt = self._has_platform
        self.tolerated = frozenset() if self._has_platform else frozenset({"input.extend_prompt", "input.function", "parameters.is_async"})

    def error(self, meaning: Meaning, message: str) -> tuple[int, Answer]:
        """The platform's error for key, balance and rate, else DashScope's: code, message and request id."""
        if self._has_platform and meaning in _PLATFORM_ERRORS:
            return _PLATFORM_ERRORS[meaning], {"status": "FAILED", "message": message, "jobId": "", "data": None}
        status, code = _ERRORS[meaning]
        return status, {"code": code, "message": message, "request_id": self.state.new_id()}

    def accepted(self, view: PollView) -> Answer:
        """Task id and status in `output`."""
        output = {"task_status": view.word or "PENDING", "task_id": view.job.task_id}
        return {"output": output, "request_id": view.job.request_id}

    def missing(self, task_id: str) -> Answer:
        """An unknown or expired task has the status UNKNOWN."""
        return {"request_id": self.state.new_id(), "output": {"task_id": task_id, "task_status": "UNKNOWN"}}

    def status(self, view: PollView) -> Answer:
        """The task in `output`, what is billed in `usage`."""
        job = view.job
        output: Answer = {"task_id": job.task_id, "task_status": view.word or _WORDS[view.state], "submit_time": _time(job.submitted_at)}
        answer: Answer = {"request_id": self.state.new_id(), "output": output}
        if view.state != "queued":
            output["scheduled_time"] = _time(job.submitted_at + job.job_s * 0.2)
        if view.state in {"succeeded", "failed"}:
            output["end_time"] = _time(job.finished_at or job.submitted_at + job.job_s)
        if view.state == "succeeded" and job.route.kind == "image":
            output |= _pictures(view)
            answer["usage"] = {"image_count": len(view.urls), "size": job.body.text("size") or "1024*1024"}
        elif view.state == "succeeded":
            output |= {"orig_prompt": job.body.text("prompt") or ""} | ({"video_url": view.urls[0]} if view.urls else {})
            billed, seen, made = (int(seconds) if seconds.is_integer() else seconds for seconds in job.billed_s())
            resolution = (job.body.text("resolution") or "1080P").upper().removesuffix("P")
            answer["usage"] = {
                "duration": billed,
                "input_video_duration": seen,
                "output_video_duration": made,
                "video_count": 1,
                "SR": int(resolution) if resolution.isdecimal() else resolution,
                "ratio": job.body.text("aspect_ratio") or "16:9",
            }
        elif view.state == "failed" and job.failure:
            output["code"], output["message"] = _ERRORS[job.failure.meaning][1], job.failure.message
        return answer

    def policy(self, grant: Grant, url: str) -> Answer:
        """The policy's fields in `data`."""
        data = {
            "policy": grant.policy,
            "signature": grant.signature,
            "upload_dir": grant.folder,
            "upload_host": url,
            "expire_in_seconds": int(self.state.settings.policy_ttl_s),
            "oss_access_key_id": grant.key_id,
            "x_oss_object_acl": "private",
            "x_oss_forbid_overwrite": "true",
        }
        return {"request_id": self.state.new_id(), "data": data}

    def resolves_uploads(self, headers: Headers) -> bool:
        """By a header of its own."""
        return headers.get("x-dashscope-ossresourceresolve", "").lower() == "enable"

    def listed(self, jobs: Sequence[Job], query: Mapping[str, str]) -> Answer:
        """A page of tasks without what they were sent and made; its size is 10 unless asked for, and at most 100."""
        size, page = (_number(query, name, default) for name, default in (("page_size", 10), ("page_no", 1)))
        size = min(size, _LARGEST_PAGE)
        shown = jobs[(page - 1) * size : page * size]
        return {
            "total": len(jobs),
            "total_page": -(-len(jobs) // size),
            "page_no": page,
            "page_size": size,
            "request_id": self.state.new_id(),
            "data": [self._listed(job) for job in shown],
        }

    def _listed(self, job: Job) -> Answer:
        state = job.state(self.state.now())
        times = {"gmt_create": job.submitted_at, "start_time": job.submitted_at + job.job_s * 0.2}
        return {
            "task_id": job.task_id,
            "status": _WORDS[state],
            "model_name": job.route.model,
            "request_id": job.request_id,
            **{name: int(seconds * 1000) for name, seconds in times.items()},
        }


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, str(default))
    if not text.isdecimal() or int(text) < 1:
        raise Failure("invalid", f"{name}: must be a whole number from 1")
    return int(text)


def _pictures(view: PollView) -> Answer:
    """Pictures as the path of their submit has them."""
    if "/text2image/" in view.job.route.submit:
        return {"results": [{"orig_prompt": view.job.body.text("prompt") or "", "url": url} for url in view.urls]}
    messages = [{"role": "assistant", "content": [{"type": "image", "image": url}]} for url in view.urls]
    return {"finished": True, "choices": [{"finish_reason": "stop", "message": message} for message in messages]}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, _CHINA).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
