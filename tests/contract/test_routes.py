"""The catalog beside the facts: equal in all that the facts say, but for the differences that are listed here with their reasons."""

from __future__ import annotations

import json
from collections import defaultdict
from fnmatch import fnmatchcase
from typing import Any

import pytest

from prefect_happyhorse.catalog import Route, WireField, find_route, gateway_facts, routes

from .facts import ROUTES, name_of

every_route = pytest.mark.parametrize("fact", ROUTES, ids=name_of)

ARRAYS = {"url[]": "string[]", "media[]": "object[]", "messages": "object[]"}

DIFFERENCES: dict[str, list[str]] = {
    # A row is one model, and the user names it: the list of models and the provider's default say nothing more.
    "model.type: enum, here string": ["ttapi/*", "infiflow/*"],
    "model.values: happyhorse-1.0-r2v happyhorse-1.1-r2v, here none": ["ttapi/*"],
    "model.values: happyhorse-1.1-r2v happyhorse-1.0-r2v, here none": ["infiflow/*"],
    "model.default: happyhorse-1.0-r2v, here none": ["ttapi/*"],
    # Notes as numbers: 5,000 characters of which a Chinese one counts two. Chanjing and happyhorse.pics run the same models.
    "input.prompt.max_chars: none, here 5000": ["ttapi/*", "infiflow/*"],
    "input.prompt.chinese_weight: none, here 2": ["ttapi/*", "infiflow/*"],
    "ref_prompt.max_chars: none, here 5000": ["chanjing/*"],
    "ref_prompt.chinese_weight: none, here 2": ["chanjing/*"],
    "prompt.max_chars: none, here 5000": ["happyhorse/*/happyhorse-*"],
    "prompt.chinese_weight: none, here 2": ["happyhorse/*/happyhorse-*"],
    # The same models' playing times at TTAPI and Infiflow, and what the document calls usual for Wan.
    "video_duration.minimum: none, here 3": ["chanjing/*"],
    "video_duration.maximum: none, here 15": ["chanjing/*"],
    "metadata.duration.minimum: none, here 3": ["happyhorse/*/happyhorse-*"],
    "metadata.duration.maximum: none, here 15": ["happyhorse/*/happyhorse-*"],
    "parameters.duration.minimum: none, here 2": ["happyhorse/*/wan2.7-[tir]2v"],
    "parameters.duration.maximum: none, here 15": ["happyhorse/*/wan2.7-[tir]2v"],
    # Numbers that can only be whole, and their natural range.
    "n.type: number, here integer": ["happyhorse/text_to_image/*", "happyhorse/image_edit/*", "happyhorse/reference_to_image/*"],
    "n.minimum: none, here 1": ["happyhorse/text_to_image/*", "happyhorse/image_edit/*", "happyhorse/reference_to_image/*"],
    "output_compression.type: number, here integer": ["happyhorse/*/gpt-image-2-max", "happyhorse/[ti]*/gpt-image-2"],
    "output_compression.minimum: none, here 0": ["happyhorse/*/gpt-image-2-max", "happyhorse/[ti]*/gpt-image-2"],
    "output_compression.maximum: none, here 100": ["happyhorse/*/gpt-image-2-max", "happyhorse/[ti]*/gpt-image-2"],
    "retry_times.type: number, here integer": ["happyhorse/*/veo_3_1-fast"],
    "retry_times.minimum: none, here 0": ["happyhorse/*/veo_3_1-fast"],
    "seed.type: number, here integer": ["happyhorse/*/happyhorse-*", "happyhorse/*/wan2.7-t2v"],
    "seed.minimum: none, here 0": ["happyhorse/*/happyhorse-*", "happyhorse/*/wan2.7-t2v"],
    "seed.maximum: none, here 2147483647": ["happyhorse/*/happyhorse-*", "happyhorse/*/wan2.7-t2v"],
    # A prompt can name nine references, so no more are sent; a field that has to be there holds at least one.
    "ref_img_url[].max_items: none, here 9": ["chanjing/*"],
    "image_urls[].min_items: none, here 1": ["happyhorse/reference_to_image/*"],
    "image_urls[].max_items: none, here 9": ["happyhorse/reference_to_image/*"],
    "images[].min_items: none, here 1": [
        "happyhorse/reference_to_video/happyhorse-1.0-r2v",
        "happyhorse/reference_to_video/grok-imagine-video",
        "happyhorse/*/kling-video",
        "!happyhorse/text_to_video/*",
    ],
    "images[].max_items: none, here 9": [
        "happyhorse/reference_to_video/happyhorse-1.0-r2v",
        "happyhorse/reference_to_video/grok-imagine-video",
        "happyhorse/reference_to_video/kling-video",
        "happyhorse/video_edit/happyhorse-1.0-video-edit",
    ],
    "reference_image_urls[].min_items: none, here 1": ["happyhorse/reference_to_video/omni_flash*"],
    "reference_image_urls[].max_items: none, here 9": ["happyhorse/reference_to_video/omni_flash*"],
    "extra_images[].max_items: none, here 8": ["happyhorse/reference_to_video/video-*"],
    "input.media[].min_items: none, here 1": [
        "happyhorse/image_to_video/wan2.7-i2v",
        "happyhorse/video_extension/wan2.7-i2v",
        "happyhorse/*/wan2.7-r2v",
        "happyhorse/video_edit/wan2.7-videoedit",
    ],
    "input.media[].max_items: none, here 9": ["happyhorse/reference_to_video/wan2.7-r2v"],
    # As many as the request's own fields can hold: one picture, two boundary frames, a clip and a frame, a sound, a video.
    "input.media[].max_items: none, here 1": ["happyhorse/image_to_video/wan2.7-i2v"],
    "input.media[].min_items: none, here 2": ["happyhorse/first_last_frame/wan2.7-i2v"],
    "input.media[].max_items: none, here 2": ["happyhorse/first_last_frame/wan2.7-i2v", "happyhorse/video_extension/wan2.7-i2v"],
    "images[].max_items: none, here 1": ["happyhorse/image_to_video/kling-video"],
    "images[].min_items: none, here 2": ["happyhorse/first_last_frame/veo_3_1-fast"],
    "images[].max_items: none, here 2": ["happyhorse/first_last_frame/veo_3_1-fast"],
    "extra_audios[].max_items: none, here 1": ["happyhorse/image_audio_to_video/*", "happyhorse/multimodal_to_video/video-*"],
    "extra_videos[].max_items: none, here 1": ["happyhorse/multimodal_to_video/video-*"],
    "messages[].min_items: none, here 1": ["happyhorse/video_edit/omni_flash_edit"],
    "messages[].max_items: none, here 1": ["happyhorse/video_edit/omni_flash_edit"],
    # The inside of a message, which the vectors and the wire's own tests pin.
    "messages[].content[].name: messages[].content[], here none": ["happyhorse/video_edit/omni_flash_edit"],
    "messages[].content[].required: False, here none": ["happyhorse/video_edit/omni_flash_edit"],
    "messages[].content[].type: Array<{ type: string; text?: string; image_url?: { url: string } }>, here none": [
        "happyhorse/video_edit/omni_flash_edit"
    ],
}
"""What the catalog says otherwise than the facts, and on which routes; a pattern after `!` takes routes out again."""

