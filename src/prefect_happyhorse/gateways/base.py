"""What every dialect shares: requests built and responses read, with no I/O and no waiting."""

from __future__ import annotations

import logging
from collections.abc import Collection, Generator, Iterable, Mapping
from http import HTTPStatus
from typing import Any, ClassVar, Literal, cast
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from prefect_happyhorse.catalog import GatewayFacts, ResponsePaths, Route
from prefect_happyhorse.domain.errors import CatalogError
from prefect_happyhorse.domain.jobs import JobSnapshot, JobStatus, Output, Submission, TaskPage
from prefect_happyhorse.domain.requests import GenerationRequest
from prefect_happyhorse.gateways.account import AccessToken, Account, UploadForm
from prefect_happyhorse.gateways.errors import CallError, CallRejected, CallUnavailable, JobUnknown, MalformedResponse
from prefect_happyhorse.gateways.failures import failure, moderation_code
from prefect_happyhorse.gateways.redaction import CODE_CHARS, ID_RULE, as_id, as_usage, excerpt, holds_secret, mark_secret, sentence, shown
from prefect_happyhorse.gateways.responses import (
    first_text,
    json_object,
    malformed,
    named_job,
    outputs_from,
    progress_from,
    request_id_of,
    status_from,
    value_at,
    values_at,
)
from prefect_happyhorse.gateways.wire import build_body, form_parts, sent_prompt

__all__ = ["Gateway"]

_log = logging.getLogger(__name__)

Paths = ClassVar[tuple[str, ...]]
"""Dotted paths inside a response, of which the first that holds something is read."""

_SUCCESS_CODES = frozenset({"success", "0", "200"})
_FAILED = frozenset({JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED})


