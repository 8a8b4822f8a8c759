"""Chanjing: an envelope whose code decides, and access tokens that kill the one before."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, cast

import httpx
from pydantic import SecretStr

from prefect_happyhorse.catalog import Route
from prefect_happyhorse.domain.errors import GenerationError, ProtocolError
from prefect_happyhorse.domain.jobs import JobSnapshot, JobStatus, Submission
from prefect_happyhorse.gateways.answers import (
    dig,
    first_text,
    json_object,
    outputs_from,
    protocol_error,
    request_id_of,
    status_from,
    text_of,
)
from prefect_happyhorse.gateways.base import Account, Gateway
from prefect_happyhorse.gateways.failures import failure
from prefect_happyhorse.gateways.redaction import scrub, shown

__all__ = ["ChanjingGateway"]

_WORDS = {
    JobStatus.QUEUED: {"queued", "ready"},
    JobStatus.RUNNING: {"generating"},
    JobStatus.SUCCEEDED: {"success"},
    JobStatus.FAILED: {"error", "fail"},
}
_REFUSED_CODE = "10400"


class ChanjingGateway(Gateway):
    """Chanjing (www.chanjing.cc, happyhorse-1.0-r2v)."""

    def __init__(self) -> None:
        super().__init__("chanjing")

    def token_request(self, account: Account) -> httpx.Request:
        """The call that asks for an access token. A new token makes the one before worthless."""
        if account.app_id is None or account.secret_key is None or self.facts.token is None:
            raise ValueError("An access token is asked for with an app id and a secret key.")
        method, _, path = self.facts.token.partition(" ")
        body = {"app_id": account.app_id, "secret_key": account.secret_key.get_secret_value()}
        return httpx.Request(method, account.base_url + path, json=body)

    def read_token(self, response: httpx.Response) -> tuple[SecretStr, datetime]:
        """An access token and when it ends."""
        self._checked(_without_data(response))
        data = json_object(response)
        token = text_of(dig(data, "data.access_token"))
        ends = _moment(dig(data, "data.expire_in"))
        if token is None or ends is None:
            raise protocol_error("The answer holds no access token with an end.", _without_data(response)).about(gateway="chanjing")
        return SecretStr(token), ends

    def refuses_token(self, response: httpx.Response) -> bool:
        """Whether the answer says that the access token is not valid, so that no work was started."""
        try:
            return text_of(json_object(response).get("code")) == _REFUSED_CODE
        except ProtocolError:
            return False

    def _failure(self, data: dict[str, Any], response: httpx.Response) -> GenerationError | None:
        code = text_of(data.get("code"))
        if response.is_success and code == "0":
            return None
        failed = failure(data, response, self.facts, code=code, message=first_text(data, ("msg", "message")))
        if failed is None:
            said = "no code" if code is None else f"the unknown code {shown(code, response)!r}"
            return protocol_error(f"chanjing answered {response.status_code} with {said}.", response)
        return failed

    def _submission(self, data: dict[str, Any], response: httpx.Response, route: Route) -> Submission | None:
        task_id = text_of(data.get("data"))
        return None if task_id is None else Submission(task_id=task_id, request_id=request_id_of(data, response))

    def _state(self, data: dict[str, Any], response: httpx.Response, route: Route) -> JobSnapshot:
        word = text_of(dig(data, "data.progress_desc"))
        if word is None:
            raise protocol_error("The answer holds no progress_desc.", response)
        status = status_from(word, _WORDS)
        reason = text_of(dig(data, "data.err_msg")) if status is JobStatus.FAILED else None
        found: object = dig(data, "data.output_url")
        addresses = cast("list[object]", found) if isinstance(found, list) else [found]
        return JobSnapshot(
            status=status,
            provider_status=shown(word, response),
            outputs=outputs_from(addresses, route, response) if status is JobStatus.SUCCEEDED else (),
            message=scrub(reason, response) if reason else None,
            request_id=request_id_of(data, response),
        )


def _without_data(response: httpx.Response) -> httpx.Response:
    """The answer to a token request without what it carries: errors show the start of an answer, and here that may be a token."""
    try:
        told = {name: value for name, value in json_object(response).items() if name in {"code", "msg", "trace_id"}}
    except ProtocolError:
        return httpx.Response(response.status_code)
    return httpx.Response(response.status_code, json=told, request=response.request)


def _moment(value: object) -> datetime | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return datetime.fromtimestamp(value, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None
