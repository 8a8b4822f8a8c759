"""The keys, stores and servers of whoever runs the tests: none may be spent, filled or called."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping

__all__ = ["SUFFIXES", "clear"]

SUFFIXES = (
    "_API_KEY",
    "_BASE_URL",
    "_ACCOUNT",
    "_APP_ID",
    "_SECRET_KEY",
    "_PRICES",
    "_PRIVATE_NETWORK",
    "_TEMPORARY_UPLOAD",
    "_SUBMIT_PATH",
    "_POLL_PATH",
    "_REGION",
    "_WORKSPACE",
)
"""How the variables of a gateway end, whatever the gateway: the key of one that no list names must not reach a test either."""


def clear(environment: MutableMapping[str, str], gateways: Iterable[str] = ()) -> None:
    """Take every variable of a gateway, of this package and of Prefect's API out of an environment."""
    beginnings = ("HAPPYHORSE_", "PREFECT_API_", "PREFECT_INTEGRATIONS_HAPPYHORSE_", *(f"{gateway.upper()}_" for gateway in gateways))
    for name in list(environment):
        if name.upper().startswith(beginnings) or name.upper().endswith(SUFFIXES):
            del environment[name]
