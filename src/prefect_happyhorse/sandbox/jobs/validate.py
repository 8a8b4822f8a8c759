"""Check a submitted body against the catalog's wire fields, key by key, as a strict provider would, and find its input media."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

from prefect_happyhorse.catalog import Route, WireField
from prefect_happyhorse.domain.prompts import weighted_length
from prefect_happyhorse.domain.requests import REQUEST_CLASSES
from prefect_happyhorse.sandbox.jobs.uploads import UPLOADED

__all__ = ["FilePart", "ValidatedBody", "WireInput", "validate"]

_MANY = frozenset({"references", "reference_videos"})


class FilePart(str):
    """A part of a form that is a file: its bytes, as a data URL."""

    __slots__ = ()


@dataclass(frozen=True)
class WireInput:
    """One input medium of a body: its address, where it stands, and the request field that it carries."""

    url: str
    where: str
    source: str


@dataclass
class ValidatedBody:
    """What checking a body against one route found."""

    route: Route
    problems: list[str] = field(default_factory=list[str])
    inputs: list[WireInput] = field(default_factory=list[WireInput])
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
    checks = [_Check(route, cuts_prompt=cuts_prompt) for route in routes]
    for check in checks:
        check.run(body, tolerated)
    return min(checks, key=lambda check: len(check.problems))


@dataclass
class _Check(ValidatedBody):
    cuts_prompt: bool = False

    def run(self, body: Mapping[str, object], tolerated: frozenset[str]) -> None:
        sent = dict(self._leaves(body, {wire.to for wire in self.route.fields} | tolerated))
        for wire in self.route.fields:
            source = wire.source[0] if wire.source else wire.to
            if wire.default is not None and wire.render != "text":
                self.defaults.setdefault(source, wire.default)
            if wire.to in sent:
                read = self._read(wire, sent[wire.to])
                if read is not None and wire.render != "text":
                    self.values.setdefault(source, read)
            elif wire.required:
                self.problems.append(f"{wire.to}: required")

    def _leaves(self, body: Mapping[str, object], known: set[str], prefix: str = "") -> Iterator[tuple[str, object]]:
        """What was sent by its dotted path; a key that does not belong there is a problem."""
        for key, value in body.items():
            path = f"{prefix}{key}"
            if path in known:
                yield path, value
            elif not any(leaf.startswith(f"{path}.") for leaf in known):
                self.problems.append(f"{path}: unknown field")
            elif isinstance(value, dict):
                yield from self._leaves(cast("dict[str, object]", value), known, f"{path}.")
            else:
                self.problems.append(f"{path}: must be an object")

    def _read(self, wire: WireField, value: object) -> object:
        if isinstance(value, FilePart) != (wire.type == "file"):
            self.problems.append(f"{wire.to}: must be a {'file, not a text' if wire.type == 'file' else 'text, not a file'}")
            return None
        if wire.type == "messages":
            return self._read_messages(wire, value)
        if wire.type == "file":
            self.inputs.append(WireInput(str(value), wire.to, wire.source[0]))
        elif wire.type == "url":
            self._add_input(wire.to, value, wire.source[0])
        elif wire.type == "url[]":
            for index, item in enumerate(self._array(wire, value)):
                self._add_input(f"{wire.to}[{index}]", item, wire.source[min(index, len(wire.source) - 1)])
        elif wire.type == "media[]":
            self._read_media(wire, value)
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
        if wire.pixels and isinstance(read, str):
            if not _fits_size(read, wire):
                self.problems.append(f"{wire.to}: the size is not allowed")
        elif wire.values and read not in wire.values:
            self.problems.append(f"{wire.to}: must be one of {', '.join(map(str, wire.values))}")
        if isinstance(read, (int, float)) and wire.minimum is not None and read < wire.minimum:
            self.problems.append(f"{wire.to}: must be at least {wire.minimum:g}")
        if isinstance(read, (int, float)) and wire.maximum is not None and read > wire.maximum:
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
        self.prompt_cut = (length, wire.max_chars)
        while (surplus := weighted_length(text, wire.chinese_weight) - wire.max_chars) > 0:
            # Every character counts for one at least, so this drops no more than is too much.
            text = text[: -max(1, surplus // wire.chinese_weight)]
        return text

    def _add_input(self, where: str, value: object, source: str) -> None:
        problem = _address_problem(value, self.route)
        if problem is not None:
            self.problems.append(f"{where}: {problem}")
        # Some bodies name the same single medium under two keys: it is one input all the same.
        elif source in _MANY or all((value, source) != (known.url, known.source) for known in self.inputs):
            self.inputs.append(WireInput(str(value), where, source))

    def _array(self, wire: WireField, value: object) -> list[object]:
        if not isinstance(value, list):
            self.problems.append(f"{wire.to}: must be an array")
            return []
        items = cast("list[object]", value)
        apart = {item.type for item in wire.items if item.apart}
        count = sum(not isinstance(entry, dict) or cast("dict[str, object]", entry).get("type") not in apart for entry in items)
        if wire.type != "messages" and wire.min_items is not None and count < wire.min_items:
            self.problems.append(f"{wire.to}: must hold at least {wire.min_items} (got {count})")
        if wire.type != "messages" and wire.max_items is not None and count > wire.max_items:
            self.problems.append(f"{wire.to}: must hold at most {wire.max_items} (got {count})")
        return items

    def _objects(self, wire: WireField, value: object) -> Iterator[tuple[str, Mapping[str, object]]]:
        for index, entry in enumerate(self._array(wire, value)):
            where = f"{wire.to}[{index}]"
            if isinstance(entry, dict):
                yield where, cast("dict[str, object]", entry)
            else:
                self.problems.append(f"{where}: must be an object")

    def _check_keys(self, where: str, entry: Mapping[str, object], known: set[str]) -> None:
        self.problems.extend(f"{where}.{key}: unknown field" for key in entry if key not in known)

    def _read_media(self, wire: WireField, value: object) -> None:
        """An array of objects that each say their type."""
        by_type = {item.type: item for item in wire.items}
        types: list[str] = []
        for where, entry in self._objects(wire, value):
            kind = entry.get("type")
            if not isinstance(kind, str) or kind not in by_type:
                self.problems.append(f"{where}.type: must be one of {', '.join(by_type)}")
                continue
            types.append(kind)
            item = by_type[kind]
            self._check_keys(where, entry, {"type", "url", *(["reference_voice"] if item.voice else [])})
            self._add_input(f"{where}.url", entry.get("url"), item.source)
            if item.voice and "reference_voice" in entry:
                self._add_input(f"{where}.reference_voice", entry["reference_voice"], "voice")
        required = REQUEST_CLASSES[self.route.capability].model_fields
        for item in wire.items:
            count = types.count(item.type)
            if count > 1 and item.source not in _MANY:
                self.problems.append(f"{wire.to}: must hold at most one {item.type} (got {count})")
            if count == 0 and required[item.source].is_required():
                self.problems.append(f"{wire.to}: a {item.type} is required")

    def _read_messages(self, wire: WireField, value: object) -> str:
        """A chat message with texts and pictures in it."""
        texts: list[str] = []
        read_parts = self._read_short_parts if wire.render == "parts" else self._read_parts
        for where, message in self._objects(wire, value):
            self._check_keys(where, message, {"role", "content"})
            if message.get("role") != "user":
                self.problems.append(f"{where}.role: must be 'user'")
            content = message.get("content")
            if isinstance(content, str):
                texts.append(content)
            elif isinstance(content, list):
                texts.extend(read_parts(f"{where}.content", cast("list[object]", content), wire))
            else:
                self.problems.append(f"{where}.content: must be a string or an array")
        if not any(texts):
            self.problems.append(f"{wire.to}: must hold a text")
        return self._read_text(wire, "\n".join(texts))

    def _read_short_parts(self, where: str, content: list[object], wire: WireField) -> Iterator[str]:
        """Parts of one key each, a picture or a text."""
        source = next((name for name in wire.source if name != "prompt"), None)
        pictures = 0
        for index, entry in enumerate(content):
            part = cast("dict[str, object]", entry) if isinstance(entry, dict) else {}
            at = f"{where}[{index}]"
            if list(part) == ["text"] and isinstance(text := part["text"], str):
                yield text
            elif list(part) == ["image"] and source is not None:
                pictures += 1
                self._add_input(f"{at}.image", part["image"], source)
            else:
                self.problems.append(f"{at}: must be a text{' or an image' if source else ''}")
        if source is not None and not (wire.min_items or 0) <= pictures <= (wire.max_items or pictures):
            self.problems.append(f"{where}: must hold {wire.min_items} to {wire.max_items} images (got {pictures})")

    def _read_parts(self, where: str, content: list[object], wire: WireField) -> Iterator[str]:
        for index, entry in enumerate(content):
            part = cast("dict[str, object]", entry) if isinstance(entry, dict) else {}
            at = f"{where}[{index}]"
            if part.get("type") == "text" and isinstance(text := part.get("text"), str):
                self._check_keys(at, part, {"type", "text"})
                yield text
            elif part.get("type") == "image_url" and isinstance(image := part.get("image_url"), dict):
                address = cast("dict[str, object]", image)
                self._check_keys(at, part, {"type", "image_url"})
                self._check_keys(f"{at}.image_url", address, {"url"})
                self._add_input(f"{at}.image_url.url", address.get("url"), "references")
            else:
                self.problems.append(f"{at}: must be a text or an image_url part")


def _fits_size(text: str, wire: WireField) -> bool:
    sides = text.split("*")
    if len(sides) != 2 or not all(side.isdecimal() and len(side) < 7 and int(side) for side in sides):
        return text in wire.values
    width, height = map(int, sides)
    least, most = wire.pixels or (0, 0)
    low, high = wire.aspect or (0.0, float("inf"))
    return least <= width * height <= most and low <= width / height <= high


def _address_problem(value: object, route: Route) -> str | None:
    if not isinstance(value, str) or not value:
        return "must be a URL"
    if value.startswith("data:"):
        if not route.base64:
            return "data URLs are not accepted"
        return None if re.match(r"data:[\w.+-]+/[\w.+-]+;base64,", value) else "must be a base64 data URL with a media type"
    if value.startswith(UPLOADED) and route.facts.upload_policy is not None:
        return None
    try:
        parts = urlsplit(value)
        is_web = parts.scheme.lower() in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        is_web = False
    return None if is_web else "must be an http or https URL"


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
