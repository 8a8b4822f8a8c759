from __future__ import annotations

import json
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from prefect_happyhorse.catalog import check, find_problems, resolve, routes
from prefect_happyhorse.domain.requests import REQUEST_CLASSES, parse_request
from prefect_happyhorse.gateways import Account, get_gateway

from .facts import VECTORS, name_of

KEY = SecretStr("sk-vector-key")
every_vector = pytest.mark.parametrize("vector", VECTORS, ids=name_of)


def submitted(vector: dict[str, Any]) -> httpx.Request:
    request = parse_request(vector["request"])
    route = resolve(request, vector["gateway"])
    check(request, route)
    gateway = get_gateway(vector["gateway"])
    call = gateway.submit_request(request, route, Account(gateway=vector["gateway"], base_url="https://gateway.example"))
    gateway.sign(call, KEY)
    return call


def exactly(value: object) -> object:
    """A JSON value together with the type of everything in it, since to Python 1 == 1.0 == True."""
    if isinstance(value, dict):
        return {name: exactly(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [exactly(inner) for inner in value]
    return type(value).__name__, value


def parts_of(call: httpx.Request) -> list[EmailMessage]:
    """The parts of a multipart body, as the standard library's own parser reads them."""
    head = f"MIME-Version: 1.0\r\nContent-Type: {call.headers['content-type']}\r\n\r\n".encode()
    message = message_from_bytes(head + call.read(), _class=EmailMessage, policy=policy.HTTP)
    assert message.is_multipart()
    assert message.defects == []
    return [part for part in message.iter_parts() if isinstance(part, EmailMessage)]


def test_the_vectors_are_the_catalog() -> None:
    """Each route of a reseller has one vector, no vector is of anything else, and the maker's show each of its capabilities."""
    offered = [f"{route.gateway}/{route.capability}/{route.model}" for route in routes()]
    vectors = sorted(name_of(vector) for vector in VECTORS)
    assert set(vectors) <= set(offered)
    assert [name for name in sorted(offered) if not name.startswith("dashscope/")] == [
        name for name in vectors if not name.startswith("dashscope/")
    ]
    shown = {vector["capability"] for vector in VECTORS if vector["gateway"] == "dashscope"}
    # The facts have no body with two boundary frames.
    assert {route.capability for route in routes("dashscope")} - shown == {"first_last_frame"}


def test_the_vectors_show_every_capability() -> None:
    """The eleven request classes are all among them."""
    assert set(REQUEST_CLASSES) == {vector["capability"] for vector in VECTORS}


@every_vector
def test_a_vector_fits_its_route(vector: dict[str, Any]) -> None:
    """What the facts show as a request has no problem."""
    request = parse_request(vector["request"])
    assert find_problems(request, resolve(request, vector["gateway"])) == ()


@every_vector
def test_a_request_reads_back_what_it_writes(vector: dict[str, Any]) -> None:
    """The request survives JSON, and writes nothing that the facts do not set."""
    request = parse_request(vector["request"])
    assert parse_request(request.model_dump_json()) == request
    assert exactly(json.loads(request.model_dump_json(exclude_unset=True)) | {"capability": vector["capability"]}) == exactly(
        vector["request"]
    )


@every_vector
def test_a_request_goes_to_its_endpoint(vector: dict[str, Any]) -> None:
    """Method and path are those of the facts, on the account's own host, with nothing behind the path."""
    call = submitted(vector)
    assert f"{call.method} {call.url.path}" == vector["submit"]
    assert (call.url.scheme, call.url.host, call.url.query, call.url.fragment) == ("https", "gateway.example", b"", "")


@every_vector
def test_a_request_becomes_exactly_the_body(vector: dict[str, Any]) -> None:
    """No key is missing, none is extra, and every value has its JSON type; a multipart body is text alone, without file names."""
    call = submitted(vector)
    if vector["encoding"] == "json":
        assert call.headers["content-type"] == "application/json"
        assert exactly(json.loads(call.content)) == exactly(vector["body"])
        return
    parts = parts_of(call)
    assert [part.get_content_disposition() for part in parts] == ["form-data"] * len(parts)
    assert [part.get_filename() for part in parts] == [None] * len(parts)
    # A part that says nothing of its type is text (https://www.rfc-editor.org/rfc/rfc7578#section-4.4).
    assert {part["content-type"] for part in parts} == {None}
    texts = [(str(part.get_param("name", header="content-disposition")), bytes(part.get_payload(decode=True)).decode()) for part in parts]
    assert sorted(texts) == sorted(vector["body"].items())


@every_vector
def test_a_request_carries_its_headers(vector: dict[str, Any]) -> None:
    """The headers of the facts, the key in its own one, and nothing else that httpx does not need to say."""
    call = submitted(vector)
    wanted: dict[str, str] = {}
    for header in vector["headers"]:
        name, _, value = header.partition(": ")
        wanted[name.lower()] = f"Bearer {KEY.get_secret_value()}" if value == "Bearer" else value or KEY.get_secret_value()
    assert {name: call.headers[name] for name in wanted} == wanted
    assert set(call.headers) == {*wanted, "host", "content-type", "content-length"}


@every_vector
def test_the_key_stands_in_its_header_alone(vector: dict[str, Any]) -> None:
    """Neither the address nor the body holds the key."""
    call = submitted(vector)
    assert KEY.get_secret_value() not in str(call.url)
    assert KEY.get_secret_value().encode() not in call.read()


@every_vector
def test_a_body_names_media_in_the_order_of_the_facts(vector: dict[str, Any]) -> None:
    """The bytes of a JSON body list media as the vector does: a prompt counts them in that order."""
    if vector["encoding"] == "multipart":
        return
    assert addresses(json.loads(submitted(vector).content)) == addresses(vector["body"])


def addresses(value: object) -> list[str]:
    if isinstance(value, str):
        return [value] if value.startswith("https://") else []
    inner = value if isinstance(value, list) else [value[name] for name in sorted(value)] if isinstance(value, dict) else []
    return [address for entry in inner for address in addresses(entry)]
