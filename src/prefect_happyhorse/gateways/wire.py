"""Turn a request into the body that its route puts on the wire."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Mapping
from typing import Any

from prefect_happyhorse.catalog import Route, WireField, wire_value
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.prompts import rename_references
from prefect_happyhorse.domain.requests import MEDIA_FIELDS, GenerationRequest, iter_media

__all__ = ["build_body", "form_parts", "sent_prompt"]


def build_body(request: GenerationRequest, route: Route) -> dict[str, Any]:
    """The body of a submit: only what the request sets, and what the route always sends."""
    body: dict[str, Any] = {}
    for field in route.fields:
        value = _value(request, route, field)
        if value is None:
            continue
        *steps, last = field.to.split(".")
        target = body
        for step in steps:
            target = target.setdefault(step, {})
        target[last] = value
    return body


FormPart = tuple[None, str] | tuple[str, bytes, str]
"""A part of a form as httpx takes it: a text without a file name, or file name, bytes and media type."""

# Some servers go by the end of a file's name.
_EXTENSIONS = {"jpeg": "jpg", "quicktime": "mov", "mpeg": "mp3", "svg+xml": "svg"}


def form_parts(body: Mapping[str, Any], files: Collection[str] = ()) -> dict[str, FormPart]:
    """The body of a multipart submit, as httpx takes it: every part is text, but for files, whose bytes the body holds as data URLs."""
    return {name: _file_part(name, value) if name in files else _text_part(value) for name, value in body.items()}


def _text_part(value: object) -> FormPart:
    return None, value if isinstance(value, str) else json.dumps(value)


def _file_part(name: str, data_url: str) -> FormPart:
    head, _, data = data_url.partition(";base64,")
    if not head.startswith("data:") or not data:
        raise TypeError(f"{name} is sent as a file and holds no bytes: they have to be read first")
    media_type = head.removeprefix("data:")
    subtype = media_type.partition("/")[2]
    return f"{name}.{_EXTENSIONS.get(subtype, subtype)}", base64.b64decode(data, validate=True), media_type


def _value(request: GenerationRequest, route: Route, field: WireField) -> object:
    if field.const is not None:
        return field.const
    if field.option is not None:
        return request.options.get(field.option)
    if field.type == "media[]":
        return _typed_media(request, field) or None
    if field.type == "messages":
        content = _message_parts if field.render == "parts" else _message_content
        return [{"role": "user", "content": content(request, route)}]
    if field.type in {"url", "url[]", "file"}:
        return _addresses(request, field)
    for name in field.source:
        value = getattr(request, name, None)
        if name == "prompt" and value is not None:
            value = sent_prompt(request, route)
        if value is not None:
            return wire_value(value, field)
    return None


def _media(request: GenerationRequest, name: str) -> list[str]:
    """The addresses in one of a request's media fields; an empty list where it is not set."""
    media = [medium for field, _, medium in iter_media(request) if field == name]
    if any(isinstance(medium, MediaAsset) for medium in media):
        raise TypeError(f"{name} holds an asset that has not been given an address")
    return [str(medium) for medium in media]


def _addresses(request: GenerationRequest, field: WireField) -> str | list[str] | None:
    found = [address for name in field.source if name in MEDIA_FIELDS for address in _media(request, name)]
    if field.pick == "rest":
        found = found[1:]
    if not found:
        return None
    return found if field.type == "url[]" else found[0]


def _typed_media(request: GenerationRequest, field: WireField) -> list[dict[str, str]]:
    entries: list[dict[str, str]] = []
    for item in field.items:
        voices = _media(request, "voice") if item.voice else []
        for position, address in enumerate(_media(request, item.source)):
            entry = {"type": item.type, "url": address}
            if position < len(voices):
                entry["reference_voice"] = voices[position]
            entries.append(entry)
    return entries


def sent_prompt(request: GenerationRequest, route: Route) -> str:
    """The prompt as the gateway reads it; empty where there is none."""
    prompt = request.prompt or ""
    name = route.name_of_references(prompt)
    return prompt if name is None else rename_references(prompt, name)


def _message_parts(request: GenerationRequest, route: Route) -> list[dict[str, str]]:
    """Pictures and then the text, each in an object of one key."""
    pictures = [*_media(request, "image"), *_media(request, "references")]
    return [*({"image": address} for address in pictures), {"text": sent_prompt(request, route)}]


def _message_content(request: GenerationRequest, route: Route) -> str | list[dict[str, Any]]:
    prompt = sent_prompt(request, route)
    pictures = _media(request, "references")
    if not pictures:
        return prompt
    return [{"type": "text", "text": prompt}, *({"type": "image_url", "image_url": {"url": address}} for address in pictures)]
