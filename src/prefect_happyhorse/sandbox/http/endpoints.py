"""One gateway's way through the sandbox: who is it, is the body right, accept the job, say how it stands, and what faults make of it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route as Path

from prefect_happyhorse.catalog import Route, routes
from prefect_happyhorse.sandbox.dialects.base import Answer, Dialect, PollView
from prefect_happyhorse.sandbox.faults.rules import FaultPoint, FaultRule
from prefect_happyhorse.sandbox.http.files import Files
from prefect_happyhorse.sandbox.http.forms import read_body
from prefect_happyhorse.sandbox.http.transport import Dropped
from prefect_happyhorse.sandbox.jobs.inputs import InputFetcher
from prefect_happyhorse.sandbox.jobs.job import Failure, Job, Meaning
from prefect_happyhorse.sandbox.jobs.uploads import UPLOADED
from prefect_happyhorse.sandbox.jobs.validate import ValidatedBody, validate

__all__ = ["Endpoints"]

_Handler = Callable[[Request, str], Awaitable[Response]]
_BATCH = 50
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_CONTENT_TYPES = {"json": "application/json", "multipart": "multipart/form-data"}
_PAGE = "<!doctype html><html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>"
_MEANINGS: dict[str, tuple[Meaning, str]] = {
    "refuse": ("invalid", "the request was refused"),
    "unauthorized": ("authentication", "the key is not valid"),
    "quota": ("quota", "the balance is used up"),
    "throttle": ("rate_limit", "too many requests"),
    "moderation": ("moderation", "the content may violate the rules"),
    "error_in_200": ("internal", "internal error"),
    "http": ("internal", "internal error"),
}
"""What the kinds that answer with the gateway's own error mean, and how they say it by default."""


@dataclass(eq=False)
class _Struck(Exception):
    """A call that is not carried out, since a fault answers it."""

    response: Response