WORDS_ALONE = {"note", "item", "alias", "values_commonly"}
"""What the facts tell a reader, and nothing checks."""


def told(field: WireField) -> dict[str, Any]:
    """A wire field in the facts' own terms."""
    fact: dict[str, Any] = {"name": field.to, "required": field.required, "type": ARRAYS.get(field.type, field.type)}
    if field.type == "url":
        fact["type"] = "string"
    if field.type in ARRAYS:
        fact["name"] += "[]"
    if field.values:
        fact |= {"type": "enum", "values": list(field.values)}
    if field.const is not None:
        fact |= {"type": "const", "value": field.const}
    if field.chinese_weight != 1:
        fact["chinese_weight"] = field.chinese_weight
    for name in ("default", "minimum", "maximum", "max_chars", "min_items", "max_items"):
        if (value := getattr(field, name)) is not None:
            fact[name] = value
    return fact


def spelled(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "none" if value is None else f"{value:.0f}" if isinstance(value, float) else str(value)


def same(old: object, new: object) -> bool:
    # To Python 1 is True; 3 and 3.0 are the same bound.
    return old == new and isinstance(old, bool) == isinstance(new, bool)


def differences(fact: dict[str, Any], route: Route) -> list[str]:
    there = {field["name"]: field for field in fact["fields"]}
    here = {field["name"]: field for field in map(told, route.fields)}
    return [
        f"{name}.{attribute}: {spelled(old)}, here {spelled(new)}"
        for name in {**there, **here}
        for attribute in {**there.get(name, {}), **here.get(name, {})}
        if attribute not in WORDS_ALONE and not same(old := there.get(name, {}).get(attribute), new := here.get(name, {}).get(attribute))
    ]


def route_of(fact: dict[str, Any]) -> Route:
    return find_route(fact["gateway"], fact["capability"], fact["model"])


def test_every_fact_has_its_route() -> None:
    """65 facts, 65 routes, none twice."""
    assert sorted(map(name_of, ROUTES)) == sorted(f"{route.gateway}/{route.capability}/{route.model}" for route in routes())


@every_route
def test_a_route_calls_what_the_facts_say(fact: dict[str, Any]) -> None:
    """Endpoints, encoding, note, and how a prompt names its references."""
    route = route_of(fact)
    assert {
        "submit": route.submit,
        "poll": route.poll,
        "encoding": route.encoding,
        "note": route.note,
        "prompt_reference": route.reference_name,
    } == {name: fact.get(name) for name in ("submit", "poll", "encoding", "note", "prompt_reference")}


@every_route
def test_a_route_is_called_as_its_document_calls_it(fact: dict[str, Any]) -> None:
    """Where the facts give a title it is the route's; everywhere there is one."""
    assert route_of(fact).title == fact.get("title", route_of(fact).title)
    assert route_of(fact).title


@every_route
def test_a_route_lists_fields_in_the_facts_order(fact: dict[str, Any]) -> None:
    """The same fields in the same order, the inside of a message aside."""
    assert [told(field)["name"] for field in route_of(fact).fields] == [
        field["name"] for field in fact["fields"] if not field["name"].endswith("content[]")
    ]


@every_route
def test_a_route_has_the_facts_media_limits(fact: dict[str, Any]) -> None:
    """Each number of each limit, and no limit more."""
    limits = [json.loads(limit.model_dump_json(exclude_none=True)) for limit in route_of(fact).media]
    assert limits == fact["media_limits"]


def test_fields_differ_from_the_facts_only_as_listed() -> None:
    """A change of one number in the catalog is a line here: every difference, on every route, and none that is no longer there."""
    found: dict[str, set[str]] = defaultdict(set)
    for fact in ROUTES:
        for difference in differences(fact, route_of(fact)):
            found[difference].add(name_of(fact))
    listed = {
        difference: {
            name
            for name in map(name_of, ROUTES)
            if any(fnmatchcase(name, pattern) for pattern in patterns)
            and not any(fnmatchcase(name, pattern[1:]) for pattern in patterns if pattern.startswith("!"))
        }
        for difference, patterns in DIFFERENCES.items()
    }
    assert dict(found) == listed


def test_hosts_and_keys_are_those_of_the_documents() -> None:
    """Two gateways have no host of their own: the user gives it."""
    assert {name: (gateway_facts(name).base_url, gateway_facts(name).auth) for name in sorted({fact["gateway"] for fact in ROUTES})} == {
        "chanjing": ("https://www.chanjing.cc", "access_token: <token>"),
        "happyhorse": (None, "Authorization: Bearer <key>"),
        "infiflow": ("https://llm.infiflow.cn", "Authorization: Bearer <key>"),
        "ttapi": ("https://api.ttapi.io", "TT-API-KEY: <key>"),
        "uniall": (None, "Authorization: Bearer <key>"),
    }


def test_what_the_documents_leave_open_has_its_alternatives() -> None:
    """UniAll's other pair of paths, Chanjing's token endpoint, and the two gateways that can cancel."""
    assert {
        name: {
            attribute: value
            for attribute in ("alternative_submit", "alternative_poll", "token", "cancel")
            if (value := getattr(gateway_facts(name), attribute)) is not None
        }
        for name in ("ttapi", "uniall", "chanjing", "infiflow", "happyhorse")
    } == {
        "ttapi": {"cancel": "POST /happyhorse/api/v1/tasks/{task_id}/cancel"},
        "uniall": {"alternative_submit": "POST /v1/videos/generations", "alternative_poll": "GET /v1/videos/generations/{task_id}"},
        "chanjing": {"token": "POST /open/v1/access_token"},
        "infiflow": {"cancel": "POST /dashscope/api/v1/tasks/{task_id}/cancel"},
        "happyhorse": {},
    }
