"""Keys that a server echoes, in every kind of call that carries one."""

from __future__ import annotations

import httpx
import pytest
from pydantic import SecretStr

from prefect_happyhorse.catalog import find_route
from prefect_happyhorse.domain.requests import ImageEdit
from prefect_happyhorse.gateways import Account, get_gateway
from prefect_happyhorse.gateways.redaction import excerpt, scrub, shown

from .dialect import KEY, response

ACCOUNT = Account(gateway="happyhorse", base_url="https://gateway.example")
EDIT = find_route("happyhorse", "image_edit", "gpt-image-2")


def calls() -> dict[str, httpx.Request]:
    gateway = get_gateway("happyhorse")
    found = {
        "multipart": gateway.submit_request(ImageEdit(model="gpt-image-2", prompt="A", image="https://h/a.png"), EDIT, ACCOUNT),
        "poll": gateway.poll_request(EDIT, "t-1", ACCOUNT),
        "JSON that is no object": httpx.Request("POST", "https://gateway.example", json=["secret_key", KEY]),
        "a secret in the body": httpx.Request(
            "POST", "https://gateway.example", json={"secret_key": "s3cret", "access_token": "", "app_id": 5}
        ),
    }
    for call in found.values():
        gateway.sign(call, SecretStr(KEY))
    return found


@pytest.mark.parametrize("name", calls())
def test_a_key_is_taken_out_of_what_is_shown(name: str) -> None:
    """Whatever the call was."""
    answer = response(f"<p>{KEY}</p> s3cret".encode(), request=calls()[name])
    secret = "***" if name == "a secret in the body" else "s3cret"
    assert excerpt(answer) == f"<p>***</p> {secret}"
    assert scrub(f"Bearer {KEY}", answer) == "Bearer ***"
    assert shown(KEY, answer) == "***"


def test_what_is_shown_is_short() -> None:
    """And no part of a key stands at its end: the key goes first, the rest is cut after."""
    answer = response(("x" * 290 + KEY + "y" * 500).encode(), request=calls()["poll"])
    assert excerpt(answer) == "x" * 290 + "***" + "y" * 7
    assert shown("x" * 95 + KEY + "y" * 50, answer) == "x" * 95 + "***yy"


def test_blanks_are_folded() -> None:
    """An excerpt is one line."""
    assert excerpt(response(b" <html>\n\n\t<body> ")) == "<html> <body>"
