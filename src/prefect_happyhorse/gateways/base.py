"""What every gateway is: requests built and answers read, with no I/O and no waiting."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from prefect_happyhorse.catalog import GatewayFacts, Route, gateway_facts
from prefect_happyhorse.domain.errors import AuthenticationFailed, GenerationError, JobExpired, ProtocolError
from prefect_happyhorse.domain.jobs import JobSnapshot, JobStatus, Submission
from prefect_happyhorse.domain.prices import Price
from prefect_happyhorse.domain.requests import GenerationRequest
from prefect_happyhorse.gateways.answers import json_object, protocol_error, request_id_of
from prefect_happyhorse.gateways.redaction import scrub
from prefect_happyhorse.gateways.wire import build_body, form_parts

__all__ = ["Account", "Gateway"]


@dataclass(frozen=True)
class Account:
    """Who pays, and where: what a gateway needs to address and sign a request.

    Args:
        gateway: Id of the gateway.
        base_url: The gateway's address, without a slash at its end.
        label: The account's own name; two accounts of one gateway never share jobs.
        key: The API key or access token; None where an app id and secret key stand in for it, or nothing is to be sent.
        app_id: The id that an access token is asked for with.
        secret_key: The secret that an access token is asked for with.
        submit_path: A path that replaces the catalog's submit path.
        poll_path: A path that replaces the catalog's poll path; `{task_id}` stands for the job.
        private_network: Whether the gateway lies in a private network, so that its results may be fetched from there.
        prices: What the account pays, where the user says so.
        credentials: The name under which the credentials can be found again, where they have one.
    """

    gateway: str
    base_url: str
    label: str = "default"
    key: SecretStr | None = field(default=None, repr=False)
    app_id: str | None = None
    secret_key: SecretStr | None = field(default=None, repr=False)
    submit_path: str | None = None
    poll_path: str | None = None
    private_network: bool = False
    prices: tuple[Price, ...] = ()
    credentials: str | None = None


class Gateway(ABC):
    """One wire protocol: turns a request into an `httpx.Request` and an `httpx.Response` into a value or an error.

    Args:
        gateway: Id of the gateway whose facts it goes by.
    """

    submit_headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, gateway: str) -> None:
        self.facts: GatewayFacts = gateway_facts(gateway)

    def submit_request(self, request: GenerationRequest, route: Route, account: Account) -> httpx.Request:
        """The call that submits a job.

        Args:
            request: What the user wants, its media given as addresses that the gateway can read.
            route: The route that carries it.
            account: Who pays.

        Returns:
            The call, without the key: `sign` adds it.
        """
        body = build_body(request, route)
        method, path = _split(account.submit_path, route.submit)
        content: dict[str, Any] = {"files": form_parts(body)} if route.encoding == "multipart" else {"json": body}
        return httpx.Request(method, account.base_url + path, headers=dict(self.submit_headers), **content)

    def poll_request(self, route: Route, task_id: str, account: Account) -> httpx.Request:
        """The call that asks for a job.

        Args:
            route: The route that carried it.
            task_id: The provider's id of the job.
            account: Who pays.

        Returns:
            The call, without the key.
        """
        method, path = _split(account.poll_path, route.poll)
        return httpx.Request(method, account.base_url + _with_task(path, task_id))

    def cancel_request(self, task_id: str, account: Account) -> httpx.Request | None:
        """The call that cancels a job, or None where the gateway has none.

        Args:
            task_id: The provider's id of the job.
            account: Who pays.
        """
        if self.facts.cancel is None:
            return None
        method, path = _split(None, self.facts.cancel)
        return httpx.Request(method, account.base_url + _with_task(path, task_id))

    def sign(self, request: httpx.Request, key: SecretStr) -> None:
        """Put the key into a call.

        Args:
            request: The call, which is changed.
            key: The API key or access token.

        Raises:
            AuthenticationFailed: When the key cannot stand in a header.
        """
        text = key.get_secret_value()
        if not text or not text.isascii() or not text.isprintable() or text != text.strip():
            # httpx and h11 would show the header, and so the key, in their own errors.
            raise AuthenticationFailed(
                f"The key for {self.facts.gateway} is empty, or holds what no header can carry: a line break, a space around it, a letter"
                " beyond ASCII.",
                gateway=self.facts.gateway,
                advice="Nothing was sent. Copy the key anew, without anything around it.",
            )
        name, _, pattern = self.facts.auth.partition(": ")
        request.headers[name] = pattern.replace("<key>", text).replace("<token>", text)

    def read_submit(self, response: httpx.Response, route: Route) -> Submission:
        """What a gateway answers to a submit.

        Args:
            response: The answer, read to its end.
            route: The route that carried the request.

        Returns:
            The provider's id of the job, and what it says of it.

        Raises:
            RequestRejected: When the request was refused and no work was started.
            GatewayUnavailable: When the gateway did not take the call; `money` says whether that is certain.
            ProtocolError: When the answer is none that the documentation shows, so that work may have been started.
        """
        data, failed = self._opened(response)
        submission = self._submission(data, response, route)
        if failed is None and submission is not None:
            return submission
        if failed is None:
            failed = protocol_error("The submit was answered without a task id.", response)
        elif failed.money == "not spent" and response.is_success and submission is not None:
            failed = protocol_error("The submit was answered with an error and a task id at once.", response)
        if isinstance(failed, ProtocolError):
            failed.money = "may be spent"
            failed.advice = "Look at the provider's console before sending it again."
        raise failed.about(gateway=self.facts.gateway)

    def read_poll(self, response: httpx.Response, route: Route) -> JobSnapshot:
        """What a gateway says of a job.

        Args:
            response: The answer, read to its end.
            route: The route that carried the request.

        Returns:
            Where the job stands; a finished one with its outputs.

        Raises:
            JobExpired: When the gateway says that it does not know the job.
            GenerationError: When the gateway refuses or fails to answer. That says nothing about the job, which may be paid for.
            ProtocolError: When the answer is none that the documentation shows, or a finished job has no output.
        """
        try:
            data = self._checked(response)
            state = self._state(data, response, route)
            if state.status is JobStatus.SUCCEEDED and not state.outputs:
                raise protocol_error("The job is finished but the answer holds no result.", response)
        except GenerationError as error:
            if self._is_missing(error):
                raise JobExpired(
                    f"{self.facts.gateway} does not know the job any more: {error.message}",
                    gateway=self.facts.gateway,
                    code=error.code,
                    status_code=error.status_code,
                    request_id=error.request_id,
                    advice="Look for the result in the provider's console.",
                ) from error
            self._tell_of_the_job(error)
            raise
        return state

    def read_cancel(self, response: httpx.Response) -> str | None:
        """What a gateway answers to a cancel.

        Args:
            response: The answer, read to its end.

        Returns:
            The provider's request id, or None.

        Raises:
            GenerationError: When the gateway refuses, for example since the job already runs.
        """
        try:
            return request_id_of(self._checked(response), response)
        except GenerationError as error:
            self._tell_of_the_job(error)
            raise

    def _checked(self, response: httpx.Response) -> dict[str, Any]:
        """The answer's body, once it is certain that the call did not fail."""
        data, failed = self._opened(response)
        if failed is not None:
            raise failed
        return data

    def _opened(self, response: httpx.Response) -> tuple[dict[str, Any], GenerationError | None]:
        """The answer's body, empty where it is not JSON, and the error that the answer stands for."""
        data: dict[str, Any] = {}
        unreadable: ProtocolError | None = None
        try:
            data = json_object(response)
        except ProtocolError as error:
            unreadable = error
        failed = self._failure(data, response)
        if failed is None or isinstance(failed, ProtocolError):
            failed = (unreadable or failed) if response.is_success else self._unexpected(response)
        return data, failed.about(gateway=self.facts.gateway) if failed is not None else None

    def _unexpected(self, response: httpx.Response) -> ProtocolError:
        location = response.headers.get("location")
        points = f" and points to {scrub(location, response)!r}; check the base URL" if location else ""
        return protocol_error(
            f"{self.facts.gateway} answered {response.status_code}, which its documentation does not show{points}.", response
        )

    def _tell_of_the_job(self, error: GenerationError) -> None:
        """Say in the error of a poll or cancel that the job is there, whatever went wrong with the call."""
        error.money = "may be spent"
        if not isinstance(error, AuthenticationFailed):
            error.advice = "The job was not touched by this: run the same request again, and it is asked for, not bought again."
        error.about(gateway=self.facts.gateway)

    def _is_missing(self, error: GenerationError) -> bool:
        # Not the status alone: a wrong base URL or path answers 404 too, and a job that is paid for must not be given up for that.
        return error.code is not None and self.facts.codes.get(error.code) == "not_found"

    @abstractmethod
    def _failure(self, data: dict[str, Any], response: httpx.Response) -> GenerationError | None: ...

    @abstractmethod
    def _submission(self, data: dict[str, Any], response: httpx.Response, route: Route) -> Submission | None: ...

    @abstractmethod
    def _state(self, data: dict[str, Any], response: httpx.Response, route: Route) -> JobSnapshot: ...


def _split(override: str | None, default: str) -> tuple[str, str]:
    method, _, path = default.partition(" ")
    return method, override or path


def _with_task(path: str, task_id: str) -> str:
    # A task id is the provider's word: it must not be able to step out of its place in the path.
    quoted = quote(task_id, safe="")
    return path.replace("{task_id}", quoted.replace(".", "%2E") if quoted in {".", ".."} else quoted)
