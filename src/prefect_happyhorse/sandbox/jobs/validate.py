"""Check a submitted body against the catalog's wire fields, key by key, as a strict provider would."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from prefect_happyhorse.catalog import Route, WireField
from prefect_happyhorse.domain.prompts import weighted_length
from prefect_happyhorse.sandbox.jobs.media_fields import MediaCheck, WireInput

__all__ = ["ValidatedBody", "validate"]


@dataclass
class ValidatedBody:
    """What checking a body against one route found."""

    route: Route
    problems: list[str]
    inputs: list[WireInput]
    values: dict[str, object] = field(default_factory=dict[str, object])
    defaults: dict[str, object] = field(default_factory=dict[str, object])
    prompt_cut: tuple[int, int] | None = None

    def text(self, source: str) -> str | None:
        """The value of a request field as text, the provider's default included."""
        value = self.values.get(source, self.defaults.get(source))
        return None if value is None else str(value)

    def number(self, source: str) -> float | None:
        """The value of a request field as a number, the provider's default included."""
        try:
            return float(self.text(source) or "")
        except ValueError:
            return None


def validate(
    routes: Sequence[Route], body: Mapping[str, object], *, tolerated: frozenset[str] = frozenset(), cuts_prompt: bool = False
) -> ValidatedBody:
    """A body checked against the route that it fits, or that it misses by least."""
    checked = [_Check(route, tolerated=tolerated, cuts_prompt=cuts_prompt).run(body) for route in routes]
    return min(checked, key=lambda result: len(result.problems))


class _Check(MediaCheck):
    def __init__(self, route: Route, *, tolerated: frozenset[str], cuts_prompt: bool) -> None:
        super().__init__(route)
        self.tolerated = tolerated
        self.cuts_prompt = cuts_prompt
        self.sent: dict[str, object] = {}
        self.result = ValidatedBody(route, self.problems, self.inputs)

    def run(self, body: Mapping[str, object]) -> ValidatedBody:
        result = self.result
        self._walk(body)
        for wire in self.route.fields:
            source = wire.source[0] if wire.source else wire.to
            if wire.default is not None and wire.render != "text":
                result.defaults.setdefault(source, wire.default)
            if wire.to in self.sent:
                read = self._read(wire, self.sent[wire.to])
                if read is not None and wire.render != "text":
                    result.values.setdefault(source, read)
            elif wire.required:
                self.problems.append(f"{wire.to}: required")
        return result

    def _walk(self, body: Mapping[str, object], prefix: str = "") -> None:
        """Find what was sent by its dotted path, and the keys that do not belong there."""
        leaves = {wire.to for wire in self.route.fields} | self.tolerated
        for key, value in body.items():
            path = f"{prefix}{key}"
            if path in leaves:
                self.sent[path] = value
            elif not any(leaf.startswith(f"{path}.") for leaf in leaves):
                self.problems.append(f"{path}: unknown field")
            elif isinstance(value, dict):
                self._walk(cast("dict[str, object]", value), f"{path}.")
            else:
                self.problems.append(f"{path}: must be an object")

    def _read(self, wire: WireField, value: object) -> object:
        if wire.type == "url":
            self.url(wire.to, value, wire.source[0])
        elif wire.type == "url[]":
            self.urls(wire, value)
        elif wire.type == "media[]":
            self.typed(wire, value)
        elif wire.type == "messages":
            return self.messages(wire, value)
        else:
            return self._read_scalar(wire, value)
        return None

    def _read_scalar(self, wire: WireField, value: object) -> object:
        read = _from_form(value, wire.type) if self.route.encoding == "multipart" else value
        if not _has_type(read, wire.type):
            self.problems.append(f"{wire.to}: must be {'an' if wire.type == 'integer' else 'a'} {wire.type}")
            return None
        if isinstance(read, str):
            read = self._read_text(wire, read)
        if wire.const is not None and read != wire.const:
            self.problems.append(f"{wire.to}: must be {wire.const!r}")
        if wire.values and read not in wire.values:
            self.problems.append(f"{wire.to}: must be one of {', '.join(map(str, wire.values))}")
        if _has_type(read, "number") and wire.minimum is not None and cast("float", read) < wire.minimum:
            self.problems.append(f"{wire.to}: must be at least {wire.minimum:g}")
        if _has_type(read, "number") and wire.maximum is not None and cast("float", read) > wire.maximum:
            self.problems.append(f"{wire.to}: must be at most {wire.maximum:.0f}")
        return read

    def _read_text(self, wire: WireField, text: str) -> str:
        if wire.required and not text:
            self.problems.append(f"{wire.to}: must not be empty")
        if wire.render == "upper" and text != text.upper():
            self.problems.append(f"{wire.to}: must be in upper case")
        length = weighted_length(text, wire.chinese_weight)
        if wire.max_chars is None or length <= wire.max_chars:
            return text
        if not self.cuts_prompt:
            self.problems.append(f"{wire.to}: must have at most {wire.max_chars} characters (got {length})")
            return text
        self.result.prompt_cut = (length, wire.max_chars)
        while (surplus := weighted_length(text, wire.chinese_weight) - wire.max_chars) > 0:
            # Every character counts for one at least, so this drops no more than is too much.
            text = text[: -max(1, surplus // wire.chinese_weight)]
        return text


def _from_form(value: object, wanted: str) -> object:
    """A form's text as the type that it stands for; one that is none stays a text."""
    if not isinstance(value, str):
        return value
    if wanted == "integer" and re.fullmatch(r"-?[0-9]+", value):
        return int(value)
    if wanted == "number" and re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", value):
        return float(value)
    return value == "true" if wanted == "boolean" and value in {"true", "false"} else value


def _has_type(value: object, wanted: str) -> bool:
    if isinstance(value, bool):
        return wanted == "boolean"
    return isinstance(value, {"boolean": bool, "integer": int, "number": (int, float)}.get(wanted, str))
