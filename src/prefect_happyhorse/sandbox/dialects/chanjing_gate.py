"""The two endpoints that only Chanjing has: access tokens, and asking for many tasks at once."""

from __future__ import annotations

from typing import cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from prefect_happyhorse.sandbox.dialects.base import Answer
from prefect_happyhorse.sandbox.dialects.chanjing import Chanjing
from prefect_happyhorse.sandbox.http.body import Malformed, read_body
from prefect_happyhorse.sandbox.http.gate import Endpoints
from prefect_happyhorse.sandbox.jobs.files import Files
from prefect_happyhorse.sandbox.jobs.job import Job
from prefect_happyhorse.sandbox.jobs.state import SandboxState
from prefect_happyhorse.sandbox.media.intake import InputFetcher
from prefect_happyhorse.sandbox.media.studio import RenderCache

__all__ = ["ChanjingGate"]

_AT_ONCE = 50


class ChanjingGate(Endpoints):
    """Chanjing's endpoints.

    Args:
        state: What the sandbox knows.
        studio: Makes results.
        intake: Fetches inputs.
        files: Serves results.
    """

    def __init__(self, state: SandboxState, studio: RenderCache, intake: InputFetcher, files: Files) -> None:
        self._chanjing = Chanjing()
        super().__init__(self._chanjing, state, studio, intake, files)

    async def issue_token(self, request: Request) -> Response:
        """Give an access token for an app id and its secret key."""
        raw = await request.body()
        rule = self.state.faults.take("token", "chanjing", None)
        if rule is not None:
            if (struck := await self.struck.before(rule)) is not None:
                return struck
            if rule.kind not in {"garbage", "drop_after"} and (struck := self.struck.instead(rule)) is not None:
                return struck
        try:
            body = read_body(raw, request.headers.get("content-type", ""))
        except Malformed as error:
            return JSONResponse({**self.dialect.error("invalid", str(error), self.state)[1], "code": 400})
        app_id, secret = body.get("app_id"), body.get("secret_key")
        if not isinstance(app_id, str) or not isinstance(secret, str) or not app_id or not secret:
            return self.refusal("invalid", "app_id and secret_key: required, strings")
        if not self.state.settings.takes_key(secret):
            return self.refusal("authentication", "app_id or secret_key is wrong")
        answer = self._chanjing.envelope(self._chanjing.issue(app_id, self.state), self.state)
        return JSONResponse(answer) if rule is None else await self.struck.around(rule, answer)

    async def poll_many(self, request: Request) -> Response:
        """Say how up to fifty jobs stand; those that are not there are left out."""
        raw = await request.body()
        account = self.account(request)
        try:
            ids = read_body(raw, request.headers.get("content-type", "")).get("unique_ids")
        except Malformed as error:
            return JSONResponse({**self.dialect.error("invalid", str(error), self.state)[1], "code": 400})
        if account is None:
            return self.refusal("authentication", "the key is missing or not valid")
        names = cast("list[object]", ids) if isinstance(ids, list) else []
        if not names or len(names) > _AT_ONCE or not all(isinstance(name, str) for name in names):
            return self.refusal("invalid", f"unique_ids: required, 1 to {_AT_ONCE} strings")
        if self.state.asks_too_often("chanjing", account):
            return self.refusal("rate_limit", "QPS limit exceeded")
        found = [job for name in names if (job := self.state.find("chanjing", str(name), account)) is not None]
        return await self._answer_many(request, found)

    async def _answer_many(self, request: Request, jobs: list[Job]) -> Response:
        tasks: list[Answer] = []
        for job in jobs:
            rule = self.state.faults.take("poll", "chanjing", job.route.model, lambda r, job=job: self.matters(r, job))
            if rule is not None and rule.kind == "vanish":
                continue
            if rule is not None and (struck := await self.struck.before(rule)) is not None:
                return struck
            # What a rule does to the call as a whole it does to the whole page.
            if rule is not None and rule.kind != "moderation" and (struck := self.struck.instead(rule)) is not None:
                return struck
            tasks.append(self._chanjing.task(await self.view(job, request, rule)))
        return JSONResponse(self._chanjing.envelope({"list": tasks, "page_info": {"total_count": len(tasks)}}, self.state))
