"""Money is counted exactly, and no price is never a price of zero."""

from __future__ import annotations

from datetime import date
from decimal import Context, Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from prefect_happyhorse.domain.prices import Estimate, Price, total

AMOUNTS = st.decimals(min_value=0, max_value=100_000, places=4, allow_nan=False, allow_infinity=False)


def price(**facts: Any) -> Price:
    return Price.model_validate({"model": "m", "per": "output", "amount": "1", "currency": "CNY", "dated": date(2026, 11, 1)} | facts)


@given(st.lists(AMOUNTS, max_size=30))
def test_sums_are_exact(amounts: list[Decimal]) -> None:
    """No rounding, however many are added, and through JSON as well."""
    estimates = [Estimate(amount=amount, currency="CNY", reason="") for amount in amounts]
    back = [Estimate.model_validate_json(one.model_dump_json()) for one in estimates]
    assert back == estimates
    expected = f"{sum(amounts, Decimal(0)):f} CNY" if amounts else "nothing"
    assert total(back) == expected


@given(st.lists(AMOUNTS, min_size=2, max_size=10))
def test_nobody_elses_precision_rounds_money(amounts: list[Decimal]) -> None:
    """A process that reckons its own decimals with two digits changes no sum."""
    exactly = total(Estimate(amount=amount, currency="CNY", reason="") for amount in amounts)
    with localcontext(Context(prec=2)):
        assert total(Estimate(amount=amount, currency="CNY", reason="") for amount in amounts) == exactly


def test_money_is_written_out() -> None:
    """A thousand is no power of ten."""
    assert str(Estimate(amount=Decimal("1E+3"), currency="CNY", reason="much")) == "1000 CNY (much)"
    assert total([Estimate(amount=Decimal("1E+3"), currency="CNY", reason="")]) == "1000 CNY"


def test_an_estimate_is_whole() -> None:
    """No amount without a currency, no currency without an amount; what it rests on goes through JSON as well."""
    for half in ({"amount": "1"}, {"currency": "CNY"}):
        with pytest.raises(ValidationError, match="go together"):
            Estimate.model_validate({"reason": ""} | half)
    whole = Estimate(amount=Decimal("4.50"), currency="CNY", reason="5 s", dated=date(2026, 8, 1), source="a list")
    written = whole.model_dump_json()
    assert '"amount":"4.50"' in written
    assert str(Estimate.model_validate_json(written).amount) == "4.50"
    assert Estimate.model_validate_json(written) == whole


def test_what_is_unknown_is_counted_and_never_zero() -> None:
    """Unknown ones stand beside the sum of each currency."""
    known = [Estimate(amount=Decimal(2), currency=currency, reason="") for currency in ("CNY", "USD", "CNY")]
    unknown = Estimate(reason="nobody says")
    assert total([*known, unknown, None]) == "4 CNY and 2 USD and 2 of unknown price"
    assert total([unknown]) == "1 of unknown price"
    assert (unknown.known, str(unknown)) == (False, "unknown (nobody says)")
    assert known[0].known


def test_a_float_is_taken_by_its_digits() -> None:
    """0.1 is a tenth."""
    assert price(amount=0.1).amount == Decimal("0.1")


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount": "-1"},
        {"amount": "NaN"},
        {"amount": "Infinity"},
        {"amount": "0.123456789"},
        {"amount": "1e18"},
        {"currency": "yuan"},
        {"per": "minute"},
        {"discount": "1"},
        {"model": ""},
        {"model": "happyhorse-*-r2v"},
    ],
)
def test_a_wrong_row_is_refused(wrong: dict[str, Any]) -> None:
    """Below nothing, no number, endless digits, no currency, no unit, a field that there is not, or a star that means nothing."""
    with pytest.raises(ValidationError):
        price(**wrong)


def test_a_row_fits_what_it_is_about() -> None:
    """Model by name or by how it begins; gateway and capability where the row says any."""
    about = {"model": "wan2.7-t2v", "gateway": "happyhorse", "capability": "text_to_video"}
    for fitting in ({"model": "wan2.7-t2v"}, {"model": "wan2.7-*"}, {"model": "*"}, about):
        assert price(**fitting).fits(**about)
    for other in ({"model": "wan2.7"}, {"model": "kling*"}, about | {"gateway": "ttapi"}, about | {"capability": "video_edit"}):
        assert not price(**other).fits(**about)
    assert not price(**about).fits(model="wan2.7-t2v", gateway=None, capability="text_to_video")


def test_narrower_rows_are_more_exact() -> None:
    """A name beats a beginning, a longer beginning a shorter, and each further fact counts."""
    rows = [price(model="*"), price(model="m*"), price(), price(resolution="720P"), price(resolution="720p", gateway="ttapi")]
    assert sorted(rows, key=lambda row: row.exactness) == rows
    assert rows[3].resolution == "720p"
