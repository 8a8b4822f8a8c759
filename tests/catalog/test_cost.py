"""What a request should cost: by a price list, exactly; and where nobody says, unknown."""

from __future__ import annotations

import math
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_happyhorse.catalog import GATEWAYS, cost, estimate, list_prices, read_prices
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.errors import CatalogError, InvalidRequest
from prefect_happyhorse.domain.prices import Price
from prefect_happyhorse.domain.requests import (
    GenerationRequest,
    MultimodalToVideo,
    ReferenceToImage,
    ReferenceToVideo,
    TextToImage,
    TextToVideo,
    VideoEdit,
    parse_request,
)

from .vectors import VECTORS

HORSE = TextToImage(model="gpt-image-2", prompt="A white horse")


def ride(model: str = "happyhorse-1.1-r2v", **more: Any) -> ReferenceToVideo:
    facts = {"model": model, "prompt": "It runs", "references": ["https://example.com/a.png"]} | more
    return ReferenceToVideo.model_validate(facts)


def row(**facts: Any) -> Price:
    return Price.model_validate({"model": "*", "per": "second", "amount": "0.5", "currency": "USD", "dated": date(2026, 11, 1)} | facts)


@pytest.mark.parametrize(
    ("model", "resolution", "amount"),
    [
        ("happyhorse-1.1-r2v", "720p", "4.5"),
        ("happyhorse-1.1-r2v", "1080p", "6.0"),
        ("happyhorse-1.0-r2v", "720p", "4.5"),
        ("happyhorse-1.0-r2v", "1080p", "8.0"),
    ],
)
def test_the_list_prices_of_the_maker(model: str, resolution: str, amount: str) -> None:
    """Five seconds of each, with the date of the list; a reseller's contract it is not, and that is said."""
    found = estimate(ride(model, resolution=resolution, duration=5))
    assert (found.amount, found.currency, found.basis) == (Decimal(amount), "CNY", "maker")
    assert (found.dated, found.source) == (date(2026, 11, 24), "the maker's list")
    resold = estimate(ride(model, resolution=resolution, duration=5), "ttapi")
    assert (resold.amount, resold.basis) == (found.amount, "maker")
    assert str(resold).endswith("by the maker's list of 2026-11-24, not your contract)")


@pytest.mark.parametrize(
    ("request_", "region", "amount"),
    [
        (ride("happyhorse-1.1-r2v", resolution="480p", duration=10), "singapore", "5.245940"),
        (ride("happyhorse-1.1-r2v", resolution="480p", duration=10), "frankfurt", "4.5"),
        (ride("happyhorse-1.1-r2v", duration=5), None, "6.0"),
        (TextToImage(model="wan2.6-t2i", prompt="A horse"), None, "0.80"),
        (TextToImage(model="wan2.7-image", prompt="A horse", n=3), "singapore", "0.674478"),
        (TextToImage(model="qwen-image-3.0", prompt="A horse"), None, None),
        (ReferenceToImage(model="qwen-image-3.0", prompt="A horse", references=["https://example.com/a.png"] * 2), "tokyo", "0.22"),
    ],
)
def test_the_makers_own_prices_differ_by_region(request_: GenerationRequest, region: str | None, amount: str | None) -> None:
    """The default is Beijing; four pictures are made where the request does not say how many, and input pictures may cost."""
    found = estimate(request_, "dashscope", region=region)
    assert found.amount == (None if amount is None else Decimal(amount)), found
    # The maker's list is its own.
    assert found.basis == (None if amount is None else "gateway")


@pytest.mark.parametrize(("length_s", "amount", "at_most"), [(4.2, "9.0", False), (40.0, "27.0", False), (None, "27.0", True)])
def test_an_edit_pays_for_what_goes_in_and_what_comes_out(length_s: float | None, amount: str, at_most: bool) -> None:
    """Fifteen seconds of each at most; where nobody knows the length, that is what it can cost."""
    video = MediaAsset(kind="video", uri="memory://a.mp4", media_type="video/mp4", bytes=1, sha256="00", duration_s=length_s)
    edit = VideoEdit(model="happyhorse-1.0-video-edit", prompt="Snow", video=video, resolution="720p")
    found = estimate(edit, "dashscope")
    assert (found.amount, found.at_most) == (Decimal(amount), at_most)
    assert str(found).startswith("at most 27") == at_most


