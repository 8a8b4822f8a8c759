"""What a request should cost: by a price list of the user's own, else by what a source says, else unknown."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import lru_cache
from importlib.resources import files
from typing import Any

from pydantic import TypeAdapter, ValidationError

from prefect_happyhorse.catalog.loader import resolve
from prefect_happyhorse.catalog.routes import Route, WireField
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.prices import Estimate, Price
from prefect_happyhorse.domain.requests import GenerationRequest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["estimate", "list_prices", "read_prices"]

_EDITED_AT_MOST_S = 15
_PRICES = TypeAdapter(tuple[Price, ...])


def read_prices(text: str) -> tuple[Price, ...]:
    """A price list in TOML: a `[[price]]` for each row, with the fields of `Price`.

    Args:
        text: The price list.

    Returns:
        The rows.

    Raises:
        ValueError: When it is no such list; every problem is named.

    Example:
        >>> text = '''
        ... [[price]]
        ... model = "gpt-image-2"
        ... per = "output"
        ... amount = "0.25"
        ... currency = "CNY"
        ... dated = 2026-11-01
        ... '''
        >>> read_prices(text)[0].amount
        Decimal('0.25')
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"The price list is no TOML: {error}") from error
    if strange := sorted(set(data) - {"price"}):
        raise ValueError(f"The price list holds {', '.join(strange)}; allowed is [[price]] alone.")
    try:
        return _PRICES.validate_python(data.get("price", ()))
    except ValidationError as error:
        problems = "\n".join(f"  - price {'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False))
        raise ValueError(f"The price list is wrong:\n{problems}") from error


@lru_cache(maxsize=1)
def list_prices() -> tuple[Price, ...]:
    """The list prices that the sources name, each with its date.

    Example:
        >>> sorted({price.currency for price in list_prices()})
        ['CNY']
    """
    return read_prices((files("prefect_happyhorse.catalog") / "data" / "prices.toml").read_text(encoding="utf-8"))


def estimate(request: GenerationRequest, gateway: str | None = None, prices: Sequence[Price] = ()) -> Estimate:
    """What a request should cost. Where nobody says, the answer is "unknown", never zero.

    Args:
        request: What is wanted.
        gateway: Id of the gateway that is to make it; None for the list price of the model's own provider. No source names a gateway's
            prices, so with a gateway there is an estimate only by `prices`.
        prices: Rows of a price list of your own; they come before those of the catalog.

    Returns:
        The estimate, or why there is none.

    Raises:
        ValueError: When two rows that fit equally well name different prices.
        InvalidRequest: When the gateway has no such route.

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
    known = list_prices() if gateway is None else ()
    for rows in (prices, known):
        fitting = [row for row in rows if row.fits(model=request.model, gateway=gateway, capability=request.capability)]
        if fitting:
            return _by(fitting, request, route)
    where = "" if gateway is None else f" at {gateway}"
    return Estimate(reason=f"no price of {request.model}{where} is known")


def _by(rows: Sequence[Price], request: GenerationRequest, route: Route | None) -> Estimate:
    resolution = _resolution(request, route)
    if resolution is None and any(row.resolution for row in rows):
        named = ", ".join(sorted({row.resolution for row in rows if row.resolution}))
        return Estimate(reason=f"the price depends on the resolution ({named}), which the request leaves open")
    fitting = [row for row in rows if row.resolution in {None, resolution}]
    if not fitting:
        return Estimate(reason=f"no price of {request.model} at {resolution} is known")
    best = max(row.exactness for row in fitting)
    row, *others = [row for row in fitting if row.exactness == best]
    for other in others:
        if (other.amount, other.currency, other.per) != (row.amount, row.currency, row.per):
            raise ValueError(f"Two prices fit {request.model} equally well: {_told(row)} and {_told(other)}.")
    return _reckoned(row, request, route)


def _told(row: Price) -> str:
    return f"{row.amount} {row.currency} per {row.per} ({row.source}, {row.dated})"


def _reckoned(row: Price, request: GenerationRequest, route: Route | None) -> Estimate:
    outputs = getattr(request, "n", None) or 1
    by = f"by {row.source} of {row.dated}"
    if row.per == "job":
        return Estimate(amount=row.amount, currency=row.currency, reason=f"{row.amount} {row.currency} a job {by}")
    if row.per == "output":
        reason = f"{outputs} at {row.amount} {row.currency} {by}"
        return Estimate(amount=row.amount * outputs, currency=row.currency, reason=reason)
    seconds = _seconds(request, route)
    if seconds is None:
        return Estimate(reason="it is paid for by the second, and how long it gets is not known")
    times = "" if outputs == 1 else f"{outputs} times "
    reason = f"{times}{seconds} s at {row.amount} {row.currency} {by}"
    return Estimate(amount=row.amount * seconds * outputs, currency=row.currency, reason=reason)


def _resolution(request: GenerationRequest, route: Route | None) -> str | None:
    said: str | None = getattr(request, "resolution", None)
    if said is not None:
        return said.lower()
    fields = () if route is None else (field for field in route.fields if "resolution" in field.source)
    for field in fields:
        # A route whose model is its resolution takes only that one.
        assumed = field.default if field.default is not None else field.values[0] if len(field.values) == 1 else None
        if assumed is not None:
            return str(assumed).lower()
    return None


def _seconds(request: GenerationRequest, route: Route | None) -> Decimal | None:
    said: float | None = getattr(request, "duration", None)
    if said is not None:
        return Decimal(str(said))
    if request.capability == "video_edit":
        # An edit is as long as what it edits, of which at most the first 15 s are (happyhorse.pics and UniAll, video edit).
        video: Any = getattr(request, "video", None)
        length_s = video.duration_s if isinstance(video, MediaAsset) else None
        return None if length_s is None else Decimal(min(math.ceil(length_s), _EDITED_AT_MOST_S))
    return _assumed_seconds(() if route is None else route.fields)


def _assumed_seconds(fields: Iterable[WireField]) -> Decimal | None:
    for field in fields:
        if "duration" in field.source and field.default is not None:
            return Decimal(str(field.default))
    return None
