"""What was spent, summed up by what jobs are or are called."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import NamedTuple

from prefect_happyhorse.domain.prices import EXACT, Estimate, total
from prefect_happyhorse.engine.journal.index import Line

__all__ = ["FACTS", "Spend", "spend"]

FACTS = ("gateway", "account", "model", "state", "day", "month")
"""What jobs can be grouped by beside their labels; a day is one of UTC."""


class Spend(NamedTuple):
    """The jobs of a group.

    Args:
        group: What they have in common, by name; empty where a job has no such label.
        jobs: How many there are.
        estimated: What they should cost, each currency by itself.
        billed: What those cost of which the provider counted the seconds; how many of the others there are is said.
        difference: By how much these cost more than was estimated, each currency by itself; less is negative.
        warned: How many have an output that is not as it was asked for, or black, still or silent.
    """

    group: dict[str, str]
    jobs: int
    estimated: str
    billed: str
    difference: str
    warned: int


def spend(lines: Iterable[Line], by: Sequence[str]) -> list[Spend]:
    """The jobs that were or may be paid for, in groups, ordered by what they have in common."""
    groups: dict[tuple[str, ...], list[Line]] = {}
    for line in lines:
        # Under what was released or forgotten nothing is bought.
        if line.currency is not None or line.cost is None:
            groups.setdefault(tuple(_fact(line, name) for name in by), []).append(line)
    return [_summed(dict(zip(by, key, strict=True)), groups[key]) for key in sorted(groups)]


def _fact(line: Line, name: str) -> str:
    if name == "day":
        return line.begun_at.strftime("%Y-%m-%d")
    if name == "month":
        return line.begun_at.strftime("%Y-%m")
    return str(getattr(line, name)) if name in FACTS else dict(line.labels).get(name, "")


def _summed(group: dict[str, str], lines: list[Line]) -> Spend:
    known = [line for line in lines if line.billed is not None]
    differences: dict[str, Decimal] = {}
    for line in known:
        more = EXACT.subtract(line.billed or Decimal(0), line.cost or Decimal(0))
        differences[line.currency or ""] = EXACT.add(differences.get(line.currency or "", Decimal(0)), more)
    return Spend(
        group,
        len(lines),
        total(_estimate(line, line.cost) for line in lines),
        total(_estimate(line, line.billed) for line in lines),
        " and ".join(f"{amount:+f} {currency}" for currency, amount in sorted(differences.items())) or "unknown",
        sum(line.warned for line in lines),
    )


def _estimate(line: Line, amount: Decimal | None) -> Estimate:
    return Estimate(amount=amount, currency=None if amount is None else line.currency, reason="")
