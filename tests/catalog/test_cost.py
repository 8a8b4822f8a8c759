"""What a request should cost: by a price list, exactly; and where nobody says, unknown."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_happyhorse.catalog import GATEWAYS, estimate, list_prices, read_prices
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.errors import InvalidRequest
from prefect_happyhorse.domain.prices import Price
from prefect_happyhorse.domain.requests import GenerationRequest, ReferenceToVideo, TextToImage, TextToVideo, VideoEdit, parse_request

from .vectors import VECTORS

HORSE = TextToImage(model="gpt-image-2", prompt="A white horse")


def ride(model: str = "happyhorse-1.1-r2v", **more: Any) -> ReferenceToVideo:
    facts = {"model": model, "prompt": "It runs", "references": ["https://example.com/a.png"]} | more
    return ReferenceToVideo.model_validate(facts)


def row(**facts: Any) -> Price:
    return Price.model_validate({"model": "*", "per": "second", "amount": "0.5", "currency": "USD", "dated": date(2026, 11, 1)} | facts)


@pytest.mark.parametrize(
    ("model", "resolution", "cost"),
    [
        ("happyhorse-1.1-r2v", "720p", "4.5"),
        ("happyhorse-1.1-r2v", "1080p", "6.0"),
        ("happyhorse-1.0-r2v", "720p", "4.5"),
        ("happyhorse-1.0-r2v", "1080p", "8.0"),
    ],
)
def test_the_list_prices_of_the_original_provider(model: str, resolution: str, cost: str) -> None:
    """Five seconds of each, with the date of the list."""
    found = estimate(ride(model, resolution=resolution, duration=5))
    assert (found.amount, found.currency) == (Decimal(cost), "CNY")
    assert "2026-08-01" in found.reason


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: f"{v['gateway']}-{v['capability']}-{v['model']}")
def test_no_gateway_has_a_price_that_nobody_named(vector: dict[str, Any]) -> None:
    """Of all 65 routes none has a price in the sources, and each says so; with a row of one's own every one has."""
    request: GenerationRequest = parse_request(vector["request"])
    found = estimate(request, vector["gateway"])
    assert (found.amount, found.currency) == (None, None)
    assert vector["model"] in found.reason
    own = estimate(request, vector["gateway"], [row(per="job", amount="0.25")])
    assert (own.amount, own.currency) == (Decimal("0.25"), "USD")


def test_what_is_left_open_is_told() -> None:
    """Without a resolution or a length there is no figure, and the reason says which is missing."""
    assert "resolution (1080p, 720p)" in estimate(ride(duration=5)).reason
    assert "how long" in estimate(ride(resolution="720p")).reason
    assert "at 4k" in estimate(ride(resolution="4k", duration=5)).reason
    assert estimate(HORSE).reason == "no price of gpt-image-2 is known"


def test_what_the_route_assumes_is_counted() -> None:
    """A length or resolution that the request leaves to the provider is the documented one."""
    rows = [row(resolution="1080p"), row(resolution="720p", amount="0.1")]
    assert estimate(TextToVideo(model="happyhorse-1.0-t2v", prompt="It runs"), "happyhorse", rows).amount == Decimal("2.5")
    fixed = TextToVideo(model="happy-horse-1080p", prompt="It runs", aspect_ratio="16:9", duration=4)
    assert estimate(fixed, "uniall", rows).amount == Decimal("2.0")


@pytest.mark.parametrize(("length_s", "cost"), [(4.2, "2.5"), (40.0, "7.5"), (None, None)])
def test_an_edit_is_as_long_as_what_it_edits(length_s: float | None, cost: str | None) -> None:
    """Full seconds, of which at most fifteen are edited; of a video that was never measured nobody knows."""
    video = MediaAsset(kind="video", uri="memory://a.mp4", media_type="video/mp4", bytes=1, sha256="00", duration_s=length_s)
    edit = VideoEdit(model="happyhorse-1.0-video-edit", prompt="Snow", video=video)
    assert estimate(edit, "happyhorse", [row()]).amount == (None if cost is None else Decimal(cost))
    assert estimate(edit.model_copy(update={"video": "https://example.com/a.mp4"}), "happyhorse", [row()]).amount is None


@given(st.integers(1, 4), st.integers(3, 15), st.decimals(min_value=0, max_value=1000, places=3, allow_nan=False, allow_infinity=False))
def test_each_unit_is_multiplied_exactly(outputs: int, seconds: int, amount: Decimal) -> None:
    """By the second, by the output, or as a whole."""
    pictures = HORSE.model_copy(update={"n": outputs})
    video = ride(duration=seconds)
    assert estimate(pictures, prices=[row(per="output", amount=amount)]).amount == amount * outputs
    assert estimate(video, prices=[row(amount=amount)]).amount == amount * seconds
    assert estimate(pictures, prices=[row(per="job", amount=amount)]).amount == amount
    both = pictures.model_copy(update={"duration": seconds})
    assert estimate(both, prices=[row(amount=amount)]).amount == amount * seconds * outputs


def test_the_narrowest_row_counts_and_ones_own_come_first() -> None:
    """A row for the very model beats one for all; the catalog is asked only where one's own list is silent."""
    rows = [row(), row(model="happyhorse-1.1-r2v", amount="0.7"), row(model="kling*", amount="9")]
    assert estimate(ride(duration=10), prices=rows).amount == Decimal(7)
    assert estimate(ride(duration=5, resolution="720p"), prices=rows[2:]).currency == "CNY"


def test_rows_that_disagree_are_refused() -> None:
    """Two prices for the same are no price; saying the same twice is harmless."""
    with pytest.raises(ValueError, match=r"equally well: 0.5 USD .* and 0.6 USD"):
        estimate(ride(duration=5), prices=[row(), row(amount="0.6")])
    assert estimate(ride(duration=5), prices=[row(), row()]).amount == Decimal("2.5")


def test_a_route_that_is_not_there_has_no_price() -> None:
    """It is refused with what there is."""
    with pytest.raises(InvalidRequest):
        estimate(HORSE, "ttapi")


def test_every_list_price_names_its_source() -> None:
    """Dated, and of a model that the catalog has."""
    from prefect_happyhorse.catalog import routes

    models = {route.model for gateway in GATEWAYS for route in routes(gateway)}
    for price in list_prices():
        assert price.source != "your price list"
        assert any(model.startswith(price.model.rstrip("*")) for model in models)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[price]", "no TOML"),
        ("prices = 3", "prices; allowed is"),
        ('[[price]]\nmodel = "m"\n[[price]]\nper = "hour"', r"price 0.per.*price 1.model"),
    ],
)
def test_a_wrong_price_list_is_told(text: str, told: str) -> None:
    """Every problem of every row."""
    with pytest.raises(ValueError, match=rf"(?s){told}"):
        read_prices(text)
    assert read_prices("") == ()
