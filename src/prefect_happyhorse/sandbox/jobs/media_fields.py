"""Check the media of a submitted body: addresses, arrays of them, typed entries, and chat messages with pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from prefect_happyhorse.catalog import Route, WireField
from prefect_happyhorse.domain.requests import REQUEST_CLASSES

__all__ = ["MediaCheck", "WireInput"]

_MANY = frozenset({"references", "reference_videos"})


@dataclass(frozen=True)
class WireInput:
    """One input medium of a body: its address, where it stands, and the request field that it carries."""

    url: str
    where: str
    source: str


class MediaCheck:
    """Finds the input media of one body, and what is wrong with them."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self.problems: list[str] = []
        self.inputs: list[WireInput] = []

    def url(self, where: str, value: object, source: str) -> None:
        """One address."""
        problem = self._url_problem(value)
        if problem is not None:
            self.problems.append(f"{where}: {problem}")
            return
        found = WireInput(str(value), where, source)
        # Some bodies name the same single medium under two keys: it is one input all the same.
        if source in _MANY or all((found.url, source) != (known.url, known.source) for known in self.inputs):
            self.inputs.append(found)

    def _url_problem(self, value: object) -> str | None:
        if not isinstance(value, str) or not value:
            return "must be a URL"
        if not value.startswith("data:"):
            return None if _is_web_address(value) else "must be an http or https URL"
        if not self.route.base64:
            return "data URLs are not accepted"
        return None if re.match(r"data:[\w.+-]+/[\w.+-]+;base64,", value) else "must be a base64 data URL with a media type"

    def _array(self, wire: WireField, value: object) -> list[object]:
        if not isinstance(value, list):
            self.problems.append(f"{wire.to}: must be an array")
            return []
        items = cast("list[object]", value)
        if wire.min_items is not None and len(items) < wire.min_items:
            self.problems.append(f"{wire.to}: must hold at least {wire.min_items} (got {len(items)})")
        if wire.max_items is not None and len(items) > wire.max_items:
            self.problems.append(f"{wire.to}: must hold at most {wire.max_items} (got {len(items)})")
        return items

    def _objects(self, wire: WireField, value: object) -> Iterator[tuple[str, Mapping[str, object]]]:
        for index, entry in enumerate(self._array(wire, value)):
            where = f"{wire.to}[{index}]"
            if isinstance(entry, dict):
                yield where, cast("dict[str, object]", entry)
            else:
                self.problems.append(f"{where}: must be an object")

    def urls(self, wire: WireField, value: object) -> None:
        """An array of addresses."""
        for index, item in enumerate(self._array(wire, value)):
            self.url(f"{wire.to}[{index}]", item, wire.source[min(index, len(wire.source) - 1)])

    def typed(self, wire: WireField, value: object) -> None:
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
            self._check_entry(where, entry, {"type", "url", *(["reference_voice"] if item.voice else [])})
            self.url(f"{where}.url", entry.get("url"), item.source)
            if item.voice and "reference_voice" in entry:
                self.url(f"{where}.reference_voice", entry["reference_voice"], "voice")
        required = REQUEST_CLASSES[self.route.capability].model_fields
        for item in wire.items:
            count = types.count(item.type)
            if count > 1 and item.source not in _MANY:
                self.problems.append(f"{wire.to}: must hold at most one {item.type} (got {count})")
            if count == 0 and required[item.source].is_required():
                self.problems.append(f"{wire.to}: a {item.type} is required")

    def _check_entry(self, where: str, entry: Mapping[str, object], known: set[str]) -> None:
        self.problems.extend(f"{where}.{key}: unknown field" for key in entry if key not in known)

    def messages(self, wire: WireField, value: object) -> str | None:
        """A chat message with texts and pictures in it."""
        texts: list[str] = []
        for where, message in self._objects(wire, value):
            self._check_entry(where, message, {"role", "content"})
            if message.get("role") != "user":
                self.problems.append(f"{where}.role: must be 'user'")
            content = message.get("content")
            if isinstance(content, str):
                texts.append(content)
            elif isinstance(content, list):
                texts.extend(self._read_parts(f"{where}.content", cast("list[object]", content)))
            else:
                self.problems.append(f"{where}.content: must be a string or an array")
        if not any(texts):
            self.problems.append(f"{wire.to}: must hold a text")
        return "\n".join(texts)

    def _read_parts(self, where: str, content: list[object]) -> Iterator[str]:
        for index, entry in enumerate(content):
            part = cast("dict[str, object]", entry) if isinstance(entry, dict) else {}
            at = f"{where}[{index}]"
            if part.get("type") == "text" and isinstance(text := part.get("text"), str):
                self._check_entry(at, part, {"type", "text"})
                yield text
            elif part.get("type") == "image_url" and isinstance(image := part.get("image_url"), dict):
                address = cast("dict[str, object]", image)
                self._check_entry(at, part, {"type", "image_url"})
                self._check_entry(f"{at}.image_url", address, {"url"})
                self.url(f"{at}.image_url.url", address.get("url"), "references")
            else:
                self.problems.append(f"{at}: must be a text or an image_url part")


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme.lower() in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        return False