def test_reference_videos_count_with_five_seconds_at_most() -> None:
    """Wan's references to video: what comes out, and what goes in."""
    video = MediaAsset(kind="video", uri="memory://a.mp4", media_type="video/mp4", bytes=1, sha256="00", duration_s=9.0)
    asked = MultimodalToVideo(model="wan2.7-r2v", prompt="It runs", reference_videos=[video], resolution="720p", duration=10)
    assert estimate(asked, "dashscope").amount == Decimal("9.0")
    # Without a cap nobody knows how much of a video given by its address there is.
    unknown = asked.model_copy(update={"reference_videos": ("https://example.com/a.mp4",)})
    assert estimate(unknown, "dashscope").at_most
    assert "how long it gets is not known" in estimate(unknown, "dashscope", [row(seconds="input+output")]).reason


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: f"{v['gateway']}-{v['capability']}-{v['model']}")
def test_no_reseller_has_a_price_that_nobody_named(vector: dict[str, Any]) -> None:
    """What is known is its maker's, and says so; with a row of one's own every route has a price."""
    request: GenerationRequest = parse_request(vector["request"])
    found = estimate(request, vector["gateway"])
    assert found.basis == ("maker" if found.known else None)
    assert found.known or vector["model"] in found.reason or "not known" in found.reason or "leaves open" in found.reason
    own = estimate(request, vector["gateway"], [row(per="job", amount="0.25")])
    assert (own.amount, own.currency) == (Decimal("0.25"), "USD")


def test_what_is_left_open_is_told() -> None:
    """Without a resolution or a length there is no figure, and the reason says which is missing."""
    assert "resolution (1080p, 480p, 720p)" in estimate(ride(duration=5)).reason
    assert "how long" in estimate(ride(resolution="720p")).reason
    assert "at 4k" in estimate(ride(resolution="4k", duration=5)).reason
    assert estimate(HORSE).reason == "no price of gpt-image-2 is known"
    of_the_gateway = [row(resolution="480p", gateway="ttapi")]
    asked = ride(duration=5, resolution="1080p")
    # A row of one's own for another resolution does not hide the maker's.
    assert estimate(asked, "ttapi", of_the_gateway).basis == "maker"
    unlisted = asked.model_copy(update={"resolution": "4k"})
    assert estimate(unlisted, "ttapi", of_the_gateway).reason == "no price of happyhorse-1.1-r2v at 4k at ttapi is known"


@pytest.mark.parametrize("nothing", [{"n": 0}, {"n": -1}, {"duration": 0, "n": None}, {"duration": -5, "n": None}], ids=str)
def test_nothing_has_no_price(nothing: dict[str, Any]) -> None:
    """No outputs and no seconds are never a price of zero, nor an error: the check says what is wrong with them."""
    found = estimate(HORSE.model_copy(update=nothing), prices=[row(per="output" if nothing["n"] is not None else "second")])
    assert not found.known
    assert "no output" in found.reason or "no length" in found.reason


def test_an_open_resolution_matters_only_where_prices_differ() -> None:
    """Where every resolution costs the same, or a narrower row holds for all, the price is known."""
    same = [row(), row(resolution="720p"), row(resolution="1080p")]
    assert estimate(ride(duration=5), prices=same).amount == Decimal("2.5")
    assert estimate(ride(duration=5), prices=[row(), row(model="happyhorse-1.1-r2v", amount="1", resolution="720p")]).amount is None
    narrower = [row(model="happyhorse-1.1-r2v", amount="0.7"), row(model="happyhorse-1.1-*", resolution="720p")]
    assert estimate(ride(duration=5), prices=narrower).amount == Decimal("3.5")


def test_what_the_route_assumes_is_counted() -> None:
    """A length or resolution that the request leaves to the provider is the documented one."""
    rows = [row(resolution="1080p"), row(resolution="720p", amount="0.1")]
    assert estimate(TextToVideo(model="happyhorse-1.0-t2v", prompt="It runs"), "happyhorse", rows).amount == Decimal("2.5")
    assert "leaves open" in estimate(ride("happyhorse-1.0-r2v", duration=5), "chanjing", rows).reason
    fixed = TextToVideo(model="happy-horse-1080p", prompt="It runs", aspect_ratio="16:9", duration=4)
    assert estimate(fixed, "uniall", rows).amount == Decimal("2.0")
    assert "how long" in estimate(fixed.model_copy(update={"duration": None}), "uniall", rows).reason


