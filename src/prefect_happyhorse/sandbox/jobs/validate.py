"""Check a submitted body against the catalog's wire fields, key by key, as a strict provider would."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from prefect_happyhorse.catalog import Route, WireField, routes
from prefect_happyhorse.domain.prompts import weighted_length
from prefect_happyhorse.sandbox.media.wire_media import MediaCheck, WireInput

__all__ = ["ValidatedBody", "candidates", "fit_body", "submit_paths"]

_ABSENT = object()


@dataclass(frozen=True)
class ValidatedBody:
    """What checking a body against one route found."""

    route: Route
    problems: tuple[str, ...]
    inputs: tuple[WireInput, ...]
    values: Mapping[str, object]
    defaults: Mapping[str, object]
    cut: tuple[int, int] | None = None

    def given(self, source: str) -> str | None:
        """The value of a request field as text, where the body has one."""
        value = self.values.get(source)
        return None if value is None else str(value)

    def text(self, source: str) -> str | None:
        """The value of a request field as text, the provider's default included."""
        value = self.values.get(source, self.defaults.get(source))
        return None if value is None else str(value)

    def number(self, source: str) -> float | None:
        """The value of a request field as a number, the provider's default included."""
        text = self.text(source)
        try:
            return None if text is None else float(text)
        except ValueError:
            return None


def submit_paths(gateway: str) -> tuple[str, ...]:
    """The paths at which a gateway takes submits."""
    found = [route.submit.split(" ", 1)[1] for route in routes(gateway)]
    other = [route.facts.alternative_submit.split(" ", 1)[1] for route in routes(gateway) if route.facts.alternative_submit]
    return tuple(dict.fromkeys([*found, *other]))


def candidates(gateway: str, path: str, model: str) -> tuple[Route, ...]:
    """The routes that a submit may be meant for."""
    return tuple(
        route
        for route in routes(gateway)
        if route.model == model
        and path in {route.submit.split(" ", 1)[1], *(p.split(" ", 1)[1] for p in [route.facts.alternative_submit] if p)}
    )


def fit_body(
    found: Sequence[Route], body: Mapping[str, object], *, texts: bool, tolerated: frozenset[str] = frozenset(), cuts_prompt: bool = False
) -> ValidatedBody:
    """Find the route that a body fits, or the one that it misses by least."""
    fits = [_Check(route, texts=texts, tolerated=tolerated, cuts_prompt=cuts_prompt).run(body) for route in found]
    return min(fits, key=lambda fit: len(fit.problems))


class _Check:
    def __init__(self, route: Route, *, texts: bool, tolerated: frozenset[str], cuts_prompt: bool) -> None:
        self.route = route
        self.texts = texts
        self.tolerated = tolerated
        self.cuts_prompt = cuts_prompt
        self.problems: list[str] = []
        self.values: dict[str, object] = {}
        self.defaults: dict[str, object] = {}
        self.cut: tuple[int, int] | None = None
        self._media = MediaCheck(route, self.problems)

    def run(self, body: Mapping[str, object]) -> ValidatedBody:
        self._unknown_keys(body)
        for wire in self.route.fields:
            source = wire.source[0] if wire.source else wire.to
            if wire.default is not None and wire.render != "text":
                self.defaults.setdefault(source, wire.default)
            value = _at(body, wire.to)
            if value is not _ABSENT:
                read = self._value(wire, value)
                if read is not None and wire.render != "text":
                    self.values.setdefault(source, read)
            elif wire.required:
                self.problems.append(f"{wire.to}: required")
        return ValidatedBody(self.route, tuple(self.problems), tuple(self._media.inputs), self.values, self.defaults, self.cut)

    def _unknown_keys(self, body: Mapping[str, object], prefix: str = "") -> None:
        leaves = {wire.to for wire in self.route.fields} | self.tolerated
        branches = {leaf[: match.start()] for leaf in leaves for match in re.finditer(r"\.", leaf)}
        for key, value in body.items():
            path = f"{prefix}{key}"
            if path in leaves:
                continue
            if path not in branches:
                self.problems.append(f"{path}: unknown field")
            elif isinstance(value, dict):
                self._unknown_keys(cast("dict[str, object]", value), f"{path}.")
            else:
                self.problems.append(f"{path}: must be an object")

    def _value(self, wire: WireField, value: object) -> object:
        if wire.type == "url":
            self._media.url(wire.to, value, wire.source[0])
        elif wire.type == "url[]":
            self._media.urls(wire, value)
        elif wire.type == "media[]":
            self._media.typed(wire, value)
        elif wire.type == "messages":
            return self._media.messages(wire, value)
        else:
            return self._scalar(wire, value)
        return None

    def _scalar(self, wire: WireField, value: object) -> object:
        read = _read_text(value, wire.type) if self.texts else value
        if not _has_type(read, wire.type):
            self.problems.append(f"{wire.to}: must be {'an' if wire.type == 'integer' else 'a'} {wire.type}")
            return None
        if isinstance(read, str):
            read = self._text(wire, read)
        if wire.const is not None and read != wire.const:
            self.problems.append(f"{wire.to}: must be {wire.const!r}")
        if wire.values and read not in wire.values:
            self.problems.append(f"{wire.to}: must be one of {', '.join(map(str, wire.values))}")
        if isinstance(read, (int, float)) and not isinstance(read, bool):
            if wire.minimum is not None and read < wire.minimum:
                self.problems.append(f"{wire.to}: must be at least {wire.minimum:g}")
            if wire.maximum is not None and read > wire.maximum:
                self.problems.append(f"{wire.to}: must be at most {wire.maximum:.0f}")
        return read

    def _text(self, wire: WireField, text: str) -> str:
        if wire.required and not text:
            self.problems.append(f"{wire.to}: must not be empty")
        if wire.render == "upper" and text != text.upper():
            self.problems.append(f"{wire.to}: must be in upper case")
        length = weighted_length(text, wire.chinese_weight)
        if wire.max_chars is None or length <= wire.max_chars:
            return text
        if not self.cuts_prompt:
            self.problems.append(f"{wire.to}: too long, {length} characters where {wire.max_chars} are allowed")
            return text
        self.cut = (length, wire.max_chars)
        kept = text
        while weighted_length(kept, wire.chinese_weight) > wire.max_chars:
            # Every character counts for one at least, so this drops no more than is too much.
            surplus = weighted_length(kept, wire.chinese_weight) - wire.max_chars
            kept = kept[: len(kept) - max(1, surplus // wire.chinese_weight)]
        return kept


def _at(body: Mapping[str, object], path: str) -> object:
    first, _, rest = path.partition(".")
    value = body.get(first, _ABSENT)
    if not rest or value is _ABSENT:
        return value
    return _at(cast("dict[str, object]", value), rest) if isinstance(value, dict) else _ABSENT


def _read_text(value: object, wanted: str) -> object:
    if not isinstance(value, str):
        return value
    if wanted == "integer" and re.fullmatch(r"-?[0-9]+", value):
        return int(value)
    if wanted == "number" and re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", value):
        return float(value)
    if wanted == "boolean" and value in {"true", "false"}:
        return value == "true"
    return value


def _has_type(value: object, wanted: str) -> bool:
    if wanted == "boolean":
        return isinstance(value, bool)
    if wanted == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if wanted == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, str)