class Gateway:
    """One gateway: turns a request into an `httpx.Request` and an `httpx.Response` into a value or an error.

    A subclass is a dialect, a wire protocol; what differs between two gateways of one dialect stands in their facts.

    Args:
        facts: What the catalog says of the gateway.

    Raises:
        CatalogError: When the facts ask for what the dialect does not have.

    Example:
        >>> from prefect_happyhorse.catalog import find_route
        >>> from prefect_happyhorse.gateways import get_gateway
        >>> account = Account(gateway="ttapi", base_url="https://api.ttapi.io")
        >>> route = find_route("ttapi", "reference_to_video", "happyhorse-1.1-r2v")
        >>> get_gateway("ttapi").poll_request(route, "t-1", account).url.path
        '/happyhorse/api/v1/tasks/t-1'
    """

    words: ClassVar[Mapping[JobStatus, Collection[str]]]
    """The provider's words for a job's status, in lower case."""
    paths: ClassVar[ResponsePaths]
    """Where responses hold a job's facts, unless the data of the gateway or route says otherwise."""
    code_paths: Paths = ("code",)
    message_paths: Paths
    failed_code_paths: Paths = ()
    failed_reason_paths: Paths
    progress_paths: Paths = ()
    prompt_paths: Paths = ()

    def __init__(self, facts: GatewayFacts) -> None:
        self.facts = facts
        if facts.token is not None and type(self).token_flow is Gateway.token_flow:
            raise CatalogError(f"{facts.gateway}: token = {facts.token!r}, but the dialect {facts.dialect} exchanges no access tokens.")
        if facts.list_tasks is not None and type(self).read_tasks is Gateway.read_tasks:
            raise CatalogError(f"{facts.gateway}: list_tasks = {facts.list_tasks!r}, but the dialect {facts.dialect} lists no tasks.")
        if facts.upload_policy is not None and type(self).read_policy is Gateway.read_policy:
            raise CatalogError(f"{facts.gateway}: upload_policy is given, but the dialect {facts.dialect} uploads nothing.")

    def submit_request(self, request: GenerationRequest, route: Route, account: Account) -> httpx.Request:
        """The call that submits a job, without the key: `sign` adds it.

        Args:
            request: What the user wants, its media given as addresses that the gateway can read.
            route: The route that carries it.
            account: Who pays.
        """
        body = build_body(request, route)
        content: dict[str, Any] = {"files": form_parts(body, route.file_parts)} if route.encoding == "multipart" else {"json": body}
        return _call(route.submit, account, path=account.submit_path, headers=self.facts.submit_headers, **content)

    def poll_request(self, route: Route, task_id: str, account: Account) -> httpx.Request:
        """The call that polls a job, without the key.

        Args:
            route: The route that carried it.
            task_id: The provider's id of the job.
            account: Who pays.
        """
        return _call(route.poll, account, path=account.poll_path, task_id=task_id)

    def cancel_request(self, task_id: str, account: Account) -> httpx.Request | None:
        """The call that cancels a job, without the key, or None where the gateway has none.

        Args:
            task_id: The provider's id of the job.
            account: Who pays.
        """
        return None if self.facts.cancel is None else _call(self.facts.cancel, account, task_id=task_id)

    def tasks_request(self, account: Account, model: str, page: int) -> httpx.Request:
        """The call that lists an account's latest tasks of a model, without the key.

        Args:
            account: Who pays.
            model: The model, as the gateway names it.
            page: The page's number, from 1.

        Raises:
            CatalogError: When the gateway lists no tasks.
        """
        if self.facts.list_tasks is None:
            raise CatalogError(f"{self.facts.gateway} documents no list of tasks.")
        request = _call(self.facts.list_tasks, account)
        request.url = request.url.copy_merge_params(self.tasks_query(model, page))
        return request

    def tasks_query(self, model: str, page: int) -> dict[str, str | int]:
        """The query that asks for a page of the tasks of a model; CatalogError where the dialect lists none."""
        raise CatalogError(f"{self.facts.gateway} speaks the dialect {self.facts.dialect}, which lists no tasks.")

    def policy_request(self, account: Account, model: str) -> httpx.Request:
        """The call that opens the gateway's temporary storage for one input of a model, without the key.

        Args:
            account: Who pays.
            model: The model, as the gateway names it.

        Raises:
            CatalogError: When the gateway has none.
        """
        if self.facts.upload_policy is None:
            raise CatalogError(f"{self.facts.gateway} documents no temporary storage.")
        request = _call(self.facts.upload_policy, account)
        request.url = request.url.copy_merge_params({"model": model})
        return request

    def prompt_sent(self, request: GenerationRequest, route: Route) -> str:
        """The prompt of a request as the gateway is sent it; empty where there is none.

        Args:
            request: What the user wants.
            route: The route that carries it.
        """
        return sent_prompt(request, route)

    def sign(self, request: httpx.Request, key: SecretStr) -> None:
        """Put the key into a call.

        Args:
            request: The call, which is changed.
            key: The API key or access token.

        Raises:
            CallRejected: When the key cannot stand in a header.
        """
        if not _fits_a_header(key):
            # httpx and h11 would show the header, and so the key, in their own errors.
            raise CallRejected(
                f"The key for {self.facts.gateway} must be printable ASCII without a space around it or a line break in it.",
                meaning="authentication",
                advice="Nothing was sent. Copy the key anew, without anything around it.",
            )
        text = key.get_secret_value()
        name, _, pattern = self.facts.auth.partition(": ")
        request.headers[name] = pattern.replace("<key>", text).replace("<token>", text)
        mark_secret(request, text)

    def token_flow(self, account: Account) -> Generator[httpx.Request, httpx.Response, AccessToken]:
        """Exchange what an account has in place of a key for an access token.

        A generator in the style of httpx's `Auth.auth_flow`: it yields requests, receives their responses, and returns the token.

        Args:
            account: Who pays.

        Raises:
            ValueError: When the account lacks what the exchange needs.
            CallError: When the gateway gives no token.
            CatalogError: When the dialect exchanges none.
        """
        raise CatalogError(f"{self.facts.gateway} speaks the dialect {self.facts.dialect}, which exchanges no access tokens.")

    def refuses_token(self, response: httpx.Response) -> bool:
        """Whether a response says that the access token is not valid, so that no work was started; one that names a job says both."""
        try:
            data = json_object(response)
        except MalformedResponse:
            return False
        if self.facts.token is None or self._named_job(data, response, None) is not None:
            return False
        return self.facts.codes.get(self._code(data, response) or "") == "authentication"

    def read_submit(self, response: httpx.Response, route: Route) -> Submission:
        """The provider's id of a submitted job, and what it says of it.

        Args:
            response: The response, read to its end.
            route: The route that carried the request.

        Raises:
            CallRejected: When the request was turned down, and no work was started.
            CallUnavailable: When the gateway did not take the call; `may_have_acted` says whether that is certain.
            MalformedResponse: When the response is none that the documentation shows, so that work may have been started.
        """
        data, failed = self._opened(response, route)
        said = placed = first_text(data, self._paths("task_id", route))
        if failed is not None or placed is None:
            said = self._named_job(data, response, route)
        task_id = None if said is None or holds_secret(said, response) else as_id(said)
        if failed is None and placed is not None and task_id is not None:
            return self._submission(task_id, data, response, route)
        if failed is None:
            wrong = (
                ""
                if placed is None
                else f" that can be kept: it must be {ID_RULE}, and none of the account's secrets (got {len(placed)} characters)"
            )
            failed = malformed(f"The response to the submit holds no task id{wrong}.", response)
        elif said is not None:
            failed = _beside_task_id(failed, response)
        if said is not None:
            failed.task_id, failed.request_id = task_id, request_id_of(data, response)
        # A traceback may show what a frame holds, and a gateway may have sent the key back.
        del data, said, placed
        raise failed

    @property
    def cancel_deletes(self) -> bool:
        """Whether a cancel takes the job away, a finished one with its result, and says nothing of what it cost."""
        return self.facts.cancel is not None and self.facts.cancel.startswith("DELETE ")

    def read_poll(
        self, response: httpx.Response, route: Route, *, task_id: str | None = None, account: Account | None = None
    ) -> JobSnapshot:
        """Where a polled job stands; a finished one with its outputs.

        Args:
            response: The response, read to its end.
            route: The route that carried the request.
            task_id: The provider's id of the job; needed where the gateway gives results to the key alone (`content` in its facts).
            account: Who pays; needed there too.

        Raises:
            JobUnknown: When the gateway says that it does not know the job.
            CallError: When the gateway refuses or fails to answer. That says nothing about the job, which is paid for.
            MalformedResponse: When the response is none that the documentation shows, or a finished job has no output.
        """
        try:
            data = self._checked(response, route)
            snapshot = self._snapshot(data, response, route)
            if snapshot.status is JobStatus.SUCCEEDED:
                outputs = self._outputs(data, response, route, task_id=task_id, account=account)
                snapshot = snapshot.model_copy(update={"outputs": outputs})
        except CallRejected as error:
            # Not the status alone: a wrong base URL or path answers 404 too, and a job that is paid for must not be given up for that.
            if error.code is None or self.facts.codes.get(error.code) != "not_found":
                raise
            raise JobUnknown(
                error.message, meaning="not_found", code=error.code, status_code=error.status_code, request_id=error.request_id
            ) from error
        del data
        if snapshot.status is JobStatus.SUCCEEDED and not snapshot.outputs:
            raise malformed("The job is finished but the response holds no result.", response)
        return snapshot

    def read_tasks(self, response: httpx.Response) -> TaskPage:
        """A page of the list of tasks.

        Args:
            response: The response, read to its end.

        Raises:
            CallError: When the gateway refuses or fails to answer.
            MalformedResponse: When the response is none that the documentation shows.
        """
        raise CatalogError(f"{self.facts.gateway} speaks the dialect {self.facts.dialect}, which lists no tasks.")

    def read_policy(self, response: httpx.Response, name: str) -> UploadForm:
        """How one file may be uploaded to the gateway's temporary storage.

        Args:
            response: The response, read to its end.
            name: The file's name there.

        Raises:
            CallError: When the gateway refuses or fails to answer.
            MalformedResponse: When the response is none that the documentation shows.
        """
        raise CatalogError(f"{self.facts.gateway} speaks the dialect {self.facts.dialect}, which uploads nothing.")

    def read_cancel(self, response: httpx.Response) -> str | None:
        """The provider's request id of a cancel that it took, or None where it gives none.

        Args:
            response: The response, read to its end.

        Raises:
            CallError: When the gateway refuses, for example since the job already runs.
        """
        # https://www.rfc-editor.org/rfc/rfc9110#section-15.3.5 : done, and there is no body to read.
        return request_id_of({} if response.status_code == HTTPStatus.NO_CONTENT else self._checked(response), response)

    def _checked(self, response: httpx.Response, route: Route | None = None) -> dict[str, Any]:
        """The body of a response, once it is certain that the call did not fail."""
        data, failed = self._opened(response, route)
        if failed is not None:
            del data
            raise failed
        return data

    def _opened(self, response: httpx.Response, route: Route | None) -> tuple[dict[str, Any], CallError | None]:
        """The body of a response, empty where it is not JSON, and the error that the response stands for."""
        data: dict[str, Any] = {}
        unreadable: MalformedResponse | None = None
        try:
            data = json_object(response)
        except MalformedResponse as error:
            unreadable = error
        failed = self._failure(data, response, route)
        if failed is None or isinstance(failed, MalformedResponse):
            failed = (unreadable or failed) if response.is_success else self._unexpected(response)
        return data, failed

    def _unexpected(self, response: httpx.Response) -> MalformedResponse:
        location = response.headers.get("location")
        points = f" and points to {sentence(location, response)!r}; check the base URL" if location else ""
        return malformed(f"{self.facts.gateway} answered {response.status_code}, which its documentation does not show{points}.", response)

    def _paths(self, name: Literal["task_id", "status", "result"], route: Route | None) -> tuple[str, ...]:
        """Where a response holds something: as the route or the gateway has it, else as the dialect does."""
        return getattr(self.facts.response if route is None else route.response, name) or getattr(self.paths, name)

    def _named_job(self, data: dict[str, Any], response: httpx.Response, route: Route | None) -> str | None:
        """The id of a job that a response names where it is none that is documented: then it counts wherever it stands."""
        paths = self._paths("task_id", route) + self.paths.task_id
        return first_text(data, (*paths, *(f"{path}.0" for path in paths))) or named_job(response)

    def _submission(self, task_id: str, data: dict[str, Any], response: httpx.Response, route: Route) -> Submission:
        word = first_text(data, self._paths("status", route))
        return Submission(
            task_id=task_id,
            request_id=request_id_of(data, response),
            status=JobStatus.QUEUED if word is None else status_from(word, self.words),
            provider_status=shown(word, response) if word else None,
        )

    def _snapshot(self, data: dict[str, Any], response: httpx.Response, route: Route) -> JobSnapshot:
        word = first_text(data, self._paths("status", route))
        if word is None:
            raise malformed("The response holds no status.", response)
        status = status_from(word, self.words)
        failed = status in _FAILED
        reason = first_text(data, self.failed_reason_paths) if failed else None
        code = (first_text(data, self.failed_code_paths) or moderation_code(reason, self.facts)) if failed else None
        progress = (progress_from(value_at(data, path)) for path in self.progress_paths)
        counted = data.get("usage")
        usage, cuts = as_usage(cast("dict[str, Any]", counted), response) if isinstance(counted, dict) else (None, [])
        if cuts and status.final:
            _log.warning("%s: of what it says in usage a part is not kept: %s.", self.facts.gateway, ", ".join(cuts[:5]))
        return JobSnapshot(
            status=status,
            provider_status=shown(word, response),
            progress=next((share for share in progress if share is not None), None),
            code=shown(code, response, CODE_CHARS) if code else None,
            message=sentence(reason, response) if reason else None,
            request_id=request_id_of(data, response),
            usage=usage,
            prompt=first_text(data, self.prompt_paths),
        )

    def _failure(self, data: dict[str, Any], response: httpx.Response, route: Route | None) -> CallError | None:
        """The error that a response stands for, or None when the call went well."""
        code = self._code(data, response)
        if response.is_success and self._is_success(data, code, route):
            return None
        failed = failure(data, response, self.facts, code=code, message=first_text(data, self.message_paths))
        if failed is None and self._is_error(data, code):
            what = "no code" if code is None else f"the unknown code {shown(code, response)!r}"
            return malformed(f"{self.facts.gateway} answered {response.status_code} with an error of {what}.", response)
        return failed

    def _code(self, data: dict[str, Any], response: httpx.Response) -> str | None:
        """The code of an error, or None when there is none or it means success."""
        code = first_text(data, self._code_paths(response))
        return None if code is None or code.lower() in _SUCCESS_CODES else code

    def _code_paths(self, response: httpx.Response) -> tuple[str, ...]:
        return self.facts.code_paths or self.code_paths

    def _is_success(self, data: dict[str, Any], code: str | None, route: Route | None) -> bool:
        # A failed job answers 200 and carries its reason beside its status: that is a state, not a failed call.
        return first_text(data, self._paths("status", route)) is not None

    def _is_error(self, data: dict[str, Any], code: str | None) -> bool:
        return code is not None

    def _outputs(
        self, data: dict[str, Any], response: httpx.Response, route: Route, *, task_id: str | None, account: Account | None
    ) -> tuple[Output, ...]:
        """The outputs of a finished job: at the addresses in the answer, or at one below the base URL that takes the key."""
        if self.facts.content is None or task_id is None or account is None:
            return outputs_from(self._results(data, route), route, response)
        return (Output(kind=route.kind, url=str(_call(self.facts.content, account, task_id=task_id).url), keyed=True),)

    def _results(self, data: dict[str, Any], route: Route) -> Iterable[object]:
        """The results of a finished job, as they stand in the response."""
        return [value for path in self._paths("result", route) for value in values_at(data, path)]


def _call(call: str, account: Account, *, path: str | None = None, task_id: str = "", **content: Any) -> httpx.Request:
    """A call by the catalog's method and path, or by a path that the account sets in its place."""
    method, _, documented = call.partition(" ")
    # A task id is the provider's word: it must not be able to step out of its place in the path.
    quoted = quote(task_id, safe="")
    name = quoted.replace(".", "%2E") if quoted in {".", ".."} else quoted
    request = httpx.Request(method, account.base_url + (path or documented).replace("{task_id}", name), **content)
    mark_secret(request, *account.secrets())
    return request


def _beside_task_id(failed: CallError, response: httpx.Response) -> CallError:
    """An error whose response names a job too: work may have been started, whatever the error says."""
    failed.excerpt = excerpt(response)
    if isinstance(failed, MalformedResponse) or (isinstance(failed, CallUnavailable) and failed.may_have_acted):
        return failed
    both = malformed(f"The response to the submit holds an error and a task id at once: {failed.message}", response)
    both.code = failed.code
    return both


def _fits_a_header(key: SecretStr) -> bool:
    text = key.get_secret_value()
    return bool(text) and text.isascii() and text.isprintable() and text == text.strip()
