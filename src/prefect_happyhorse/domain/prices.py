"""What a job costs, as far as anybody says: rows of price lists, and what they make of a request. An unknown price is not zero."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from prefect_happyhorse.domain.values import Resolution, Value

__all__ = ["EXACT", "Amount", "Basis", "Currency", "Estimate", "Price", "total"]

EXACT = Context(prec=1000, traps=[Inexact, InvalidOperation, Overflow])
"""Adds and multiplies money without ever rounding it, whatever the process has set for its other decimals."""


def _by_its_digits(value: object) -> object:
    # 0.1 as a float is not a tenth, and money is counted exactly.
    return str(value) if isinstance(value, float) else value


Amount = Annotated[Decimal, BeforeValidator(_by_its_digits), Field(ge=0, allow_inf_nan=False)]
"""Money, of which there may be none but not less."""

Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
"""An ISO 4217 code, for example CNY."""

Unit = Literal["second", "output", "job"]
Basis = Literal["yours", "gateway", "maker"]
"""Whose list a price is of: your own, the gateway's, or that of the model's maker, which binds no gateway."""


class Price(Value):
    """One row of a price list.

    Example:
        >>> Price(model="happyhorse-1.1-*", resolution="720p", per="second", amount="0.9", currency="CNY", dated="2026-08-01")
        Price(model='happyhorse-1.1-*', gateway=None, region=None, capability=None, resolution='720p', per='second', ...
    """

    model: str = Field(min_length=1, description="The model; a * at the end stands for any rest.")
    gateway: str | None = Field(default=None, description="The gateway; empty for every gateway.")
    region: str | None = Field(default=None, description="The gateway's region; empty for every one.")
    capability: str | None = Field(default=None, description="The capability; empty for every one.")
    resolution: Resolution | None = Field(default=None, description="For example 720p; empty for every one.")
    per: Unit = Field(description="What is paid for: each second of video, each output, or the job as a whole.")
    amount: Amount = Field(max_digits=18, decimal_places=8, description="The price of one.")
    seconds: Literal["output", "input+output"] = Field(default="output", description="Which seconds are paid for.")
    input_at_most_s: int | None = Field(default=None, ge=1, description="How much of an input video is counted at most, in seconds.")
    per_input: Amount | None = Field(
        default=None, max_digits=18, decimal_places=8, description="What is paid for each input picture beside it."
    )
    currency: Currency = Field(description="ISO 4217 code, for example CNY.")
    dated: date = Field(description="When the price was read.")
    source: str = Field(default="your price list", description="Where the price stands.")

    @field_validator("model")
    @classmethod
    def _star_at_the_end(cls, value: str) -> str:
        if "*" in value[:-1]:
            raise ValueError("a * may only stand at the end")
        return value

    def fits(self, *, model: str, gateway: str | None, capability: str, region: str | None = None) -> bool:
        """Whether the row is about such a request, its resolution aside; no gateway stands for the model's own provider."""
        named = model.startswith(self.model[:-1]) if self.model.endswith("*") else model == self.model
        there = self.gateway in {None, gateway} and self.region in {None, region}
        return named and there and self.capability in {None, capability}

    @property
    def exactness(self) -> tuple[int, int]:
        """How narrowly the row is drawn, to choose among several that fit."""
        named = sum(fact is not None for fact in (self.gateway, self.region, self.capability, self.resolution))
        return (0 if self.model.endswith("*") else 1) + named, len(self.model)

    @property
    def terms(self) -> tuple[object, ...]:
        """What is paid for what: two rows with the same terms do not contradict each other."""
        return self.amount, self.currency, self.per, self.seconds, self.input_at_most_s, self.per_input

    def __str__(self) -> str:
        counted = "" if self.seconds == "output" else f" of {self.seconds.replace('+', ' and ')}"
        beside = "" if self.per_input is None else f", and {self.per_input:f} {self.currency} per input picture"
        return f"{self.amount:f} {self.currency} per {self.per}{counted}{beside}"


class Estimate(Value):
    """What a request should cost, or why nobody can say.

    Example:
        >>> print(Estimate(reason="happyhorse names no price for gpt-image-2"))
        unknown (happyhorse names no price for gpt-image-2)
        >>> print(Estimate(amount="4.50", currency="CNY", reason="5 s at 0.90 CNY, list price of 2026-08-01"))
        4.50 CNY (5 s at 0.90 CNY, list price of 2026-08-01)
    """

    amount: Annotated[Amount, Field(max_digits=900)] | None = Field(default=None, description="The cost; empty when it is unknown.")
    currency: Currency | None = Field(default=None, description="ISO 4217 code; empty when the cost is unknown.")
    reason: str = Field(description="How it was reckoned, or why it is unknown.")
    dated: date | None = Field(default=None, description="When the price was read that it rests on.")
    source: str | None = Field(default=None, description="Where that price stands.")
    basis: Basis | None = Field(default=None, description="Whose price it is; empty when the cost is unknown.")
    per_second: Amount | None = Field(default=None, description="The price of a second, where seconds are paid for.")
    at_most: bool = Field(default=False, description="Whether it is the most that it can cost, since a length is not known.")

    @model_validator(mode="after")
    def _whole(self) -> Estimate:
        if (self.amount is None) != (self.currency is None):
            raise ValueError("an amount and its currency go together")
        return self

    @property
    def known(self) -> bool:
        """Whether there is a figure."""
        return self.amount is not None

    @property
    def figure(self) -> str:
        """The cost without how it was reckoned, as `2.7 CNY (maker's list)`."""
        return f"{self._amount} (maker's list)" if self.basis == "maker" else self._amount

    @property
    def _amount(self) -> str:
        most = "at most " if self.at_most else ""
        return "unknown" if self.amount is None else f"{most}{self.amount:f} {self.currency}"

    def __str__(self) -> str:
        return f"{self._amount} ({self.reason})"


def total(estimates: Iterable[Estimate | None]) -> str:
    """The sum of estimates in words, each currency by itself and the unknown ones, None among them, counted.

    Example:
        >>> one = Estimate(amount="0.90", currency="CNY", reason="")
        >>> total([one, one, Estimate(reason="nobody says")])
        '1.80 CNY and 1 of unknown price'
        >>> total([one, one.model_copy(update={"at_most": True})])
        'at most 1.80 CNY'
        >>> total([])
        'nothing'
    """
    sums: dict[str, Decimal] = {}
    unknown = 0
    most = ""
    for estimate in estimates:
        if estimate is None or estimate.amount is None or estimate.currency is None:
            unknown += 1
        else:
            sums[estimate.currency] = EXACT.add(sums.get(estimate.currency, Decimal(0)), estimate.amount)
            most = "at most " if estimate.at_most else most
    parts = [f"{amount:f} {currency}" for currency, amount in sorted(sums.items())]
    if unknown:
        parts.append(f"{unknown} of unknown price")
    return most + " and ".join(parts) or "nothing"
