"""Read the catalog's data files, check them, and find routes in them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from prefect_happyhorse.catalog.discovery import discovered
from prefect_happyhorse.catalog.facts import GatewayFacts, ResponsePaths
from prefect_happyhorse.catalog.fields import MediaLimit
from prefect_happyhorse.catalog.lines import line_of
from prefect_happyhorse.catalog.routes import Route
from prefect_happyhorse.domain.errors import CatalogError, InvalidRequest
from prefect_happyhorse.domain.requests import GenerationRequest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["GATEWAYS", "PROBLEMS", "find_route", "gateway_facts", "load_gateway", "offers", "register", "resolve", "routes"]


def _shipped() -> dict[str, str]:
    """The package's data files that describe a gateway, by id: a file is named after its gateway."""
    found = sorted((files("prefect_happyhorse.catalog") / "data").iterdir(), key=lambda file: file.name)
    texts = {file.name.removesuffix(".toml"): file.read_text(encoding="utf-8") for file in found if file.name.endswith(".toml")}
    return {gateway: text for gateway, text in texts.items() if "[gateway]" in text.splitlines()}


_TEXTS = _shipped()
_LOADED: dict[str, tuple[GatewayFacts, tuple[Route, ...]]] = {}

GATEWAYS = _TEXTS.keys()
"""The ids of all gateways: those of the package in alphabetical order, then those that were found or registered, in that order."""

PROBLEMS: list[str] = []
"""What is wrong with files of gateways that were found and left out."""

_log = logging.getLogger(__name__)


def register(source: str | Path) -> GatewayFacts:
    """Add a gateway that speaks a known dialect, for this process.

    Args:
        source: Its data in TOML as the files of `prefect_happyhorse/catalog/data` have it, or the path of such a file.

    Returns:
        What holds for the gateway.

    Raises:
        CatalogError: When the data is wrong, or there is another gateway of that id.
        OSError: When the file cannot be read.
    """
    try:
        text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
    except UnicodeDecodeError as error:
        raise CatalogError(f"The data of a gateway must be UTF-8: {source}: {error}") from error
    facts, _ = load_gateway(text, origin=str(source) if isinstance(source, Path) else "")
    if _TEXTS.setdefault(facts.gateway, text) != text:
        raise CatalogError(f"There is already a gateway {facts.gateway!r}; give the new one another id.")
    return gateway_facts(facts.gateway)


def discover() -> None:
    """Register the gateways of folders and packages; one that is wrong is left out and told, and all others work on."""
    PROBLEMS.clear()
    for origin, text in discovered():
        try:
            if isinstance(text, Exception):
                raise CatalogError(f"{origin}: {text}")
            facts, _ = load_gateway(text, origin=origin)
            if _TEXTS.setdefault(facts.gateway, text) != text:
                raise CatalogError(f"{origin}: there is already a gateway {facts.gateway!r}; give this one another id.")
        except CatalogError as error:
            PROBLEMS.append(str(error))
            _log.warning("A gateway is left out: %s", error)


def load_gateway(text: str, *, origin: str = "") -> tuple[GatewayFacts, tuple[Route, ...]]:
    """Read one gateway's data; every problem that its first reading finds is told, with its line, at once."""
    where = f"{origin}: " if origin else ""
    try:
        data = _DataFile.model_validate(tomllib.loads(text))
    except ValidationError as error:
        raise CatalogError(f"{where}The data of a gateway is wrong:{_told(error, text, ())}") from error
    except (ValueError, RecursionError) as error:
        raise CatalogError(f"{where}The data of a gateway is wrong: {error}") from error
    found: dict[tuple[str, str], Route] = {}
    problems: list[str] = []
    for number, row in enumerate(data.route):
        try:
            route = _route(row, data)
            if found.setdefault((route.capability, route.model), route) is not route:
                raise ValueError(f"{route.capability} of {route.model!r} stands there twice")
        except ValidationError as error:
            problems.append(f"{row.capability} of {row.model!r}:{_told(error, text, ('route', number), row.shape)}")
        except (KeyError, TypeError, ValueError) as error:
            wrong = f"there is no shape, limit or response {error}" if isinstance(error, KeyError) else str(error)
            problems.append(f"{row.capability} of {row.model!r}:\n  line {line_of(text, ('route', number))}: {wrong}")
    if problems:
        raise CatalogError(f"{where}The data of {data.gateway.gateway} is wrong: " + "\n".join(problems))
    return data.gateway, tuple(found.values())


