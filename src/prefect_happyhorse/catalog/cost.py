"""What a request should cost: by a price list of the user's own, else by what a source says, else unknown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from importlib.resources import files
from typing import cast

from pydantic import TypeAdapter, ValidationError

from prefect_happyhorse.catalog.fields import WireField
from prefect_happyhorse.catalog.loader import GATEWAYS, resolve, routes, tomllib
from prefect_happyhorse.catalog.routes import Route
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.errors import CatalogError
from prefect_happyhorse.domain.prices import EXACT, Basis, Estimate, Price
from prefect_happyhorse.domain.requests import REQUEST_CLASSES, GenerationRequest, VideoEdit, iter_media

__all__ = ["estimate", "list_prices", "price_of", "read_prices"]

_PICTURES = frozenset({"image", "references", "first_frame", "last_frame"})
_VIDEOS = frozenset({"video", "clip", "reference_videos"})
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
    """The list prices of gateways and makers that the sources name, each with its date."""
    try:
        return read_prices((files("prefect_happyhorse.catalog") / "data" / "prices.toml").read_text(encoding="utf-8"))
    except ValueError as error:
        raise CatalogError(f"The catalog's list prices cannot be used. {error}") from error


def estimate(
    request: GenerationRequest, gateway: str | None = None, prices: Sequence[Price] = (), *, region: str | None = None
) -> Estimate:
    """What a request should cost. An unknown price is not zero.

    Args:
        request: What is to be made.
        gateway: Id of the gateway that is to make it; None for the list of the model's own maker. Where neither you nor the gateway
            names a price, the maker's stands in, and the estimate says so: a reseller asks what it likes.
        prices: Rows of a price list of your own; they come before those of the catalog.
        region: The gateway's region, where it has any; None for that of its default address.

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
        4.5 CNY (5 s at 0.9 CNY by the maker's list of 2026-11-24)
        >>> print(estimate(ride, "ttapi"))
        4.5 CNY (5 s at 0.9 CNY by the maker's list of 2026-11-24, not your contract)
    """
    route = None if gateway is None else resolve(request, gateway)
    if route is not None:
        region = region or route.facts.region_of(route.facts.base_url)
    resolution = _resolution(request, route)
    at_that = ""
    for rows, wrong in ((prices, ValueError), (list_prices(), CatalogError)):
        fitting = [row for row in rows if row.fits(model=request.model, gateway=gateway, capability=request.capability, region=region)]
        possible = [resolution] if resolution is not None else [None, *sorted({row.resolution for row in fitting if row.resolution})]
        best = [_narrowest(fitting, one, request.model, wrong) for one in possible]
        if len({row and row.terms for row in best}) > 1:
            named = ", ".join(filter(None, possible))
            return Estimate(reason=f"the price depends on the resolution ({named}), which the request leaves open")
        if best[0] is not None:
            is_foreign = best[0].gateway is None and (route is None or not route.facts.is_maker)
            basis: Basis = "yours" if rows is prices else "maker" if is_foreign else "gateway"
            return _computed(best[0], request, route, basis)
        if fitting:
            at_that = f" at {resolution}"
    where = "" if gateway is None else f" at {gateway}"
    return Estimate(reason=f"no price of {request.model}{at_that}{where} is known")


def price_of(route: Route, prices: Sequence[Price] = (), *, region: str | None = None) -> list[Price]:
    """The rows by which a route is priced, one for each resolution that has a price of its own; none when nobody names any.

    Example:
        >>> from prefect_happyhorse.catalog import find_route
        >>> [str(row) for row in price_of(find_route("ttapi", "reference_to_video", "happyhorse-1.1-r2v"))]
        ['1.2 CNY per second', '0.9 CNY per second']
    """
    region = region or route.facts.region_of(route.facts.base_url)
    taken = {str(value).lower() for field in _fields(route, "resolution") for value in field.values}
    for rows, wrong in ((prices, ValueError), (list_prices(), CatalogError)):
        fitting = [row for row in rows if row.fits(model=route.model, gateway=route.gateway, capability=route.capability, region=region)]
        resolutions = sorted({row.resolution for row in fitting if row.resolution and (not taken or row.resolution in taken)})
        if best := [row for one in resolutions or [None] if (row := _narrowest(fitting, one, route.model, wrong)) is not None]:
            return best
    return []


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
    facts = " ".join(fact for fact in (row.model, row.gateway, row.region, row.capability, row.resolution) if fact)
    return f"{row} for {facts} ({row.source}, {row.dated})"


def _computed(row: Price, request: GenerationRequest, route: Route | None, basis: Basis) -> Estimate:
    n: int | None = getattr(request, "n", None)
    assumed = next((field.default for field in _fields(route, "n") if isinstance(field.default, int)), 1)
    outputs = assumed if n is None else n
    if outputs < 1:
        return Estimate(reason=f"n={n!r} makes no output, which has no price")
    price = f"{row.amount:f} {row.currency}"
    at_most = False
    if row.per == "job":
        amount, how = row.amount, f"{price} a job"
    elif row.per == "output":
        amount, how = EXACT.multiply(row.amount, outputs), f"{outputs} at {price}"
    else:
        length = _seconds(request, route, row)
        if length is None:
            return Estimate(reason="it is paid for by the second, and how long it gets is not known")
        seconds, at_most = length
        if seconds <= 0:
            return Estimate(reason=f"it is paid for by the second, and {seconds} s is no length")
        times = "" if outputs == 1 else f"{outputs} times "
        counted = "" if row.seconds == "output" else " of input and output"
        amount = EXACT.multiply(EXACT.multiply(row.amount, seconds), outputs)
        how = f"{times}{seconds} s{counted} at {price}"
    pictures = sum(1 for name, _, _ in iter_media(request) if name in _PICTURES)
    if row.per_input is not None and pictures:
        amount = EXACT.add(amount, EXACT.multiply(row.per_input, pictures))
        how += f" and {pictures} input pictures at {row.per_input:f} {row.currency}"
    caveat = ", not your contract" if basis == "maker" and route is not None else ""
    return Estimate(
        amount=amount,
        currency=row.currency,
        reason=f"{how} by {row.source} of {row.dated}{caveat}",
        dated=row.dated,
        source=row.source,
        basis=basis,
        per_second=row.amount if row.per == "second" else None,
        at_most=at_most,
    )


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


def _seconds(request: GenerationRequest, route: Route | None, row: Price) -> tuple[Decimal, bool] | None:
    """The seconds that are paid for, and whether they are the most that they can be; None when nobody knows."""
    made = _made_seconds(request, route, row)
    if made is None or row.seconds == "output":
        return made
    fed = [_input_seconds(medium, row) for name, _, medium in iter_media(request) if name in _VIDEOS]
    known = [one for one in fed if one is not None]
    if len(known) < len(fed):
        return None
    return sum((seconds for seconds, _ in known), made[0]), made[1] or any(most for _, most in known)


def _made_seconds(request: GenerationRequest, route: Route | None, row: Price) -> tuple[Decimal, bool] | None:
    duration: float | None = getattr(request, "duration", None)
    if duration is not None:
        return Decimal(str(duration)), False
    if isinstance(request, VideoEdit):
        # An edit is as long as what it edits, of which no more is edited than the model's longest output.
        same = [route] if route is not None else [r for r in routes() if (r.capability, r.model) == (request.capability, request.model)]
        longest = [int(field.maximum) for one in same for field in _fields(one, "duration") if field.maximum is not None]
        return _input_seconds(request.video, row, longest)
    for field in _fields(route, "duration"):
        if field.default is not None:
            return Decimal(str(field.default)), False
    return None


def _input_seconds(medium: MediaAsset | str, row: Price, longest: Sequence[int] = ()) -> tuple[Decimal, bool] | None:
    """How much of a video is counted, in whole seconds; where its length is not known, the most that can be."""
    most = [*longest, *([] if row.input_at_most_s is None else [row.input_at_most_s])]
    length_s = medium.duration_s if isinstance(medium, MediaAsset) else None
    if length_s is not None and 0 < length_s < math.inf:
        return Decimal(math.ceil(min([length_s, *most]))), False
    return (Decimal(row.input_at_most_s), True) if row.input_at_most_s is not None else None
