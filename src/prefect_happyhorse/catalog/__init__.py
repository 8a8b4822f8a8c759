"""Models, routes and limits as data, and the loader that checks them."""

from prefect_happyhorse.catalog.check import check, find_advice, find_problems, wire_value
from prefect_happyhorse.catalog.cost import estimate, list_prices, read_prices
from prefect_happyhorse.catalog.differences import ROUNDED_S, find_differences
from prefect_happyhorse.catalog.facts import DialectName, GatewayFacts, ResponsePaths
from prefect_happyhorse.catalog.families import as_offered, of_family
from prefect_happyhorse.catalog.fields import MediaLimit, WireField
from prefect_happyhorse.catalog.loader import GATEWAYS, find_route, gateway_facts, load_gateway, offers, register, resolve, routes
from prefect_happyhorse.catalog.routes import Route

__all__ = [
    "GATEWAYS",
    "ROUNDED_S",
    "DialectName",
    "GatewayFacts",
    "MediaLimit",
    "ResponsePaths",
    "Route",
    "WireField",
    "as_offered",
    "check",
    "estimate",
    "find_advice",
    "find_differences",
    "find_problems",
    "find_route",
    "gateway_facts",
    "list_prices",
    "load_gateway",
    "of_family",
    "offers",
    "read_prices",
    "register",
    "resolve",
    "routes",
    "wire_value",
]
