"""Results are served as a good file host serves them: sizes, tags, ranges, and addresses that expire."""

from __future__ import annotations

import hashlib

import pytest

from .conftest import Caller, find_url, vector


@pytest.fixture
def url(gateways: Caller) -> str:
    task_id = gateways.submit(vector("uniall", "text_to_video")).json()["id"]
    return find_url(gateways.poll("uniall", f"/v1/videos/{task_id}").json())


def test_a_file_with_all_its_headers(gateways: Caller, url: str) -> None:
    """GET and HEAD give the same length, type and tag; only GET counts as a download."""
    whole, head = gateways.client.get(url), gateways.client.head(url)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "content-type", "etag", "accept-ranges", "last-modified"):
        assert head.headers[name] == whole.headers[name]
    assert (whole.headers["content-type"], whole.headers["accept-ranges"]) == ("video/mp4", "bytes")
    assert int(whole.headers["content-length"]) == len(whole.content)
    assert [entry.downloads for entry in gateways.sandbox.ledger()] == [1]


def test_ranges_add_up_to_the_file(gateways: Caller, url: str) -> None:
    """Ranges are answered with 206 and the bytes asked for; If-Range with another tag gives the whole file."""
    whole = gateways.client.get(url)
    size = len(whole.content)
    middle = size // 3
    first = gateways.client.get(url, headers={"range": f"bytes=0-{middle - 1}"})
    rest = gateways.client.get(url, headers={"range": f"bytes={middle}-", "if-range": whole.headers["etag"]})
    assert (first.status_code, rest.status_code) == (206, 206)
    assert rest.headers["content-range"] == f"bytes {middle}-{size - 1}/{size}"
    assert hashlib.sha256(first.content + rest.content).digest() == hashlib.sha256(whole.content).digest()
    changed = gateways.client.get(url, headers={"range": f"bytes={middle}-", "if-range": '"another"'})
    assert (changed.status_code, changed.content) == (200, whole.content)
    assert gateways.client.get(url, headers={"range": f"bytes={size}-"}).status_code == 416


def test_addresses_expire_and_are_renewed(gateways: Caller) -> None:
    """After its time an address is refused, and a poll gives one that works."""
    gateways.sandbox.settings(result_ttl_s=60)
    task_id = gateways.submit(vector("uniall", "text_to_video")).json()["id"]
    old = find_url(gateways.poll("uniall", f"/v1/videos/{task_id}").json())
    gateways.sandbox.advance(61)
    refused = gateways.client.get(old)
    assert (refused.status_code, refused.headers["content-type"]) == (403, "application/xml")
    assert "expired" in refused.text
    fresh = find_url(gateways.poll("uniall", f"/v1/videos/{task_id}").json())
    assert old.split("?")[0] == fresh.split("?")[0]
    assert gateways.client.get(fresh).status_code == 200


def test_addresses_cannot_be_guessed(gateways: Caller, url: str) -> None:
    """Without its signature, or with another, a result is refused; a job or result that is not there is not found."""
    bare = url.split("?", maxsplit=1)[0]
    assert gateways.client.get(bare).status_code == 403
    assert gateways.client.get(f"{bare}?Expires=9999999999&Signature=00").status_code == 403
    assert gateways.client.get(bare.replace("-0.", "-1.")).status_code == 404
    assert gateways.client.get(f"{gateways.sandbox.url}/files/nothing-0.mp4").status_code == 404


def test_a_public_address(gateways: Caller) -> None:
    """With public_url results are addressed under it, whatever host the client used."""
    gateways.sandbox.settings(public_url="https://sandbox.example/")
    task_id = gateways.submit(vector("uniall", "text_to_video")).json()["id"]
    assert find_url(gateways.poll("uniall", f"/v1/videos/{task_id}").json()).startswith("https://sandbox.example/files/")
