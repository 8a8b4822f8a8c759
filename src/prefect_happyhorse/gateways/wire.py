"""Turn a request into the body that its route puts on the wire."""

from __future__ import annotations

import json
from collections.abc import Mapping
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


def form_parts(body: Mapping[str, Any]) -> dict[str, tuple[None, str]]:
    """The body of a multipart submit, as httpx takes it: every part is text and has no file name."""
    return {name: (None, value if isinstance(value, str) else json.dumps(value)) for name, value in body.items()}


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
    if field.type in {"url", "url[]"}:
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
    return found[0] if field.type == "url" else found


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
