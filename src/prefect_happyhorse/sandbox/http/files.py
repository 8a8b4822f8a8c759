"""Serving results: signed addresses that expire, ranges, and downloads that go wrong."""

from __future__ import annotations

import base64
import re

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import Route as Path

from prefect_happyhorse.sandbox.faults.rules import FaultRule
from prefect_happyhorse.sandbox.http.forms import read_body
from prefect_happyhorse.sandbox.http.transport import CutBody, Dropped
from prefect_happyhorse.sandbox.jobs.inputs import USER_AGENT
from prefect_happyhorse.sandbox.jobs.job import Job
from prefect_happyhorse.sandbox.jobs.state import SandboxState
from prefect_happyhorse.sandbox.jobs.validate import FilePart
from prefect_happyhorse.sandbox.media.render import RenderCache

__all__ = ["Files"]

_NAME = re.compile(r"([0-9a-zA-Z_-]+)-([0-9]+)\.[0-9a-z]+")


def _denied(message: str) -> Response:
    return _refused(403, "AccessDenied", message)


def _refused(status: int, code: str, message: str) -> Response:
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Response(body, status, media_type="application/xml")


class Files:
    """The results of all jobs as files."""

    def __init__(self, state: SandboxState, renders: RenderCache) -> None:
        self.renders = renders
        self._state = state

    def paths(self) -> list[Path]:
        """The paths that are served."""
        methods = ["GET", "HEAD"]
        return [
            Path("/files/circle/{hop:int}", self._circle, methods=methods),
            Path("/files/{name}", self._serve, methods=methods),
            Path("/_sandbox/files/{name}", self._show, methods=methods),
            Path("/uploads", self._take, methods=["POST"]),
        ]

    def address(self, job: Job, index: int, request: Request) -> str:
        """Where a result can be fetched; the same address until it expires, then a fresh one."""
        now = self._state.now()
        signature = job.signatures.get(index)
        if signature is None or job.expirations[signature] <= now:
            signature = job.signatures[index] = self._state.new_id().replace("-", "")
            job.expirations[signature] = now + self._state.settings.result_ttl_s
        query = f"Expires={int(job.expirations[signature])}&Signature={signature}"
        return f"{self.origin(request)}/files/{self.name(job, index)}?{query}"

    def origin(self, request: Request) -> str:
        """The address under which a client reaches the sandbox."""
        return (self._state.settings.public_url or f"{request.url.scheme}://{request.url.netloc}").rstrip("/")

    def name(self, job: Job, index: int) -> str:
        """The file name of a result."""
        return f"{job.task_id}-{index}{job.spec(index).suffix}"

    def _find(self, request: Request) -> tuple[Job, int]:
        match = _NAME.fullmatch(request.path_params["name"])
        job = self._state.jobs.get(match[1]) if match else None
        if match is None or job is None or int(match[2]) >= job.results or job.state(self._state.now()) != "succeeded":
            raise HTTPException(404)
        return job, int(match[2])

    async def _file(self, job: Job, index: int) -> FileResponse:
        spec = job.spec(index)
        return FileResponse(await self.renders.render(spec), media_type=spec.media_type)

    async def _show(self, request: Request) -> Response:
        """A result for the sandbox's own page: unsigned, uncounted, never struck."""
        return await self._file(*self._find(request))

    async def _circle(self, request: Request) -> Response:
        return RedirectResponse(f"{self.origin(request)}/files/circle/{request.path_params['hop'] + 1}", 302)

    async def _serve(self, request: Request) -> Response:
        job, index = self._find(request)
        by_client = request.method == "GET" and request.headers.get("user-agent") != USER_AGENT
        rule = self._state.faults.take("download", job.route.gateway, job.route.model) if by_client else None
        signature = request.query_params.get("Signature", "")
        if signature not in job.expirations:
            return _denied("The signature is missing or wrong.")
        if rule is not None and rule.kind == "expire":
            job.expirations[signature] = 0.0
        if job.expirations[signature] <= self._state.now():
            return _denied("Request has expired.")
        job.downloads += by_client
        return await self._file(job, index) if rule is None else await self._struck(rule, job, index, request)

    async def _take(self, request: Request) -> Response:
        """Take an upload to the temporary storage, as OSS does by a form: https://help.aliyun.com/zh/oss/developer-reference/postobject."""
        if "authorization" in request.headers:
            return _refused(400, "InvalidArgument", "The form carries a signature, and the header another.")
        try:
            fields = read_body(await request.body(), request.headers.get("content-type", ""))
        except ValueError as error:
            return _refused(400, "MalformedPOSTRequest", str(error))
        file = fields.get("file")
        if not isinstance(file, FilePart) or list(fields)[-1] != "file":
            return _refused(400, "InvalidArgument", "The file must come last.")
        content = base64.b64decode(file.partition(",")[2])
        uploads, settings, now = self._state.uploads, self._state.settings, self._state.now()
        gateway, _, model = uploads.owner(fields) or ("", "", "")
        rule = self._state.faults.take("upload", gateway, model)
        if rule is not None and rule.kind != "drop_after":
            status = {"http": rule.status, "throttle": 429}.get(rule.kind, 403)
            said = _refused(status, "AccessDenied", rule.message or "You have no right to access this object.")
            return Dropped() if rule.kind == "drop_before" else said
        if len(content) > settings.input_max_bytes:
            return _refused(400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size.")
        status, code, message = uploads.take(fields, content, now, settings.upload_ttl_s)
        return Dropped() if rule is not None else _refused(status, code, message) if code else Response(status_code=status)

    async def content(self, job: Job, index: int, request: Request) -> Response:
        """A result for whoever has shown the key of the job's account."""
        rule = self._state.faults.take("download", job.route.gateway, job.route.model)
        job.downloads += 1
        return await self._file(job, index) if rule is None else await self._struck(rule, job, index, request)

    async def _struck(self, rule: FaultRule, job: Job, index: int, request: Request) -> Response:
        """What a fault makes of a download."""
        if rule.kind in {"drop_before", "drop_after"}:
            return Dropped()
        if rule.kind in {"stall_before", "stall_after"}:
            await self._state.stall(rule.seconds)
        if rule.kind == "unauthorized":
            return _denied(rule.message or "You have no right to access this object.")
        if rule.kind in {"throttle", "http"}:
            status = 429 if rule.kind == "throttle" else rule.status
            return HTMLResponse(f"<html><body><h1>{status}</h1></body></html>", status, rule.headers(self._state.now()))
        if rule.kind in {"html", "wrong_type"}:
            return HTMLResponse("<!doctype html><html><body>Please sign in to see this file.</body></html>")
        if rule.kind == "redirect":
            return RedirectResponse(rule.to or f"{self.origin(request)}/files/circle/1", 302)
        file = await self._file(job, index)
        if rule.kind in {"truncate", "stall_body"}:
            pause = None if rule.kind == "truncate" else lambda: self._state.stall(rule.seconds)
            return CutBody(file, fraction=rule.fraction, pause=pause)
        return CutBody(file, noise=True) if rule.kind == "garbage" else file
