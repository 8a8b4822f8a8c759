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
from prefect_happyhorse.domain.errors import GenerationError, JobExpired
from prefect_happyhorse.domain.jobs import JobState, JobStatus, Submission
from prefect_happyhorse.domain.requests import GenerationRequest
from prefect_happyhorse.gateways.answers import json_object, protocol_error
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
    """

    gateway: str
    base_url: str
    label: str = "default"
    key: SecretStr | None = field(default=None, repr=False)
    app_id: str | None = None
    secret_key: SecretStr | None = field(default=None, repr=False)
    submit_path: str | None = None
    poll_path: str | None = None


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
        """
        name, _, pattern = self.facts.auth.partition(": ")
        request.headers[name] = pattern.replace("<key>", key.get_secret_value()).replace("<token>", key.get_secret_value())

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
            ProtocolError: When the answer is none that the documentation shows.
        """
        data = self._checked(response)
        submission = self._submission(data, response, route)
        if submission is None:
            raise protocol_error("The submit was answered without a task id.", response).about(gateway=self.facts.gateway)
        return submission

    def read_poll(self, response: httpx.Response, route: Route) -> JobState:
        """What a gateway says of a job.

        Args:
            response: The answer, read to its end.
            route: The route that carried the request.

        Returns:
            Where the job stands; a finished one with its outputs.

        Raises:
            JobExpired: When the gateway does not know the job.
            GenerationError: When the gateway refuses or fails to answer, as for a submit.
            ProtocolError: When the answer is none that the documentation shows, or a finished job has no output.
        """
        try:
            data = self._checked(response)
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
            raise
        state = self._state(data, response, route)
        if state.status is JobStatus.SUCCEEDED and not state.outputs:
            raise protocol_error("The job is finished but the answer holds no result.", response).about(gateway=self.facts.gateway)
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
        data = self._checked(response)
        value = data.get("request_id")
        return value if isinstance(value, str) else None

    def _checked(self, response: httpx.Response) -> dict[str, Any]:
        """The answer's body, once it is certain that it is no failure."""
        try:
            data = json_object(response)
        except GenerationError as error:
            failed = self._failure({}, response)
            if failed is not None:
                raise failed from error
            raise error.about(gateway=self.facts.gateway) from None
        failed = self._failure(data, response)
        if failed is not None:
            raise failed
        return data

    def _is_missing(self, error: GenerationError) -> bool:
        return (error.code is not None and self.facts.codes.get(error.code) == "not_found") or error.status_code == 404

    @abstractmethod
    def _failure(self, data: dict[str, Any], response: httpx.Response) -> GenerationError | None: ...

    @abstractmethod
    def _submission(self, data: dict[str, Any], response: httpx.Response, route: Route) -> Submission | None: ...

    @abstractmethod
    def _state(self, data: dict[str, Any], response: httpx.Response, route: Route) -> JobState: ...


def _split(override: str | None, default: str) -> tuple[str, str]:
    method, _, path = default.partition(" ")
    return method, override or path


def _with_task(path: str, task_id: str) -> str:
    # A task id is the provider's word: it must not be able to step out of its place in the path.
    return path.replace("{task_id}", quote(task_id, safe=""))
