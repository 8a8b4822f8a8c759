"""Every row that is shipped, looked at as data."""

from __future__ import annotations

import re
import sys
from collections import Counter
from datetime import date
from importlib.resources import files
from typing import Any, get_args

import pytest

from prefect_happyhorse.catalog import GATEWAYS, Route, WireField, gateway_facts, routes
from prefect_happyhorse.catalog.facts import CodeMeaning
from prefect_happyhorse.domain.requests import MEDIA_FIELDS, REQUEST_CLASSES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

every_route = pytest.mark.parametrize("route", routes(), ids=lambda route: f"{route.gateway}/{route.capability}/{route.model}")
every_gateway = pytest.mark.parametrize("gateway", GATEWAYS)

NUMERIC = {"integer", "number"}
OF_MEDIA = {"url", "url[]", "media[]", "messages"}
TYPES: dict[str, tuple[type, ...]] = {"string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,)}


def written(gateway: str) -> dict[str, Any]:
    """A data file as it is written, before the loader fills anything in."""
    return tomllib.loads(files("prefect_happyhorse.catalog").joinpath("data").joinpath(f"{gateway}.toml").read_text(encoding="utf-8"))


def fields(route: Route, *types: str) -> list[WireField]:
    return [field for field in route.fields if field.type in types]


@every_gateway
def test_a_gateway_says_where_its_facts_come_from(gateway: str) -> None:
    """Source, day, title, and what was left open."""
    facts = gateway_facts(gateway)
    assert (facts.gateway, bool(facts.title), bool(facts.source)) == (gateway, True, True)
    assert date(2026, 1, 1) <= facts.dated <= date(2026, 12, 31)
    assert all(sentence.endswith(".") for sentence in facts.open)
    assert facts.open or gateway == "ttapi"


@every_gateway
def test_a_host_is_https_and_ends_without_a_slash(gateway: str) -> None:
    """Paths begin with one."""
    base_url = gateway_facts(gateway).base_url
    assert base_url is None or re.fullmatch(r"https://[a-z.]+[a-z]", base_url)


@every_gateway
def test_codes_mean_something(gateway: str) -> None:
    """Each meaning is one that the gateways' code knows, and every gateway can say that a key is wrong."""
    codes = gateway_facts(gateway).codes
    assert set(codes.values()) <= set(get_args(CodeMeaning))
    assert {"authentication", "invalid", "rate_limit"} <= set(codes.values())
    assert all(code == code.strip() and code for code in codes)


@every_gateway
def test_only_a_missing_job_is_called_not_found(gateway: str) -> None:
    """A poll that is answered with such a code gives the job up, so a missing model must not be one of them."""
    missing = {code for code, meaning in gateway_facts(gateway).codes.items() if meaning == "not_found"}
    assert missing == {"ttapi": {"404"}, "uniall": {"task_not_exist"}, "happyhorse": {"task_not_exist"}}.get(gateway, set())


@every_gateway
def test_times_are_positive(gateway: str) -> None:
    """Whatever a gateway makes has a usual time, and it is asked less often than it allows."""
    facts = gateway_facts(gateway)
    assert set(facts.typical_s) == {"image", "video"}
    numbers = [*facts.typical_s.values(), facts.poll_interval_s, facts.task_ttl_s, facts.result_ttl_s, facts.polls_per_s]
    assert all(number > 0 for number in numbers if number is not None)
    assert facts.polls_per_s is None or 1 / facts.poll_interval_s < facts.polls_per_s


@every_gateway
def test_every_shape_limit_and_response_is_used(gateway: str) -> None:
    """What no row names is a row that was forgotten."""
    data = written(gateway)
    assert set(data["shapes"]) == {row["shape"] for row in data["route"]}
    assert set(data.get("responses", {})) == {row["response"] for row in (*data["shapes"].values(), *data["route"]) if "response" in row}
    assert set(data.get("limits", {})) == {name for row in data["route"] for name in row.get("limits", ())}


@every_route
def test_a_row_names_its_source(route: Route) -> None:
    """Each row says which part of the document it comes from."""
    assert route.source.strip()
    assert route.title.strip()


@every_route
def test_a_job_is_asked_for_by_its_id(route: Route) -> None:
    """The id stands in the poll path once, and nowhere in the submit path."""
    assert re.fullmatch(r"POST /[a-z0-9_/-]+", route.submit)
    assert re.fullmatch(r"GET /[a-z0-9_/?=-]+\{task_id\}", route.poll)


@every_route
def test_a_row_takes_fields_that_its_request_has(route: Route) -> None:
    """No field of another capability, and no misspelled one."""
    assert route.request_fields <= set(REQUEST_CLASSES[route.capability].model_fields)


@every_route
def test_a_row_carries_whatever_its_request_cannot_do_without(route: Route) -> None:
    """A field that the class requires goes over the wire, the model too unless the row writes it itself."""
    required = {name for name, field in REQUEST_CLASSES[route.capability].model_fields.items() if field.is_required()}
    constants = {field.const for field in route.fields}
    assert required - route.request_fields <= ({"model"} if route.model in constants else set())


@every_route
def test_a_row_writes_each_place_once(route: Route) -> None:
    """No two fields go to one place, and none goes inside another's."""
    places = [field.to for field in route.fields]
    assert [place for place, number in Counter(places).items() if number > 1] == []
    assert [(one, other) for one in places for other in places if other.startswith(f"{one}.")] == []


@every_route
def test_a_required_field_has_something_to_send(route: Route) -> None:
    """From a request field, or a constant."""
    assert [field.to for field in route.fields if field.required and field.const is None and not field.request_fields] == []


@every_route
def test_what_is_never_sent_says_why(route: Route) -> None:
    """A field without a source has a note."""
    assert [field.to for field in route.fields if not field.request_fields and field.const is None and not field.note] == []


@every_route
def test_options_are_one_value_with_a_type(route: Route) -> None:
    """Each of the route's own extras has a type of its own, and comes from itself alone."""
    assert all(field.type in TYPES for field in route.options.values())
    several = [field.to for field in route.fields if len(field.source) > 1 and any(name.startswith("options.") for name in field.source)]
    assert several == []
    assert sorted(field.option for field in route.fields if field.option) == sorted(route.options)


@every_route
def test_a_fields_facts_are_of_its_type(route: Route) -> None:
    """Values, defaults and constants have the type that goes over the wire; bounds are of numbers, lengths of text, counts of arrays."""
    for field in route.fields:
        told = [*field.values, *([] if field.default is None else [field.default]), *([] if field.const is None else [field.const])]
        assert [value for value in told if field.type not in TYPES or type(value) not in TYPES[field.type]] == [], field.to
        assert field.pixels is None or (field.render, field.pixels[0] < field.pixels[1]) == ("size", True), field.to
        assert field.type in NUMERIC or (field.minimum, field.maximum) == (None, None), field.to
        assert field.type in {"string", "messages"} or field.max_chars is None, field.to
        assert field.type in OF_MEDIA - {"url"} or (field.min_items, field.max_items) == (None, None), field.to
        assert field.default is None or not field.values or field.default in field.values, field.to
        # One picture at a time is a range too.
        assert field.minimum is None or field.maximum is None or field.minimum <= field.maximum, field.to


@every_route
def test_media_go_into_fields_of_media(route: Route) -> None:
    """A picture is never written as plain text would be, and text never as an address."""
    for field in route.fields:
        media = {name for name in field.request_fields if name in MEDIA_FIELDS}
        # A message may be a text alone.
        assert bool(media) == (field.type in OF_MEDIA) or (field.type, field.source) == ("messages", ("prompt",)), field.to
        assert media in (set(), set(field.request_fields)) or field.type == "messages", field.to


@every_route
def test_media_limits_are_about_what_the_route_takes(route: Route) -> None:
    """One limit for a role, with formats and a size, about a field that the route has."""
    assert len({limit.role for limit in route.media}) == len(route.media)
    for limit in route.media:
        assert set(limit.request_fields) & route.request_fields, limit.role
        assert limit.formats or limit.advised_formats
        assert limit.max_bytes > 0
        for low, high in filter(None, (limit.aspect, limit.duration_s, limit.advised_duration_s)):
            assert low < high


@every_route
def test_a_picture_is_counted_alike_by_field_and_limit(route: Route) -> None:
    """Where both say how many there may be, they say the same."""
    counts = {limit.max_count for limit in route.media if limit.role == "image" and limit.max_count is not None}
    arrays = [field for field in fields(route, "url[]", "media[]") if "references" in field.request_fields and field.max_items is not None]
    assert {field.max_items + (field.pick == "rest") for field in arrays} <= counts or not counts


@every_route
def test_a_reference_is_named_by_its_number(route: Route) -> None:
    """Where a prompt can name references at all."""
    assert route.reference_name is None or route.reference_name.count("{i}") == 1
    assert route.reference_name is None or "references" in route.request_fields


@every_route
def test_what_a_route_makes_is_what_its_capability_says(route: Route) -> None:
    """Pictures or videos, and how long that usually takes."""
    assert route.kind == ("image" if route.capability in {"text_to_image", "image_edit", "reference_to_image"} else "video")
    assert route.typical_s == route.facts.typical_s[route.kind]
    assert (route.facts.gateway, route.facts) == (route.gateway, gateway_facts(route.gateway))


def test_a_route_is_shown_without_its_gateways_facts() -> None:
    """They would stand in every line."""
    route = routes("ttapi")[0]
    assert "facts" not in route.model_dump()
    assert "facts=" not in repr(route)
