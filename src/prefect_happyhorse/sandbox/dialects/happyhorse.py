"""happyhorse.pics: images, videos, and two older video families, each with its own answers. Source: its API reference.

The reference names several places for the same fact; which one an answer uses follows from the job's id, so that a client meets them all.
"""

from __future__ import annotations

from typing import ClassVar

from starlette.datastructures import Headers

from prefect_happyhorse.sandbox.dialects.base import Answer, Dialect, PollPath, PollView
from prefect_happyhorse.sandbox.dialects.dashscope import bearer
from prefect_happyhorse.sandbox.dialects.uniall import new_api_error
from prefect_happyhorse.sandbox.jobs.job import LedgerState, Meaning
from prefect_happyhorse.sandbox.jobs.state import SandboxState

__all__ = ["Happyhorse"]

_WORDS: dict[LedgerState, tuple[str, ...]] = {
    "queued": ("queued", "QUEUED", "SUBMITTED", "NOT_START", "pending"),
    "running": ("in_progress", "IN_PROGRESS", "processing", "running"),
    "succeeded": ("success", "SUCCESS", "succeeded", "completed", "Completed"),
    "failed": ("failed", "FAILURE", "error", "Failed"),
    "cancelled": ("failed",),
}


class Happyhorse(Dialect):
    """happyhorse.pics."""

    gateway: ClassVar[str] = "happyhorse"
    polls: ClassVar[tuple[PollPath, ...]] = (
        PollPath("/v1/images/async/{task_id}", only_its_own=True),
        PollPath("/v1/videos/grok/{task_id}", only_its_own=True),
        PollPath("/v1/videos/notevideo/{task_id}", only_its_own=True),
        PollPath("/v1/videos/{task_id}", only_its_own=True),
    )

    def credential(self, headers: Headers) -> str:
        """The bearer token."""
        return bearer(headers)

    def error(self, meaning: Meaning, message: str, state: SandboxState) -> tuple[int, Answer]:
        """An `error` object; a missing task comes in the family's other envelope."""
        if meaning == "missing_task":
            return 400, {"code": "task_not_exist", "message": message, "data": None}
        return new_api_error(meaning, message)

    def accepted(self, view: PollView) -> Answer:
        """The task id where the route's document puts it."""
        job, word = view.job, view.word
        if job.route.kind == "image":
            return {"task_id": job.task_id, **({"status": word} if word else {})}
        if _is_older(view):
            return {"output": {"task_id": job.task_id, "task_status": word or "PENDING"}, "request_id": job.request_id}
        status = word or view.vary("queued", _WORDS["queued"])
        place = view.vary("id", ["id", "task_id", "output"])
        if place == "output":
            return {"output": {"task_id": job.task_id, "task_status": status}, "model": job.route.model}
        return {place: job.task_id, "object": "video", "model": job.route.model, "status": status, "created_at": int(job.submitted_at)}

    def status(self, view: PollView, state: SandboxState) -> Answer:
        """The job where the route's document puts it."""
        word = view.word or view.vary(view.state, _WORDS[view.state])
        if view.job.route.kind == "image":
            return self._image(view, word)
        return self._older(view, word) if _is_older(view) else self._video(view, word)

    def _image(self, view: PollView, word: str) -> Answer:
        data: Answer = {"task_id": view.job.task_id, "status": word, "progress": view.percent, "fail_reason": view.reason}
        if view.state == "succeeded":
            key, results = ("b64_json", view.b64) if view.b64 else ("url", view.urls)
            data["data"] = {"created": int(view.now), "data": [{key: result} for result in results]}
            if view.urls and not view.b64:
                # Gateways of this family leave the address of a success in the field for failures.
                data["fail_reason"] = view.vary("fail_reason", ["", view.urls[0]])
        return {"code": "success", "message": "", "data": data}

    def _older(self, view: PollView, word: str) -> Answer:
        output: Answer = {"task_id": view.job.task_id, "task_status": word}
        if view.state == "succeeded" and view.urls:
            output[view.vary("url", ["media_url", "video_url", "result_url"])] = view.urls[0]
        if view.state in {"failed", "cancelled"}:
            output["fail_reason"] = view.reason or "task canceled"
        return {"output": output, "request_id": view.job.request_id}

    def _video(self, view: PollView, word: str) -> Answer:
        job = view.job
        answer: Answer = {"id": job.task_id, "model": job.route.model}
        if view.vary("status", [True, False]):
            answer["status"] = word
        else:
            answer["output"] = {"task_id": job.task_id, "task_status": word}
        if view.vary("has progress", [True, True, False]):
            answer["progress"] = view.percent
        if view.state == "failed":
            answer["error"] = {"message": view.reason, "code": job.failure.meaning if job.failure else "internal_error"}
        if view.state == "succeeded":
            answer["usage"] = {"duration": job.shape.duration_s}
            if view.urls:
                answer.update(self._result(view, view.urls[0]))
        return answer

    def _result(self, view: PollView, url: str) -> Answer:
        place = view.vary("url", ["video_url", "media_url", "result_url", "metadata", "results"])
        if place == "metadata":
            return {"metadata": {"url": url}}
        if place == "results":
            return {"video_url": None, "results": [{"url": url}]}
        return {place: url}


def _is_older(view: PollView) -> bool:
    return view.job.route.submit.endswith("/v1/videos/generations")
