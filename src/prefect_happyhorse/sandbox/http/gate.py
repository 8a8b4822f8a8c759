"""One gateway's way through the sandbox: who is it, is the body right, take the job on, say how it stands."""

from __future__ import annotations

import base64
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from prefect_happyhorse.catalog import routes
from prefect_happyhorse.sandbox.dialects.base import Dialect, PollPath, PollView
from prefect_happyhorse.sandbox.faults.answers import MEANINGS, FaultAnswers
from prefect_happyhorse.sandbox.faults.faults import FaultRule
from prefect_happyhorse.sandbox.http.body import Malformed, read_body
from prefect_happyhorse.sandbox.http.transport import Dropped
from prefect_happyhorse.sandbox.jobs.files import Files, origin
from prefect_happyhorse.sandbox.jobs.job import Failure, Job, Meaning
from prefect_happyhorse.sandbox.jobs.state import SandboxState
from prefect_happyhorse.sandbox.jobs.validate import ValidatedBody, candidates, fit_body
from prefect_happyhorse.sandbox.media.intake import InputFetcher
from prefect_happyhorse.sandbox.media.shape import shape_of
from prefect_happyhorse.sandbox.media.studio import RenderCache

__all__ = ["Endpoints"]


class _Refused(Exception):
    """A submit is not accepted."""

    def __init__(self, meaning: Meaning, message: str) -> None:
        super().__init__(message)
        self.meaning: Meaning = meaning
        self.message = message


