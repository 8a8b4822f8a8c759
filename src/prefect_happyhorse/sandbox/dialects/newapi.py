"""new-api, an open-source gateway: at its own path it answers as UniAll documents it, elsewhere as happyhorse.pics does.

Sources: UniAll's pages on creating and on querying a video task, and the API reference of happyhorse.pics. The latter names several
places for the same fact; which one an answer uses follows from the job's id, so that a client meets them all.
"""

from __future__ import annotations

from typing import cast

from prefect_happyhorse.catalog import GatewayFacts, routes
from prefect_happyhorse.sandbox.dialects.base import Answer, Dialect, PollView
from prefect_happyhorse.sandbox.jobs.job import LedgerState, Meaning
from prefect_happyhorse.sandbox.jobs.state import SandboxState

__all__ = ["NewAPI"]

_OWN_PATH = "POST /v1/video/generations"
_ERRORS: dict[Meaning, tuple[int, str, str]] = {
    "invalid": (400, "invalid_request_error", "invalid_request_error"),
    "authentication": (401, "authentication_error", "invalid_api_key"),
    "moderation": (400, "invalid_request_error", "content_policy_violation"),
    "quota": (403, "insufficient_quota", "insufficient_user_quota"),
    "rate_limit": (429, "rate_limit_error", "rate_limit_exceeded"),
    "not_found": (404, "invalid_request_error", "model_not_found"),
    "missing_task": (400, "invalid_request_error", "task_not_exist"),
    "unsupported": (404, "invalid_request_error", "invalid_url"),
    "internal": (500, "server_error", "internal_error"),
}
# UniAll has the first word of each state.
_WORDS: dict[LedgerState, tuple[str, ...]] = {
    "queued": ("queued", "QUEUED", "SUBMITTED", "NOT_START", "pending"),
    "running": ("in_progress", "IN_PROGRESS", "processing", "running"),
    "succeeded": ("completed", "Completed", "success", "SUCCESS", "succeeded"),
    "failed": ("failed", "FAILURE", "error", "Failed"),
    "cancelled": ("failed",),
}


class NewAPI(Dialect):
    """new-api."""

    def __init__(self, facts: GatewayFacts, state: SandboxState) -> None:
        super().__init__(facts, state)
        self._is_uniform = any(route.submit == _OWN_PATH for route in routes(facts.gateway))

    def new_task_id(self) -> str:
        """Twenty-four hexadecimal digits."""
        return f"task_{self.state.new_id().replace('-', '')[:24]}"

    def error(self, meaning: Meaning, message: str) -> tuple[int, Answer]:
        """An `error` object, or the other envelope of new-api for a missing task."""
        status, kind, code = _ERRORS[meaning]
        if meaning == "missing_task" and not self._is_uniform:
            return status, {"code": code, "message": message, "data": None}
        return status, {"error": {"message": message, "type": kind, "code": code}}

    def normalize(self, body: dict[str, object]) -> dict[str, object]:
        """At UniAll `reference_image_urls` is another name of `images` where there is no video."""
        if not self._is_uniform or "reference_image_urls" not in body or "images" in body or "video" in body:
            return body
        return {"images" if key == "reference_image_urls" else key: value for key, value in body.items()}

    def accepted(self, view: PollView) -> Answer:
        """The task id where the route's document puts it."""
        job, word = view.job, view.word
        if self._is_uniform:
            seconds = str(int(job.body.number("duration") or 0))
            return {**self._uniform(view, word or "queued"), "task_id": job.task_id, "progress": 0, "seconds": seconds}
        if job.route.kind == "image":
            return {"task_id": job.task_id, **({"status": word} if word else {})}
        if _is_in_output(view):
            return self._in_output(view, word or "PENDING")
        status = word or view.vary("queued", _WORDS["queued"])
        place = view.vary("id", ["id", "task_id", "output"])
        if place == "output":
            return {"output": {"task_id": job.task_id, "task_status": status}, "model": job.route.model}
        return {place: job.task_id, "object": "video", "model": job.route.model, "status": status, "created_at": int(job.submitted_at)}

    def status(self, view: PollView) -> Answer:
        """The job where the route's document puts it."""
        if self._is_uniform:
            return self._uniform_status(view)
        write = self._image if view.job.route.kind == "image" else self._in_output if _is_in_output(view) else self._video
        return write(view, view.word or view.vary(view.state, _WORDS[view.state]))

    def _uniform(self, view: PollView, word: str) -> Answer:
        job = view.job
        answer: Answer = {"id": job.task_id, "object": "video.generation.job", "model": job.route.model, "status": word}
        return {**answer, "progress": _percent(view), "created_at": int(job.submitted_at)}

    def _uniform_status(self, view: PollView) -> Answer:
        error = {"message": view.reason, "code": _code(view)} if view.reason else None
        answer: Answer = {**self._uniform(view, view.word or _WORDS[view.state][0]), "error": error}
        if view.state == "succeeded":
            answer["video_url"] = view.urls[0] if view.urls else None
            answer["result"] = {"outputs": list(view.urls), "video_url": answer["video_url"]}
        return answer

    def _image(self, view: PollView, word: str) -> Answer:
        data: Answer = {"task_id": view.job.task_id, "status": word, "progress": _percent(view), "fail_reason": view.reason}
        if view.state == "succeeded":
            key, results = ("b64_json", view.b64) if view.b64 else ("url", view.urls)
            data["data"] = {"created": int(self.state.now()), "data": [{key: result} for result in results]}
            if view.urls:
                # Gateways of this family leave the address of a success in the field for failures.
                data["fail_reason"] = view.vary("fail_reason", ["", view.urls[0]])
        return {"code": "success", "message": "", "data": data}

    def _in_output(self, view: PollView, word: str) -> Answer:
        output: Answer = {"task_id": view.job.task_id, "task_status": word}
        if view.urls:
            output |= _result(view, "output.")
        if view.reason:
            output["fail_reason"] = view.reason
        return {"output": output, "request_id": view.job.request_id}

    def _video(self, view: PollView, word: str) -> Answer:
        job = view.job
        answer: Answer = {"id": job.task_id, "model": job.route.model}
        if view.vary("status", [True, False]):
            answer["status"] = word
        else:
            answer["output"] = {"task_id": job.task_id, "task_status": word}
        if view.vary("has progress", [True, True, False]):
            answer["progress"] = _percent(view)
        if view.state == "failed":
            answer["error"] = {"message": view.reason, "code": _code(view)}
        if view.state == "succeeded":
            answer["usage"] = {"duration": job.billed_s()[0]}
        return {**answer, **_result(view, "")} if view.urls else answer


def _is_in_output(view: PollView) -> bool:
    return any(path.startswith("output.") for path in view.job.route.response.status[:1])


def _result(view: PollView, prefix: str) -> Answer:
    """The result at one of the places below a prefix that the route's document names."""
    paths = [path.removeprefix(prefix) for path in view.job.route.response.result if path.startswith(prefix)]
    path = view.vary("url", [path for path in paths if not path.startswith(("data.", "output."))] or ["video_url"])
    value: object = [{"url": view.urls[0]}] if path == "results" else view.urls[0]
    for part in reversed(path.split(".")):
        value = [value] if part == "*" else {part: value}
    return {"video_url": None, **cast("Answer", value)}


def _percent(view: PollView) -> int | str:
    percent = round(view.progress * 100)
    return view.vary("progress", [percent, f"{percent}%"])


def _code(view: PollView) -> str:
    return _ERRORS[view.job.failure.meaning][2] if view.job.failure else "internal_error"
