"""Faults on demand: rules that say which call goes wrong, how, and how often."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from itertools import count
from random import Random
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["FaultInjector", "FaultKind", "FaultPoint", "FaultRule"]

FaultPoint = Literal["submit", "poll", "list", "download", "token", "policy", "upload"]
FaultKind = Literal[
    "refuse", "unauthorized", "quota", "throttle", "moderation", "fail_job", "http", "html", "garbage", "error_in_200", "unknown_status",
    "backwards", "no_task_id", "vanish", "empty_result", "drop_before", "drop_after", "stall_before", "stall_after",
    "truncate", "stall_body", "wrong_type", "redirect", "expire",
]  # fmt: skip

_EVERYWHERE = {"unauthorized", "throttle", "http", "html", "garbage", "drop_before", "drop_after", "stall_before", "stall_after"}
_OF_A_JOB = {"refuse", "quota", "error_in_200", "unknown_status", "moderation", "fail_job"}
_KINDS: dict[FaultPoint, frozenset[str]] = {
    "submit": frozenset({*_EVERYWHERE, *_OF_A_JOB, "no_task_id"}),
    "poll": frozenset({*_EVERYWHERE, *_OF_A_JOB, "backwards", "vanish", "empty_result"}),
    "list": frozenset(_EVERYWHERE),
    "download": frozenset({*_EVERYWHERE, "truncate", "stall_body", "wrong_type", "redirect", "expire"}),
    "token": frozenset({*_EVERYWHERE, "refuse", "error_in_200"}),
    "policy": frozenset(_EVERYWHERE),
    "upload": frozenset({"unauthorized", "throttle", "http", "drop_before", "drop_after"}),
}
# A submit that one of these strikes is accepted and charged, unless the rule says otherwise.
_ACCEPTING_KINDS = frozenset({"garbage", "no_task_id", "unknown_status", "fail_job", "drop_after", "stall_before", "stall_after"})


class FaultRule(BaseModel):
    """One fault: where it strikes, what it does, and how often.

    Example:
        >>> FaultRule(at="submit", kind="drop_after", times=1).accepts
        True
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: FaultPoint = Field(description="Which call it strikes.")
    kind: FaultKind = Field(description="What goes wrong.")
    times: int | None = Field(default=1, ge=1, description="How often it strikes; null is always.")
    gateway: str | None = Field(default=None, description="Only calls to this gateway; null is any.")
    model: str | None = Field(default=None, description="Only jobs of this model; null is any.")
    after: int = Field(default=0, ge=0, description="How many matching calls pass unharmed first.")
    probability: float = Field(default=1.0, gt=0, le=1, description="How likely a matching call is struck.")
    seconds: float = Field(default=5.0, ge=0, description="How long stall_before, stall_after and stall_body wait.")
    status: Literal[500, 502, 503, 504] = Field(default=503, description="The HTTP status of kind http.")
    body: Literal["json", "html"] = Field(default="json", description="The body of kind http: the provider's error or a proxy's page.")
    accept: bool | None = Field(default=None, description="Whether a struck submit is accepted and charged; null is up to the kind.")
    retry_after_s: float | None = Field(default=None, ge=0, description="Send Retry-After with throttle and http.")
    retry_after_as: Literal["seconds", "date"] = Field(default="seconds", description="How Retry-After is written.")
    word: str = Field(default="PAUSED_FOR_REVIEW", description="The status word of unknown_status.")
    message: str | None = Field(default=None, description="The provider's message; null is a fitting one.")
    to: str | None = Field(default=None, description="Where redirect leads; null leads it in a circle.")
    fraction: float = Field(default=0.5, ge=0, lt=1, description="How much of the body truncate and stall_body send first.")

    @model_validator(mode="after")
    def _strikes_where_it_can(self) -> FaultRule:
        if self.kind not in _KINDS[self.at]:
            raise ValueError(f"{self.kind!r} cannot strike at {self.at!r}; there {', '.join(sorted(_KINDS[self.at]))} can")
        return self

    @property
    def accepts(self) -> bool:
        """Whether a call that this rule strikes is carried out all the same: for a submit, whether it is accepted and charged."""
        return self.kind in _ACCEPTING_KINDS if self.accept is None else self.accept

    def headers(self, now: float) -> dict[str, str]:
        """The Retry-After header that the rule asks for, in one of the two forms of HTTP."""
        if self.retry_after_s is None:
            return {}
        if self.retry_after_as == "date":
            return {"retry-after": formatdate(now + self.retry_after_s, usegmt=True)}
        return {"retry-after": f"{self.retry_after_s:g}"}


@dataclass(slots=True)
class _Entry:
    number: int
    rule: FaultRule
    matched: int = 0
    struck: int = 0


class FaultInjector:
    """The rules in force, in the order in which they were added, and how often each has struck."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._entries: list[_Entry] = []
        self._numbers = count(1)

    def add(self, rule: FaultRule) -> int:
        """Put a rule in force, and give its number."""
        self._entries.append(_Entry(next(self._numbers), rule))
        return self._entries[-1].number

    def clear(self) -> None:
        """Lift every rule."""
        self._entries.clear()

    def describe(self) -> list[dict[str, object]]:
        """Every rule with how often it matched and struck."""
        return [{"number": e.number, "matched": e.matched, "struck": e.struck, **e.rule.model_dump(mode="json")} for e in self._entries]

    def take(
        self, at: FaultPoint, gateway: str, model: str | None, applies: Callable[[FaultRule], bool] = lambda _: True
    ) -> FaultRule | None:
        """The rule that strikes a call, which counts as one stroke of it."""
        for entry in self._entries:
            rule = entry.rule
            if rule.at != at or rule.gateway not in {None, gateway} or rule.model not in {None, model}:
                continue
            if entry.struck == rule.times or not applies(rule):
                continue
            entry.matched += 1
            if entry.matched > rule.after and (rule.probability == 1 or self._random.random() < rule.probability):
                entry.struck += 1
                return rule
        return None
