"""Chanjing: an envelope whose code decides, and access tokens of which a new one invalidates the one before."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, ClassVar, cast

import httpx
from pydantic import SecretStr

from prefect_happyhorse.catalog import ResponsePaths, Route
from prefect_happyhorse.domain.jobs import JobStatus
from prefect_happyhorse.gateways.account import AccessToken, Account
from prefect_happyhorse.gateways.base import Gateway, Paths
from prefect_happyhorse.gateways.errors import MalformedResponse
from prefect_happyhorse.gateways.redaction import mark_secret
from prefect_happyhorse.gateways.responses import as_text, first_text, json_object, malformed, value_at

__all__ = ["ChanjingGateway"]


class ChanjingGateway(Gateway):
    """A gateway that answers as www.chanjing.cc does."""

    words: ClassVar[Mapping[JobStatus, Collection[str]]] = {
        JobStatus.QUEUED: {"queued", "ready"},
        JobStatus.RUNNING: {"generating"},
        JobStatus.SUCCEEDED: {"success"},
        JobStatus.FAILED: {"error", "fail"},
    }
    paths: ClassVar[ResponsePaths] = ResponsePaths(task_id=("data",), status=("data.progress_desc",), result=("data.output_url",))
    message_paths: Paths = ("msg", "message")
    failed_reason_paths: Paths = ("data.err_msg",)

    def token_flow(self, account: Account) -> Generator[httpx.Request, httpx.Response, AccessToken]:
        """Exchange app id and secret key for an access token."""
        response = yield self._token_request(account)
        self._checked(_without_data(response))
        data = json_object(response)
        token, ends = as_text(value_at(data, "data.access_token")), _moment(value_at(data, "data.expire_in"))
        if token is None or ends is None:
            raise malformed("The response holds no access token with an end.", _without_data(response))
        return AccessToken(SecretStr(token), ends)

    def _token_request(self, account: Account) -> httpx.Request:
        # A frame of its own, which is gone when the exchange fails: a traceback with locals would show the secret.
        if account.app_id is None or account.secret_key is None or self.facts.token is None:
            raise ValueError("An access token is requested with an app id and a secret key.")
        method, _, path = self.facts.token.partition(" ")
        body = {"app_id": account.app_id, "secret_key": account.secret_key.get_secret_value()}
        request = httpx.Request(method, account.base_url + path, json=body)
        mark_secret(request, *account.secrets())
        return request

    def _code(self, data: dict[str, Any], response: httpx.Response) -> str | None:
        return first_text(data, self._code_paths(response))

    def _is_success(self, data: dict[str, Any], code: str | None, route: Route | None) -> bool:
        return code == "0"

    def _is_error(self, data: dict[str, Any], code: str | None) -> bool:
        # Without the one code of success nothing in the envelope counts.
        return True

    def _results(self, data: dict[str, Any], route: Route) -> Iterable[object]:
        found: list[object] = [value_at(data, path) for path in self._paths("result", route)]
        return [entry for value in found for entry in (cast("list[object]", value) if isinstance(value, list) else [value])]


def _without_data(response: httpx.Response) -> httpx.Response:
    """A token's response without the token: errors show the start of a response."""
    try:
        data = json_object(response)
        public = {name: as_text(data.get(name)) for name in ("code", "msg", "trace_id")}
    except MalformedResponse:
        return httpx.Response(response.status_code)
    return httpx.Response(response.status_code, json=public, request=response.request)


def _moment(value: object) -> datetime | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return datetime.fromtimestamp(value, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None