class Endpoints:
    """The endpoints of one gateway.

    Args:
        dialect: How it speaks.
        state: What the sandbox knows.
        studio: Makes results.
        intake: Fetches inputs.
        files: Serves results.
    """

    def __init__(self, dialect: Dialect, state: SandboxState, studio: RenderCache, intake: InputFetcher, files: Files) -> None:
        self.dialect = dialect
        self.state = state
        self._studio = studio
        self._intake = intake
        self._files = files
        self.struck = FaultAnswers(dialect, state)
        self._models = frozenset(route.model for route in routes(dialect.gateway))

    def refusal(self, meaning: Meaning, message: str) -> Response:
        """A refusal in the gateway's own shape."""
        status, body = self.dialect.error(meaning, message, self.state)
        return JSONResponse(body, status)

    def account(self, request: Request) -> str | None:
        """Whose request it is."""
        return self.dialect.account(self.dialect.credential(request.headers), self.state)

    async def submit(self, request: Request, path: str) -> Response:
        """Take a submit: refuse it, or accept it and charge it."""
        raw = await request.body()
        try:
            body, malformed = read_body(raw, request.headers.get("content-type", "")), None
        except Malformed as error:
            body, malformed = {}, str(error)
        model = body.get(self.dialect.model_key)
        rule = self.state.faults.take("submit", self.dialect.gateway, model if isinstance(model, str) else None)
        if rule is not None and (struck := await self._before_submit(rule, request)) is not None:
            return struck
        try:
            if malformed is not None:
                raise _Refused("invalid", malformed)
            job = await self._admit(request, path, body)
        except _Refused as refused:
            self.state.refused += 1
            return self.refusal(refused.meaning, refused.message)
        if rule is not None and rule.kind == "fail_job":
            job.failure = Failure("internal", rule.message or "generation failed")
        return await self._after_submit(rule, job)

    async def _before_submit(self, rule: FaultRule, request: Request) -> Response | None:
        if (struck := await self.struck.before(rule)) is not None:
            return struck
        # Whoever has hung up before the gateway began is not charged.
        if rule.kind == "stall_before" and await request.is_disconnected():
            return Dropped()
        return None if rule.accepts else self.struck.instead(rule)

    async def _after_submit(self, rule: FaultRule | None, job: Job) -> Response:
        word = rule.word if rule is not None and rule.kind == "unknown_status" else None
        answer = self.dialect.accepted(PollView(job, "queued", 0.0, self.state.now(), word=word))
        if rule is None:
            return JSONResponse(answer)
        if rule.kind == "no_task_id":
            return JSONResponse(self.dialect.without_task_id(answer))
        return await self.struck.around(rule, answer)

    async def _admit(self, request: Request, path: str, body: dict[str, object]) -> Job:
        account = self.account(request)
        if account is None:
            raise _Refused("authentication", "the key is missing or not valid")
        if (lacking := self.dialect.header_problem(request.headers)) is not None:
            raise _Refused("invalid", lacking)
        fit = self._fit(request, path, self.dialect.normal(body))
        settings = self.state.settings
        if settings.check_inputs != "submit" or not fit.inputs:
            job = self.state.accept(fit, body, account, shape_of(fit, (), settings), ())
            if settings.check_inputs == "job" and fit.inputs:
                job.inputs_pending = True
                self._studio.keep(self._check_later(job))
            return job
        probes, problems = await self._intake.take_in(fit, settings)
        if problems:
            raise _Refused("invalid", "; ".join(problems))
        return self.state.accept(fit, body, account, shape_of(fit, probes, settings), probes)

    async def _check_later(self, job: Job) -> None:
        probes, problems = await self._intake.take_in(job.fit, self.state.settings)
        if problems:
            job.fail(Failure("invalid", "; ".join(problems)), self.state.now())
            return
        job.probes, job.shape = probes, shape_of(job.fit, probes, self.state.settings)
        job.inputs_pending = False

    def _fit(self, request: Request, path: str, body: dict[str, object]) -> ValidatedBody:
        model = body.get(self.dialect.model_key)
        if not isinstance(model, str) or not model:
            raise _Refused("invalid", f"{self.dialect.model_key}: required, a string")
        found = candidates(self.dialect.gateway, path, model)
        if not found:
            elsewhere = "; it is offered at another path" if model in self._models else ""
            raise _Refused("not_found", f"model {model} does not exist{elsewhere}")
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        wanted = {"json": "application/json", "multipart": "multipart/form-data"}[found[0].encoding]
        if content_type != wanted:
            raise _Refused("invalid", f"Content-Type must be {wanted}")
        dialect = self.dialect
        fit = fit_body(found, body, texts=found[0].encoding == "multipart", tolerated=dialect.tolerated, cuts_prompt=dialect.cuts_prompt)
        if fit.problems:
            raise _Refused("invalid", "; ".join(fit.problems))
        return fit

    async def poll(self, request: Request, path: PollPath) -> Response:
        """Say how a job stands."""
        query = self.dialect.poll_query
        task_id = request.query_params.get(query, "") if query else request.path_params["task_id"]
        account = self.account(request)
        job = self._job(task_id, account, path)
        rule = self.state.faults.take("poll", self.dialect.gateway, job.route.model if job else None, lambda r: self.matters(r, job))
        if rule is not None:
            if (struck := await self.struck.before(rule)) is not None:
                return struck
            if rule.kind not in {"moderation", "garbage", "drop_after"} and (struck := self.struck.instead(rule)) is not None:
                return struck
        if account is None:
            return self.refusal("authentication", "the key is missing or not valid")
        if self.state.asks_too_often(self.dialect.gateway, account):
            return self.refusal("rate_limit", f"more than {self.state.settings.queries_per_s:g} queries a second")
        if job is None or (rule is not None and rule.kind == "vanish"):
            status, missing = self.dialect.missing(task_id, self.state)
            return JSONResponse(missing, status)
        view = await self.view(job, request, rule)
        answer = self.dialect.status(view, self.state)
        if rule is None or rule.kind == "moderation":
            return JSONResponse(answer)
        return await self.struck.around(rule, answer)

    def _job(self, task_id: str, account: str | None, path: PollPath) -> Job | None:
        job = self.state.find(self.dialect.gateway, task_id, account) if account is not None else None
        if job is not None and path.only_its_own and job.route.poll != f"GET {path.path}":
            return None
        return job

    def matters(self, rule: FaultRule, job: Job | None) -> bool:
        """Whether a rule means anything for a poll of a job."""
        if rule.kind not in {"unknown_status", "vanish", "moderation", "fail_job", "empty_result", "backwards"}:
            return True
        if job is None:
            return False
        state = job.state(self.state.now())
        if rule.kind in {"moderation", "fail_job"}:
            return state in {"queued", "running", "succeeded"} and job.reported != "succeeded"
        if rule.kind == "empty_result":
            return state == "succeeded"
        return job.reported in {"running", "succeeded"} if rule.kind == "backwards" else True

    async def view(self, job: Job, request: Request, rule: FaultRule | None = None) -> PollView:
        """A job as one poll reports it."""
        now = self.state.now()
        kind = rule.kind if rule is not None else None
        if rule is not None and kind in {"moderation", "fail_job"}:
            meaning: Meaning = "moderation" if kind == "moderation" else "internal"
            default = MEANINGS["moderation"][1] if kind == "moderation" else "generation failed"
            job.fail(Failure(meaning, rule.message or default), now)
        job.polls += 1
        if rule is not None and kind == "backwards":
            return PollView(job, "queued" if job.reported == "running" else "running", 0.0, now)
        view = PollView(
            job, job.state(now), job.progress(now), now, word=rule.word if rule is not None and kind == "unknown_status" else None
        )
        job.reported = view.state
        if view.state != "succeeded" or view.word is not None or kind == "empty_result":
            return view
        return await self._with_results(view, request)

    async def _with_results(self, view: PollView, request: Request) -> PollView:
        job, settings = view.job, self.state.settings
        specs = [job.spec(index, settings) for index in range(job.results)]
        if job.fit.text("options.response_format") == "b64_json":
            paths = [await self._studio.make(spec) for spec in specs]
            texts = await self._studio.run(lambda: tuple(base64.b64encode(path.read_bytes()).decode() for path in paths))
            return replace(view, b64=texts)
        for spec in specs:
            self._studio.begin(spec)
        base = origin(request, self.state)
        return replace(view, urls=tuple(self._files.address(job, index, base) for index in range(job.results)))

    async def cancel(self, request: Request) -> Response:
        """Cancel a job that has not begun."""
        account = self.account(request)
        if account is None:
            return self.refusal("authentication", "the key is missing or not valid")
        job = self.state.find(self.dialect.gateway, request.path_params["task_id"], account)
        if job is None or job.state(self.state.now()) != "queued":
            return self.refusal("unsupported", "Failed to cancel the task, please confirm if the task is in PENDING status.")
        job.cancelled = True
        return JSONResponse({"request_id": self.state.new_id()})
