from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_happyhorse.domain.locations import STORE_SCHEMES, locate


@pytest.mark.parametrize(
    "text",
    [
        "https://example.com/a.png",
        "http://example.com",
        "HTTPS://EXAMPLE.COM/A",
        "http://127.0.0.1:8808/x",
        "http://[::1]:80/x",
        "https://u:p@h/",
    ],
)
def test_a_web_address(text: str) -> None:
    """Any http(s) URL with a host."""
    assert locate(text) == "web"


@pytest.mark.parametrize("text", ["data:image/png;base64,iVBORw0KGgo=", "DATA:,x"])
def test_a_data_url(text: str) -> None:
    """The bytes stand in the text itself."""
    assert locate(text) == "inline"


@pytest.mark.parametrize("scheme", STORE_SCHEMES)
def test_a_store(scheme: str) -> None:
    """Every fsspec scheme that media may be read from, in any case."""
    assert locate(f"{scheme}://bucket/horse.png") == "store"
    assert locate(f"{scheme.upper()}://bucket/horse.png") == "store"


@pytest.mark.parametrize(
    "text",
    [
        "horse.png",
        "./horse.png",
        "/tmp/horse.png",
        r"C:\pictures\horse.png",
        "C:/pictures/horse.png",
        "~/horse.png",
        "马.png",
        "a b.png",
        "://x",
    ],
)
def test_a_local_path(text: str) -> None:
    """All that has no scheme; one letter before a colon is a drive."""
    assert locate(text) == "local"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("ftp://example.com/a.png", "scheme 'ftp'"),
        ("javascript:alert(1)", "scheme 'javascript'"),
        ("sftp://h/a", "scheme 'sftp'"),
        ("simplecache::s3://bucket/a.png", "scheme 'simplecache'"),
        ("http://", "without a host"),
        ("https:///a.png", "without a host"),
        ("https:a.png", "without a host"),
        ("https://:443/a.png", "without a host"),
        ("https://?x=1", "without a host"),
        ("http://[::1/a.png", "without a host"),
    ],
)
def test_what_no_medium_can_be_read_from(text: str, problem: str) -> None:
    """Other schemes, addresses without a host, and nothing at all; the message says what is allowed."""
    with pytest.raises(ValueError, match=problem):
        locate(text)


def test_a_refusal_names_every_scheme_that_is_allowed() -> None:
    """So the user need not look it up."""
    with pytest.raises(ValueError, match="which must be http") as caught:
        locate("ftp://example.com/a.png")
    assert [scheme for scheme in ("http", "https", *STORE_SCHEMES) if scheme not in str(caught.value)] == []


@given(st.text())
@settings(deadline=None, max_examples=200)
def test_any_text_is_placed_or_refused(text: str) -> None:
    """No text makes anything else happen."""
    try:
        found: str = locate(text)
    except ValueError as error:
        found = str(error)
    assert found in {"web", "store", "local", "inline"} or found.startswith(("is ", "has "))
