"""The catalog beside the facts: equal in all that the facts say, but for the differences that are listed here with their reasons."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import pytest

from prefect_happyhorse.catalog import GATEWAYS, Route, WireField, find_route, gateway_facts, routes

from .facts import DIFFERENCES, ROUTES, name_of

every_route = pytest.mark.parametrize("fact", ROUTES, ids=name_of)

ARRAYS = {"url[]": "string[]", "media[]": "object[]", "messages": "object[]"}

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
    """A fact for every route of a reseller and a route for every fact, none twice."""
    resold = [f"{route.gateway}/{route.capability}/{route.model}" for route in routes() if route.gateway != "dashscope"]
    assert sorted(map(name_of, ROUTES)) == sorted(resold)


@every_route
def test_a_route_calls_what_the_facts_say(fact: dict[str, Any]) -> None:
    """Endpoints, encoding, note, and how a prompt names its references."""
    route = route_of(fact)
    # UniAll's own document names one query path, and its query page the other, which the facts give.
    assert fact["poll"] in {route.poll, route.facts.alternative_poll}
    assert {
        "submit": route.submit,
        "poll": fact["poll"],
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
    """Each number of each limit, and no limit more; the sources say "MB", and the facts read it as 10^6 bytes."""
    limits = [json.loads(limit.model_dump_json(exclude_defaults=True)) for limit in route_of(fact).media]
    told = [{**limit, "max_bytes": limit["max_bytes"] // 10**6 * 2**20} for limit in fact["media_limits"]]
    for limit in told:
        if "advised_duration_s" in limit:
            # The source advises the format along with the length: in the facts' own words, "format and duration are advice".
            limit["advised_formats"] = limit.pop("formats")
    assert limits == told


def test_fields_differ_from_the_facts_only_as_listed() -> None:
    """A change of one number in the catalog is a line here: every difference, on every route, and none that is no longer there."""
    found: dict[str, set[str]] = defaultdict(set)
    for fact in ROUTES:
        for difference in differences(fact, route_of(fact)):
            found[difference].add(name_of(fact))
    listed = {difference: set(names) for difference, names in DIFFERENCES.items()}
    assert dict(found) == listed


def test_hosts_and_keys_are_those_of_the_documents() -> None:
    """Two gateways have no host of their own: the user gives it."""
    assert {name: (gateway_facts(name).base_url, gateway_facts(name).auth) for name in GATEWAYS} == {
        "chanjing": ("https://www.chanjing.cc", "access_token: <token>"),
        "dashscope": ("https://dashscope.aliyuncs.com", "Authorization: Bearer <key>"),
        "happyhorse": (None, "Authorization: Bearer <key>"),
        "infiflow": ("https://llm.infiflow.cn", "Authorization: Bearer <key>"),
        "ttapi": ("https://api.ttapi.io", "TT-API-KEY: <key>"),
        "uniall": (None, "Authorization: Bearer <key>"),
    }


def test_what_is_borrowed_is_marked() -> None:
    """The cancel path, twenty queries and a result's 24 h of two gateways; a job's own 24 h their documents do state."""
    theirs = dict.fromkeys(("cancel", "polls_per_s", "result_ttl_s"), "DashScope's")
    assert {name: gateway_facts(name).borrowed for name in GATEWAYS if gateway_facts(name).borrowed} == {
        "ttapi": theirs,
        "infiflow": theirs,
    }
    assert gateway_facts("dashscope").borrowed_note("cancel") == ""
    # A limit that the facts of a route do not know is the maker's, or OpenAI's, and said to be.
    marked = {(route.gateway, field.source[0], field.borrowed) for route in routes() for field in route.fields if field.borrowed}
    assert marked == {
        ("chanjing", "prompt", "DashScope's"),
        ("chanjing", "duration", "DashScope's"),
        ("happyhorse", "prompt", "DashScope's"),
        ("happyhorse", "duration", "DashScope's"),
        ("happyhorse", "seed", "DashScope's"),
        ("happyhorse", "n", "OpenAI's"),
    }
    assert [(r.gateway, f.to) for r in routes("happyhorse") for f in r.fields if f.max_chars and not f.borrowed] == []


def test_what_the_documents_leave_open_has_its_alternatives() -> None:
    """UniAll's other pair of paths, Chanjing's token endpoint, and the three gateways that can cancel."""
    assert {
        name: {
            attribute: value
            for attribute in ("alternative_submit", "alternative_poll", "token", "cancel")
            if (value := getattr(gateway_facts(name), attribute)) is not None
        }
        for name in GATEWAYS
    } == {
        "ttapi": {"cancel": "POST /happyhorse/api/v1/tasks/{task_id}/cancel"},
        "uniall": {"alternative_submit": "POST /v1/videos/generations", "alternative_poll": "GET /v1/videos/{task_id}"},
        "chanjing": {"token": "POST /open/v1/access_token"},
        "dashscope": {"cancel": "POST /api/v1/tasks/{task_id}/cancel"},
        "infiflow": {"cancel": "POST /dashscope/api/v1/tasks/{task_id}/cancel"},
        "happyhorse": {},
    }
