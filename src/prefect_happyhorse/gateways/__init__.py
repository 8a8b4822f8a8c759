"""One wire protocol per gateway, sans-I/O: requests are built and answers are read, and nothing waits."""

from collections.abc import Callable
from functools import cache

from prefect_happyhorse.domain.errors import CatalogError
from prefect_happyhorse.gateways.base import Account, Gateway
from prefect_happyhorse.gateways.chanjing import ChanjingGateway
from prefect_happyhorse.gateways.dashscope import InfiflowGateway, TTAPIGateway
from prefect_happyhorse.gateways.newapi import HappyHorseGateway, UniAllGateway
from prefect_happyhorse.gateways.wire import build_body, form_parts

__all__ = ["Account", "ChanjingGateway", "Gateway", "build_body", "form_parts", "get_gateway"]

_REGISTRY: dict[str, Callable[[], Gateway]] = {
    "ttapi": TTAPIGateway,
    "uniall": UniAllGateway,
    "chanjing": ChanjingGateway,
    "infiflow": InfiflowGateway,
    "happyhorse": HappyHorseGateway,
}


@cache
def get_gateway(gateway: str) -> Gateway:
    """The wire protocol of a gateway.

    Args:
        gateway: Id of the gateway.

    Returns:
        The protocol; it has no state, so all callers share it.

    Raises:
        CatalogError: When there is no such gateway.

    Example:
        >>> get_gateway("infiflow").facts.title
        'Infiflow'
    """
    if gateway not in _REGISTRY:
        raise CatalogError(f"There is no gateway {gateway!r}. There are {', '.join(_REGISTRY)}.")
    return _REGISTRY[gateway]()
