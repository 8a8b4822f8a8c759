"""Check the media of a submitted body: addresses, arrays of them, typed entries, and chat messages with pictures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast, get_args
from urllib.parse import urlsplit

from prefect_happyhorse.catalog import Route, WireField
from prefect_happyhorse.domain.requests import MEDIA_FIELDS, GenerationRequest

__all__ = ["MediaCheck", "WireInput"]

_MANY = frozenset({"references", "reference_videos"})


@dataclass(frozen=True)
class WireInput:
    """One input medium of a body: its address, where it stands, and the request field that it carries."""

    url: str
    where: str
    source: str


def _required_media() -> dict[str, frozenset[str]]:
    required: dict[str, frozenset[str]] = {}
    for request_class in get_args(get_args(GenerationRequest)[0]):
        fields = request_class.model_fields
        required[fields["capability"].default] = frozenset(name for name in MEDIA_FIELDS if name in fields and fields[name].is_required())
    return required


_REQUIRED_MEDIA = _required_media()


class MediaCheck:
    """Collects the input media of one body, and what is wrong with how they are given.

    Args:
        route: The route that the body is checked against.
        problems: Where problems go.
    """

    def __init__(self, route: Route, problems: list[str]) -> None:
        self.route = route
        self.problems = problems
        self.inputs: list[WireInput] = []

    def url(self, where: str, value: object, source: str) -> None:
        """One address."""
        if not isinstance(value, str) or not value:
            self.problems.append(f"{where}: must be a URL")
        elif value.startswith("data:"):
            if not self.route.base64:
                self.problems.append(f"{where}: data URLs are not accepted")
            elif not re.match(r"data:[\w.+-]+/[\w.+-]+;base64,", value):
                self.problems.append(f"{where}: must be a base64 data URL with a media type")
            else:
                self._take(WireInput(value, where, source))
        elif not _is_web_address(value):
            self.problems.append(f"{where}: must be an http or https URL")
        else:
            self._take(WireInput(value, where, source))

    def _take(self, found: WireInput) -> None:
        # Some bodies name the same single medium under two keys: it is one input all the same.
        if found.source in _MANY or all((found.url, found.source) != (known.url, known.source) for known in self.inputs):
            self.inputs.append(found)

    def _array(self, wire: WireField, value: object) -> list[object]:
        if not isinstance(value, list):
            self.problems.append(f"{wire.to}: must be an array")
            return []
        items = cast("list[object]", value)
        if wire.min_items is not None and len(items) < wire.min_items:
            self.problems.append(f"{wire.to}: at least {wire.min_items} wanted, {len(items)} given")
        if wire.max_items is not None and len(items) > wire.max_items:
            self.problems.append(f"{wire.to}: at most {wire.max_items} allowed, {len(items)} given")
        return items

    def urls(self, wire: WireField, value: object) -> None:
        """An array of addresses."""
        for index, item in enumerate(self._array(wire, value)):
            self.url(f"{wire.to}[{index}]", item, wire.source[min(index, len(wire.source) - 1)])

    def typed(self, wire: WireField, value: object) -> None:
        """An array of objects that each say their type."""
        by_type = {item.type: item for item in wire.items}
        counts: dict[str, int] = {}
        for index, entry in enumerate(self._array(wire, value)):
            where = f"{wire.to}[{index}]"
            if not isinstance(entry, dict):
                self.problems.append(f"{where}: must be an object")
                continue
            parts = cast("dict[str, object]", entry)
            kind = parts.get("type")
            item = by_type.get(kind) if isinstance(kind, str) else None
            if item is None:
                self.problems.append(f"{where}.type: must be one of {', '.join(by_type)}")
                continue
            counts[item.source] = counts.get(item.source, 0) + 1
            self._keys(where, parts, {"type", "url"} | ({"reference_voice"} if item.voice else set()))
            self.url(f"{where}.url", parts.get("url"), item.source)
            if item.voice and "reference_voice" in parts:
                self.url(f"{where}.reference_voice", parts["reference_voice"], "voice")
        for item in wire.items:
            number = counts.get(item.source, 0)
            if number > 1 and item.source not in _MANY:
                self.problems.append(f"{wire.to}: at most one {item.type} allowed, {number} given")
            if number == 0 and item.source in _REQUIRED_MEDIA[self.route.capability]:
                self.problems.append(f"{wire.to}: a {item.type} is required")

    def _keys(self, where: str, parts: Mapping[str, object], allowed: Iterable[str]) -> None:
        self.problems.extend(f"{where}.{key}: unknown field" for key in parts if key not in set(allowed))

    def messages(self, wire: WireField, value: object) -> str | None:
        """A chat message with texts and pictures in it."""
        texts: list[str] = []
        for index, message in enumerate(self._array(wire, value)):
            where = f"{wire.to}[{index}]"
            if not isinstance(message, dict):
                self.problems.append(f"{where}: must be an object")
                continue
            parts = cast("dict[str, object]", message)
            self._keys(where, parts, {"role", "content"})
            if parts.get("role") != "user":
                self.problems.append(f"{where}.role: must be 'user'")
            content = parts.get("content")
            if isinstance(content, str):
                texts.append(content)
            elif isinstance(content, list):
                texts.extend(self._contents(f"{where}.content", cast("list[object]", content)))
            else:
                self.problems.append(f"{where}.content: must be a string or an array")
        if not any(texts):
            self.problems.append(f"{wire.to}: no text in it")
        return "\n".join(texts)

    def _contents(self, where: str, content: list[object]) -> Iterable[str]:
        for index, part in enumerate(content):
            parts = cast("dict[str, object]", part) if isinstance(part, dict) else {}
            if parts.get("type") == "text" and isinstance(text := parts.get("text"), str):
                self._keys(f"{where}[{index}]", parts, {"type", "text"})
                yield text
            elif parts.get("type") == "image_url" and isinstance(image := parts.get("image_url"), dict):
                self._keys(f"{where}[{index}]", parts, {"type", "image_url"})
                address = cast("dict[str, object]", image)
                self._keys(f"{where}[{index}].image_url", address, {"url"})
                self.url(f"{where}[{index}].image_url.url", address.get("url"), "references")
            else:
                self.problems.append(f"{where}[{index}]: must be a text or an image_url part")


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme.lower() in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        return False