class Endpoints:
    """The endpoints of one gateway."""

    def __init__(self, dialect: Dialect, files: Files, inputs: InputFetcher) -> None:
        self._dialect = dialect
        self._gateway = dialect.facts.gateway
        self._state = dialect.state
        self._files = files
        self._inputs = inputs
        self._routes = routes(self._gateway)

    def paths(self) -> list[Path]:
        """Every path that the gateway serves; any other is refused in its own words."""
        facts, handlers = self._dialect.facts, dict[str | None, _Handler]()
        for route in self._routes:
            handlers |= dict.fromkeys(_submits(route), self._submit) | dict.fromkeys(_polls(route), self._poll)
        handlers |= {facts.list_tasks: self._list, facts.cancel: self._cancel, facts.content: self._content}
        handlers |= {facts.upload_policy: self._allow_upload}
        handlers |= {facts.token: self._issue_token, self._dialect.batch_call: self._poll_batch}
        paths: list[Path] = []
        for call, handler in handlers.items():
            if call is not None:
                method, _, path = call.partition("?")[0].partition(" ")
                paths.append(Path(path, partial(self._answer, handler=handler, call=call), methods=[method]))
        return [*paths, Path("/{rest:path}", partial(self._answer, handler=self._elsewhere, call=""), methods=_METHODS)]

    async def _answer(self, request: Request, handler: _Handler, call: str) -> Response:
        """Answer a call, a refused one in the gateway's own shape."""
        await request.body()  # It stays with the request; a connection whose input was not read cannot be used again.
        try:
            return await handler(request, call)
        except _Struck as struck:
            return struck.response
        except Failure as failure:
            self._state.refused += 1
            status, body = self._dialect.error(failure.meaning, failure.message)
            return JSONResponse(body, status)

    def _account(self, request: Request) -> str:
        account = self._dialect.account(request.headers)
        if account is None:
            raise Failure("authentication", "the key is missing or not valid")
        return account

    async def _elsewhere(self, request: Request, _: str) -> Response:
        status, body = self._dialect.error("unsupported", f"Invalid URL ({request.method} {request.url.path})")
        return JSONResponse(body, 404 if status != 200 else 200)

    async def _submit(self, request: Request, call: str) -> Response:
        """Refuse a submit, or accept and charge it."""
        sent = await self._read(request, "invalid")
        model = sent.get(self._dialect.model_key)
        rule = await self._strike("submit", request, model if isinstance(model, str) else None)
        job = await self._accept(request, call, sent)
        if rule is not None and rule.kind == "fail_job":
            job.failure = Failure("internal", rule.message or "generation failed")
        word = rule.word if rule is not None and rule.kind == "unknown_status" else None
        return await self._finish(rule, self._dialect.accepted(PollView(job, "queued", 0.0, word=word)))

    async def _accept(self, request: Request, call: str, sent: dict[str, object]) -> Job:
        account = self._account(request)
        for name, value in self._dialect.facts.submit_headers.items():
            if request.headers.get(name, "").lower() != value.lower():
                raise Failure("invalid", f"the header {name}: {value} is required")
        body = self._validate(request, call, sent)
        self._check_uploads(request, body, account)
        checks = self._state.settings.check_inputs if body.inputs else "never"
        probes = await self._inputs.fetch(body, self._state.settings) if checks == "submit" else ()
        job = self._state.accept(body, sent, account, self._dialect.new_task_id(), probes)
        if checks == "job":
            job.input_check = asyncio.create_task(self._check_later(job))
        return job

    def _check_uploads(self, request: Request, body: ValidatedBody, account: str) -> None:
        """Refuse what lies in no temporary storage that this account's model reads."""
        uploaded = [wire for wire in body.inputs if wire.url.startswith(UPLOADED)]
        owner, now = (self._gateway, account, body.route.model), self._state.now()
        if uploaded and not self._dialect.resolves_uploads(request.headers):
            raise Failure("invalid", f"{uploaded[0].where}: url error, it is not asked to be resolved")
        if missing := [wire.where for wire in uploaded if self._state.uploads.find(wire.url, owner, now) is None]:
            raise Failure("invalid", f"{', '.join(missing)}: there is no such object for this model and account")

    async def _check_later(self, job: Job) -> None:
        try:
            job.probes = await self._inputs.fetch(job.body, job.settings)
        except Failure as failure:
            job.fail(failure.with_traceback(None), self._state.now())

    def _validate(self, request: Request, call: str, sent: dict[str, object]) -> ValidatedBody:
        dialect, model = self._dialect, sent.get(self._dialect.model_key)
        if not isinstance(model, str) or not model:
            raise Failure("invalid", f"{dialect.model_key}: required, a string")
        found = [route for route in self._routes if route.model == model and call in _submits(route)]
        if not found:
            is_elsewhere = any(route.model == model for route in self._routes)
            raise Failure("not_found", f"model {model} does not exist{'; it is offered at another path' if is_elsewhere else ''}")
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != _CONTENT_TYPES[found[0].encoding]:
            raise Failure("invalid", f"Content-Type must be {_CONTENT_TYPES[found[0].encoding]}")
        body = validate(found, dialect.normalize(sent), tolerated=dialect.tolerated, cuts_prompt=dialect.cuts_prompt)
        if body.problems:
            raise Failure("invalid", "; ".join(body.problems))
        return body

    async def _poll(self, request: Request, call: str) -> Response:
        """Say how a job stands."""
        query = call.partition("?")[2].partition("=")[0]
        task_id = request.query_params.get(query, "") if query else request.path_params["task_id"]
        job = self._state.find(self._gateway, task_id, self._dialect.account(request.headers))
        if job is not None and call not in _polls(job.route):
            job = None
        rule = await self._strike("poll", request, job.route.model if job else None, job)
        self._check_rate(self._account(request))
        if job is None or (rule is not None and rule.kind == "vanish"):
            return JSONResponse(self._dialect.missing(task_id))
        return await self._finish(rule, self._dialect.status(await self._view(job, request, rule)))

    def _check_rate(self, account: str) -> None:
        limit, second = self._state.settings.queries_per_s, (self._gateway, account, int(self._state.now()))
        if limit is not None:
            self._state.queries[second] += 1
            if self._state.queries[second] > limit:
                raise Failure("rate_limit", f"more than {limit:g} queries a second")

    async def _view(self, job: Job, request: Request, rule: FaultRule | None) -> PollView:
        """A job as one poll reports it."""
        now = self._state.now()
        kind = rule.kind if rule is not None else None
        if rule is not None and kind in {"moderation", "fail_job"}:
            meaning, message = _MEANINGS["moderation"] if kind == "moderation" else ("internal", "generation failed")
            job.fail(Failure(meaning, rule.message or message), now)
        job.polls += 1
        if kind == "backwards":
            return PollView(job, "queued" if job.reported == "running" else "running", 0.0)
        job.reported = job.state(now)
        word = rule.word if rule is not None and kind == "unknown_status" else None
        view = PollView(job, job.reported, job.progress(now), word=word)
        if view.state != "succeeded" or kind in {"unknown_status", "empty_result"}:
            return view
        return await self._with_results(view, request)

    async def _with_results(self, view: PollView, request: Request) -> PollView:
        job, renders = view.job, self._files.renders
        specs = [job.spec(index) for index in range(job.results)]
        if job.body.text("options.response_format") == "b64_json":
            paths = [await renders.render(spec) for spec in specs]
            texts = await renders.run(lambda: tuple(base64.b64encode(path.read_bytes()).decode() for path in paths))
            return replace(view, b64=texts)
        for spec in specs:
            renders.begin(spec)
        return replace(view, urls=tuple(self._files.address(job, index, request) for index in range(job.results)))

    async def _list(self, request: Request, _: str) -> Response:
        """List the account's tasks."""
        account = self._account(request)
        rule = await self._strike("list", request, request.query_params.get("model_name"))
        self._check_rate(account)
        jobs = self._state.listed(self._gateway, account, request.query_params.get("model_name"))
        return await self._finish(rule, self._dialect.listed(jobs, request.query_params))

    async def _allow_upload(self, request: Request, _: str) -> Response:
        """Give the policy for an upload."""
        account = self._account(request)
        rule = await self._strike("policy", request, request.query_params.get("model"))
        model = request.query_params.get("model", "")
        if request.query_params.get("action") != "getPolicy" or all(route.model != model for route in self._routes):
            raise Failure("invalid", "action: must be getPolicy; model: must be one of this gateway")
        ends_at = self._state.now() + self._state.settings.policy_ttl_s
        grant = self._state.uploads.grant((self._gateway, account, model), self._state.new_id(), ends_at)
        return await self._finish(rule, self._dialect.policy(grant, f"{self._files.origin(request)}/uploads"))

    async def _cancel(self, request: Request, call: str) -> Response:
        """Cancel a job where the dialect does; what is deleted is gone, and stays charged."""
        job, now = self._state.find(self._gateway, request.path_params["task_id"], self._account(request)), self._state.now()
        answer = self._dialect.cancelled(job and PollView(job, job.state(now), job.progress(now)))
        if job is not None:
            job.deleted = call.startswith("DELETE ")
            job.cancelled = not job.deleted
        return JSONResponse(answer)

    async def _content(self, request: Request, _: str) -> Response:
        """The result of a finished job, for its key."""
        task_id = request.path_params["task_id"]
        job = self._state.find(self._gateway, task_id, self._account(request))
        if job is None or job.state(self._state.now()) != "succeeded":
            raise Failure("missing_task", f"there is no result of {task_id}")
        return await self._files.content(job, 0, request)

    async def _read(self, request: Request, meaning: Meaning) -> dict[str, object]:
        try:
            return read_body(await request.body(), request.headers.get("content-type", ""))
        except ValueError as error:
            raise Failure(meaning, str(error)) from error

    async def _issue_token(self, request: Request, _: str) -> Response:
        """Give an access token."""
        rule = await self._strike("token", request, None)
        return await self._finish(rule, self._dialect.issue_token(await self._read(request, "unsupported")))

    async def _poll_batch(self, request: Request, _: str) -> Response:
        """Say how several jobs stand; those that are not there are left out."""
        task_ids = (await self._read(request, "unsupported")).get("unique_ids")
        account = self._account(request)
        names = cast("list[object]", task_ids) if isinstance(task_ids, list) else []
        if not names or len(names) > _BATCH or not all(isinstance(name, str) for name in names):
            raise Failure("invalid", f"unique_ids: must hold 1 to {_BATCH} strings")
        self._check_rate(account)
        views: list[PollView] = []
        rules: list[FaultRule] = []
        for job in [job for name in names if (job := self._state.find(self._gateway, str(name), account)) is not None]:
            # What a rule does to the call as a whole it does to the whole page.
            rule = await self._strike("poll", request, job.route.model, job)
            rules += [rule] if rule is not None else []
            if rule is None or rule.kind != "vanish":
                views.append(await self._view(job, request, rule))
        whole = next((rule for rule in rules if rule.kind in {"garbage", "drop_after", "stall_after"}), None)
        return await self._finish(whole, self._dialect.batch(views))

    async def _strike(self, at: FaultPoint, request: Request, model: str | None, job: Job | None = None) -> FaultRule | None:
        """The rule that strikes a call which is carried out all the same; one that is not carried out ends here."""
        now = self._state.now()
        rule = self._state.faults.take(at, self._gateway, model, lambda rule: at != "poll" or _can_strike(rule, job, now))
        if rule is None:
            return None
        if rule.kind == "stall_before":
            await self._state.stall(rule.seconds)
            # Whoever has hung up before the gateway began is not charged.
            response = Dropped() if await request.is_disconnected() else None
        else:
            response = None if rule.accepts else self._instead(rule)
        if response is not None:
            raise _Struck(response)
        return rule

    async def _finish(self, rule: FaultRule | None, answer: Answer) -> Response:
        """What a rule makes of an answer that is ready to go."""
        if rule is None:
            return JSONResponse(answer)
        if rule.kind == "stall_after":
            await self._state.stall(rule.seconds)
        if rule.kind == "no_task_id":
            return JSONResponse(self._dialect.without_task_id(answer))
        return self._instead(rule, answer) or JSONResponse(answer)

    def _instead(self, rule: FaultRule, answer: Answer | None = None) -> Response | None:
        """What comes in place of an answer."""
        if rule.kind == "garbage":
            text = json.dumps(answer or {"data": "nothing was accepted"})
            return Response(text[: max(1, len(text) * 2 // 3)], media_type="application/json")
        if rule.kind == "html" or (rule.kind == "http" and rule.body == "html"):
            status = rule.status if rule.kind == "http" else 200
            return HTMLResponse(_PAGE.format("Bad gateway" if status > 200 else "Welcome"), status, rule.headers(self._state.now()))
        if rule.kind in {"drop_before", "drop_after"}:
            return Dropped()
        if rule.kind == "no_task_id":
            return JSONResponse({})
        # A poll that finds its job failed by moderation is itself a success.
        if rule.kind not in _MEANINGS or (rule.kind == "moderation" and rule.at == "poll"):
            return None
        meaning, message = _MEANINGS[rule.kind]
        status, body = self._dialect.error(meaning, rule.message or message)
        return JSONResponse(body, {"http": rule.status, "error_in_200": 200}.get(rule.kind, status), rule.headers(self._state.now()))


def _can_strike(rule: FaultRule, job: Job | None, now: float) -> bool:
    """Whether a rule means anything for a poll of a job."""
    if rule.kind not in {"unknown_status", "vanish", "moderation", "fail_job", "empty_result", "backwards"}:
        return True
    if job is None:
        return False
    if rule.kind in {"moderation", "fail_job"}:
        return job.state(now) in {"queued", "running", "succeeded"} and job.reported != "succeeded"
    if rule.kind == "empty_result":
        return job.state(now) == "succeeded"
    return job.reported in {"running", "succeeded"} if rule.kind == "backwards" else True


def _submits(route: Route) -> list[str]:
    return [call for call in (route.submit, route.facts.alternative_submit) if call is not None]


def _polls(route: Route) -> list[str]:
    return [call for call in (route.poll, route.facts.alternative_poll) if call is not None]