def _told(error: ValidationError, text: str, inside: Sequence[str | int], shape: str = "") -> str:
    """Each problem in a line of its own, with the line that it is about."""
    told: list[str] = []
    for one in error.errors(include_url=False):
        # What a row does not say itself comes from its shape.
        base = ("shapes", shape) if one["loc"][:1] == ("fields",) else inside
        name = ".".join(map(str, one["loc"]))
        told.append(f"\n  line {line_of(text, (*base, *one['loc']))}: {f'{name}: ' if name else ''}{one['msg']}")
    return "".join(told)


class _Row(BaseModel, extra="allow"):
    """A row: its shape, its limits, and what is the route's own."""

    capability: str
    model: str
    shape: str
    limits: tuple[str, ...] = ()


class _DataFile(BaseModel, extra="forbid"):
    gateway: GatewayFacts
    shapes: dict[str, dict[str, Any]]
    limits: dict[str, MediaLimit] = {}
    responses: dict[str, ResponsePaths] = {}
    route: list[_Row] = Field(min_length=1)


def _route(row: _Row, data: _DataFile) -> Route:
    fields = {**data.shapes[row.shape], **row.model_dump(exclude={"shape", "limits"})}
    if taken := sorted(fields.keys() & {"gateway", "media", "facts"}):
        raise ValueError(f"{', '.join(taken)} must not stand in a row or shape")
    media = [data.limits[name] for name in row.limits]
    paths = [data.gateway.response, *([data.responses[fields["response"]]] if "response" in fields else [])]
    response = {name: value for one in paths for name, value in one.model_dump(exclude_defaults=True).items()}
    own = {"gateway": data.gateway.gateway, "media": media, "response": response, "facts": data.gateway}
    return Route.model_validate({"family": row.model, **fields, **own})


def _loaded(gateway: str) -> tuple[GatewayFacts, tuple[Route, ...]]:
    if gateway not in GATEWAYS:
        raise CatalogError(f"There is no gateway {gateway!r}. There are {', '.join(GATEWAYS)}.")
    if gateway not in _LOADED:
        _LOADED[gateway] = load_gateway(_TEXTS[gateway])
    return _LOADED[gateway]


def gateway_facts(gateway: str) -> GatewayFacts:
    """What holds for every route of a gateway."""
    return _loaded(gateway)[0]


def routes(gateway: str | None = None) -> tuple[Route, ...]:
    """All routes, or those of one gateway.

    Args:
        gateway: Id of the gateway; None for all.

    Returns:
        The routes, in the order of `GATEWAYS` and of the data files.

    Raises:
        CatalogError: When there is no such gateway.

    Example:
        >>> len(routes("ttapi"))
        2
    """
    names: Iterable[str] = GATEWAYS if gateway is None else (gateway,)
    return tuple(route for name in names for route in _loaded(name)[1])


def find_route(gateway: str, capability: str, model: str) -> Route:
    """The route of a gateway for a capability of a model."""
    for route in _loaded(gateway)[1]:
        if (route.capability, route.model) == (capability, model):
            return route
    raise InvalidRequest(
        f"{gateway} does not offer {capability} with model {model!r}.",
        gateway=gateway,
        capability=capability,
        model=model,
        problems=offers(gateway, capability, model),
        advice="`happyhorse models` lists every route.",
    )


def resolve(request: GenerationRequest, gateway: str) -> Route:
    """The route that carries a request on a gateway.

    Args:
        request: What is to be made.
        gateway: Id of the gateway.

    Returns:
        The route.

    Raises:
        InvalidRequest: When the gateway has no such route; the problems say who has one.
        CatalogError: When there is no such gateway.

    Example:
        >>> from prefect_happyhorse.domain.requests import TextToImage
        >>> resolve(TextToImage(model="gpt-image-2", prompt="A horse"), "happyhorse").title
        'GPT Image 2'
    """
    return find_route(gateway, request.capability, request.model)


def offers(gateway: str, capability: str, model: str) -> tuple[str, ...]:
    """What there is in place of a route that is missing."""
    everything = routes()
    sentences: list[str] = []
    if elsewhere := _unique(r.gateway for r in everything if (r.capability, r.model) == (capability, model)):
        sentences.append(f"{capability} with {model!r} is offered by {', '.join(elsewhere)}")
    if other := _unique(r.capability for r in everything if (r.gateway, r.model) == (gateway, model)):
        sentences.append(f"{model!r} on {gateway} offers {', '.join(other)}")
    names = (gateway, *(name for name in GATEWAYS if name != gateway))
    models = {name: _unique(r.model for r in everything if (r.gateway, r.capability) == (name, capability)) for name in names}
    sentences += [f"{capability} on {name} has {', '.join(found)}" for name, found in models.items() if found]
    return tuple(sentences) or (f"no gateway offers the capability {capability!r}",)


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


discover()
