"""What a request should cost: by a price list of the user's own, else by what a source says, else unknown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from importlib.resources import files
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from prefect_happyhorse.catalog.loader import GATEWAYS, resolve, routes, tomllib
from prefect_happyhorse.catalog.routes import Route, WireField
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.errors import CatalogError
from prefect_happyhorse.domain.prices import EXACT, Estimate, Price
from prefect_happyhorse.domain.requests import REQUEST_CLASSES, GenerationRequest

__all__ = ["estimate", "list_prices", "read_prices"]

_PRICES = TypeAdapter(tuple[Price, ...])


def read_prices(text: str) -> tuple[Price, ...]:
    """A price list in TOML: a `[[price]]` with the fields of `Price` for each row; ValueError names every problem with its row, from 0."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"The price list is no TOML: {error}") from error
    if unknown := sorted(set(data) - {"price"}):
        raise ValueError(f"A price list must hold [[price]] alone (got {', '.join(unknown)}).")
    rows = data.get("price", ())
    prices: tuple[Price, ...] = ()
    problems = _misnamed(rows)
    try:
        prices = _PRICES.validate_python(rows)
    except ValidationError as error:
        problems += [f"price {'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False)]
    if problems:
        raise ValueError("The price list is wrong:\n" + "\n".join(f"  - {problem}" for problem in problems))
    return prices


def _misnamed(rows: object) -> list[str]:
    """A row for a gateway or capability that there is not would never fit anything, and nobody would notice."""
    problems: list[str] = []
    for number, row in enumerate(cast("list[object]", rows) if isinstance(rows, list) else ()):
        facts = cast("dict[str, object]", row) if isinstance(row, dict) else {}
        for fact, known in (("gateway", GATEWAYS), ("capability", tuple(REQUEST_CLASSES))):
            value = facts.get(fact)
            if isinstance(value, str) and value not in known:
                problems.append(f"price {number}.{fact}: there is no {fact} {value!r}; there are {', '.join(known)}")
    return problems


@lru_cache(maxsize=1)
def list_prices() -> tuple[Price, ...]:
    """The list prices that the sources name, each with its date."""
    try:
        return read_prices((files("prefect_happyhorse.catalog") / "data" / "prices.toml").read_text(encoding="utf-8"))
    except ValueError as error:
        raise CatalogError(f"The catalog's list prices cannot be used. {error}") from error


def estimate(request: GenerationRequest, gateway: str | None = None, prices: Sequence[Price] = ()) -> Estimate:
    """What a request should cost. An unknown price is not zero.

    Args:
        request: What is to be made.
        gateway: Id of the gateway that is to make it; None for the list price of the model's own provider. No source names a gateway's
            prices, so with a gateway there is an estimate only by `prices`.
        prices: Rows of a price list of your own; they come before those of the catalog.

    Returns:
        The estimate, or why there is none.

    Raises:
        ValueError: When two rows of `prices` that fit equally well name different prices.
        InvalidRequest: When the gateway has no such route.
        CatalogError: When there is no such gateway, or two rows of the catalog's own contradict each other.

    Example:
        >>> from prefect_happyhorse.domain.requests import ReferenceToVideo
        >>> ride = ReferenceToVideo(
        ...     model="happyhorse-1.1-r2v", prompt="@1 runs", references=["https://example.com/a.png"], resolution="720p", duration=5
        ... )
        >>> print(estimate(ride))
        4.5 CNY (5 s at 0.9 CNY by the original provider's list of 2026-08-01)
        >>> print(estimate(ride, "ttapi"))
        unknown (no price of happyhorse-1.1-r2v at ttapi is known)
    """
    route = None if gateway is None else resolve(request, gateway)
    resolution = _resolution(request, route)
    at_that = ""
    for rows, wrong in ((prices, ValueError), (list_prices() if gateway is None else (), CatalogError)):
        fitting = [row for row in rows if row.fits(model=request.model, gateway=gateway, capability=request.capability)]
        possible = [resolution] if resolution is not None else [None, *sorted({row.resolution for row in fitting if row.resolution})]
        best = [_narrowest(fitting, one, request.model, wrong) for one in possible]
        if len({row and row.terms for row in best}) > 1:
            named = ", ".join(filter(None, possible))
            return Estimate(reason=f"the price depends on the resolution ({named}), which the request leaves open")
        if best[0] is not None:
            return _computed(best[0], request, route)
        if fitting:
            at_that = f" at {resolution}"
    where = "" if gateway is None else f" at {gateway}"
    return Estimate(reason=f"no price of {request.model}{at_that}{where} is known")


def _narrowest(rows: Sequence[Price], resolution: str | None, model: str, wrong: type[Exception]) -> Price | None:
    fitting = [row for row in rows if row.resolution in {None, resolution}]
    if not fitting:
        return None
    best = max(row.exactness for row in fitting)
    row, *others = [row for row in fitting if row.exactness == best]
    for other in others:
        if other.terms != row.terms:
            raise wrong(f"Two prices fit {model} equally well: {_shown(row)} and {_shown(other)}. Narrow one of them, or leave it out.")
    return row


def _shown(row: Price) -> str:
    facts = " ".join(fact for fact in (row.model, row.gateway, row.capability, row.resolution) if fact)
    return f"{row.amount:f} {row.currency} per {row.per} for {facts} ({row.source}, {row.dated})"


def _computed(row: Price, request: GenerationRequest, route: Route | None) -> Estimate:
    n: int | None = getattr(request, "n", None)
    outputs = 1 if n is None else n
    if outputs < 1:
        return Estimate(reason=f"n={n!r} makes no output, which has no price")
    price = f"{row.amount:f} {row.currency}"
    if row.per == "job":
        return _estimate(row, row.amount, f"{price} a job")
    if row.per == "output":
        return _estimate(row, EXACT.multiply(row.amount, outputs), f"{outputs} at {price}")
    seconds = _seconds(request, route)
    if seconds is None:
        return Estimate(reason="it is paid for by the second, and how long it gets is not known")
    if seconds <= 0:
        return Estimate(reason=f"it is paid for by the second, and {seconds} s is no length")
    times = "" if outputs == 1 else f"{outputs} times "
    return _estimate(row, EXACT.multiply(EXACT.multiply(row.amount, seconds), outputs), f"{times}{seconds} s at {price}")


def _estimate(row: Price, amount: Decimal, how: str) -> Estimate:
    reason = f"{how} by {row.source} of {row.dated}"
    return Estimate(amount=amount, currency=row.currency, reason=reason, dated=row.dated, source=row.source)


def _fields(route: Route | None, name: str) -> list[WireField]:
    """The fields of a route's body that a field of the request goes into."""
    return [] if route is None else [field for field in route.fields if name in field.source]


def _resolution(request: GenerationRequest, route: Route | None) -> str | None:
    resolution: str | None = getattr(request, "resolution", None)
    if resolution is not None:
        return resolution.lower()
    for field in _fields(route, "resolution"):
        # A route whose model is its resolution takes only that one.
        assumed = field.default if field.default is not None else field.values[0] if len(field.values) == 1 else None
        if assumed is not None:
            return str(assumed).lower()
    return None


def _seconds(request: GenerationRequest, route: Route | None) -> Decimal | None:
    duration: float | None = getattr(request, "duration", None)
    if duration is not None:
        return Decimal(str(duration))
    if request.capability == "video_edit":
        return _edited_seconds(request, route)
    for field in _fields(route, "duration"):
        if field.default is not None:
            return Decimal(str(field.default))
    return None


def _edited_seconds(request: GenerationRequest, route: Route | None) -> Decimal | None:
    """An edit is as long as what it edits, of which no more is edited than the model's longest output (happyhorse.pics and UniAll)."""
    video: Any = getattr(request, "video", None)
    length_s = video.duration_s if isinstance(video, MediaAsset) else None
    if length_s is None or not 0 < length_s < math.inf:
        return None
    same = [route] if route is not None else [r for r in routes() if (r.capability, r.model) == (request.capability, request.model)]
    longest = [field.maximum for one in same for field in _fields(one, "duration") if field.maximum is not None]
    return Decimal(math.ceil(min([length_s, *longest])))
