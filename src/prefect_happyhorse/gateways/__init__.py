"""Wire protocols, sans-I/O: requests are built and responses are read, and nothing waits."""

from functools import cache

from prefect_happyhorse.catalog import gateway_facts
from prefect_happyhorse.catalog.discovery import dialect_class
from prefect_happyhorse.gateways.account import AccessToken, Account, UploadForm
from prefect_happyhorse.gateways.base import Gateway
from prefect_happyhorse.gateways.chanjing import ChanjingGateway
from prefect_happyhorse.gateways.dashscope import DashScopeGateway
from prefect_happyhorse.gateways.errors import (
    CallError,
    CallRejected,
    CallUnavailable,
    JobUnknown,
    MalformedResponse,
    poll_error,
    submit_error,
)
from prefect_happyhorse.gateways.newapi import NewAPIGateway
from prefect_happyhorse.gateways.wire import build_body, form_parts

__all__ = [
    "DIALECTS",
    "AccessToken",
    "Account",
    "CallError",
    "CallRejected",
    "CallUnavailable",
    "Gateway",
    "JobUnknown",
    "MalformedResponse",
    "UploadForm",
    "build_body",
    "form_parts",
    "get_gateway",
    "poll_error",
    "submit_error",
]

DIALECTS: dict[str, type[Gateway]] = {
    "dashscope": DashScopeGateway,
    "newapi": NewAPIGateway,
    "chanjing": ChanjingGateway,
}
"""The class of each wire protocol here; what differs between two gateways that speak the same one is data of the catalog."""


@cache
def get_gateway(gateway: str) -> Gateway:
    """The gateway of an id, without state, so that all callers share it; CatalogError when there is none, or none that can be spoken to."""
    facts = gateway_facts(gateway)
    # A package's dialect is imported by whoever needs it, and one that cannot be keeps no other gateway from working.
    kind = DIALECTS.get(facts.dialect) or dialect_class(facts.dialect, Gateway)
    return kind(facts)
