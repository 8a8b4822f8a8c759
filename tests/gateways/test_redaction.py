"""Keys that a server echoes, in every kind of call that carries one."""

from __future__ import annotations

import base64
import html
import json
import re
from urllib.parse import quote

import httpx
import pytest
from pydantic import SecretStr

from prefect_happyhorse.catalog import find_route
from prefect_happyhorse.domain.requests import ImageEdit
from prefect_happyhorse.gateways import Account, get_gateway
from prefect_happyhorse.gateways.redaction import excerpt, holds_secret, mark_secret, scrub, shown

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


ODD_KEY = "sk+Ab/Cd==q'%x&<0123456789"


@pytest.mark.parametrize(
    "spelled",
    [
        r"sk\u002BAb/Cd\u003d\u003Dq\u0027%x\u0026\u003C0123456789",
        json.dumps(json.dumps(ODD_KEY))[3:-3],
        quote(ODD_KEY),
        quote(ODD_KEY, safe="").lower(),
        quote(quote(ODD_KEY, safe=""), safe=""),
        html.escape(ODD_KEY),
        html.escape(html.escape(ODD_KEY)).replace("#x27", "#39"),
        ODD_KEY.upper(),
        f"{ODD_KEY[:9]}\n  {ODD_KEY[9:]}",
        *(base64.b64encode(before + ODD_KEY.encode() + b"!").decode() for before in (b"", b"u", b"u:")),
        base64.urlsafe_b64encode(ODD_KEY.encode() * 2).decode(),
    ],
)
def test_a_key_is_known_in_every_spelling(spelled: str) -> None:
    """As the JSON, URL and HTML writers of a server spell it, and as base64, with whatever before it."""
    request = httpx.Request("POST", "https://gateway.example")
    mark_secret(request, ODD_KEY)
    answer = httpx.Response(200, text=f"Bearer {spelled} is wrong", request=request)
    left = re.fullmatch(r"Bearer (.*) is wrong", excerpt(answer))
    assert left is not None
    # Of base64 the digits that it shares with what stands beside it may stay.
    assert len(left[1]) <= 11
    assert "***" in left[1]
    assert holds_secret(spelled, answer)


def test_of_a_long_answer_that_is_all_key_no_half_is_shown() -> None:
    """Where it is cut before it is searched."""
    request = httpx.Request("POST", "https://gateway.example")
    mark_secret(request, key := "0123456789abcdef" * 100)
    shown_of_it = excerpt(httpx.Response(200, text=key * 45, request=request))
    assert set(shown_of_it) == {"*"}