@pytest.mark.parametrize(("length_s", "amount"), [(4.2, "2.5"), (40.0, "7.5"), (None, None)])
def test_an_edit_is_as_long_as_what_it_edits(length_s: float | None, amount: str | None) -> None:
    """Full seconds, of which at most fifteen are edited; of a video that was never measured nobody knows."""
    video = MediaAsset(kind="video", uri="memory://a.mp4", media_type="video/mp4", bytes=1, sha256="00", duration_s=length_s)
    edit = VideoEdit(model="happyhorse-1.0-video-edit", prompt="Snow", video=video)
    assert estimate(edit, "happyhorse", [row()]).amount == (None if amount is None else Decimal(amount))
    assert estimate(edit.model_copy(update={"video": "https://example.com/a.mp4"}), "happyhorse", [row()]).amount is None
    assert estimate(edit, prices=[row()]).amount == (None if amount is None else Decimal(amount))


@pytest.mark.parametrize("length_s", [0.0, -1.0, math.inf, math.nan])
def test_a_length_that_cannot_be_has_no_price(length_s: float) -> None:
    """An asset may come from anywhere."""
    video = MediaAsset(kind="video", uri="memory://a.mp4", media_type="video/mp4", bytes=1, sha256="00", duration_s=length_s)
    edit = VideoEdit(model="happyhorse-1.0-video-edit", prompt="Snow", video=video)
    assert not estimate(edit, "happyhorse", [row()]).known


def test_an_edit_whose_limit_nobody_names_has_none() -> None:
    """Fifteen seconds hold for the models whose documents say so; another's edit is priced at its full length."""
    video = MediaAsset(kind="video", uri="memory://a.mp4", media_type="video/mp4", bytes=1, sha256="00", duration_s=40.0)
    edit = VideoEdit(model="wan2.7-videoedit", prompt="Snow", video=video)
    assert estimate(edit, "happyhorse", [row()]).amount == Decimal(20)
    asked = VideoEdit(model="happy-horse-edit-720p", prompt="Snow", video=video, duration=4)
    assert estimate(asked, "uniall", [row()]).amount == Decimal(2)


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
    only_720p = [row(resolution="720p")]
    assert estimate(ride(duration=5, resolution="720p"), prices=only_720p).currency == "USD"
    assert estimate(ride(duration=5, resolution="1080P"), prices=only_720p).currency == "CNY"


def test_rows_that_disagree_are_refused() -> None:
    """Two prices for the same are no price; saying the same twice is harmless."""
    with pytest.raises(ValueError, match=r"equally well: 0.5 USD per second for \* \(your .* and 0.6 USD"):
        estimate(ride(duration=5), prices=[row(), row(amount="0.6")])
    assert estimate(ride(duration=5), prices=[row(), row()]).amount == Decimal("2.5")


def test_the_catalogs_own_mistakes_are_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither a contradiction nor a broken list in the data is blamed on the user's prices."""
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "prices.toml"
    monkeypatch.setattr(cost, "files", lambda package: tmp_path)
    entry = '[[price]]\nmodel = "*"\nper = "job"\ncurrency = "CNY"\ndated = 2026-08-01\namount = '
    for text, told in ((f"{entry}1\n{entry}2\n", "equally well"), ("[[price]]", "cannot be used.*price 0.model")):
        file.write_text(text, encoding="utf-8")
        cost.list_prices.cache_clear()
        with pytest.raises(CatalogError, match=rf"(?s){told}"):
            estimate(HORSE)
    cost.list_prices.cache_clear()


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
        ("prices = 3", "must hold .*alone .got prices"),
        ('[[price]]\nmodel = "m"\n[[price]]\nper = "hour"', r"price 0.per.*price 1.model"),
        (
            '[[price]]\ngateway = "tapi"\n[[price]]\ncapability = "video"',
            r"no gateway 'tapi'; there are chanjing, .*no capability 'video'.*0.model",
        ),
        ("price = 3", "price list is wrong"),
        ("price = [3]", "price 0"),
        ("price = [{gateway = 3}]", "price 0.gateway"),
    ],
)
def test_a_wrong_price_list_is_told(text: str, told: str) -> None:
    """Every problem of every row."""
    with pytest.raises(ValueError, match=rf"(?s){told}"):
        read_prices(text)
    assert read_prices("") == ()
