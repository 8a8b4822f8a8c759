"""Every way in which fetching a result can go wrong, as an HTTP client meets it."""

from __future__ import annotations

import httpx
import pytest

from .conftest import Caller, find_url, vector

UNIALL = vector("uniall")


def _finished(gateways: Caller) -> str:
    task_id = gateways.submit(UNIALL).json()["id"]
    return find_url(gateways.poll("uniall", f"/v1/videos/{task_id}").json())


def test_a_download_cut_off(gateways: Caller) -> None:
    """Half of the body comes, then the connection closes; a range gets the rest."""
    url = _finished(gateways)
    whole = gateways.client.get(url).content
    gateways.sandbox.fault(at="download", kind="truncate", fraction=0.25)
    chunks: list[bytes] = []
    with gateways.client.stream("GET", url) as answer:
        assert int(answer.headers["content-length"]) == len(whole)
        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
            chunks.extend(answer.iter_raw())
    received = b"".join(chunks)
    assert received == whole[: len(whole) // 4]
    rest = gateways.client.get(url, headers={"range": f"bytes={len(received)}-"})
    assert (rest.status_code, received + rest.content) == (206, whole)


def test_a_download_that_stalls_in_the_middle(gateways: Caller) -> None:
    """The second half of the body keeps the client waiting until it gives up, or until the stall is over."""
    url = _finished(gateways)
    whole = gateways.client.get(url).content
    gateways.sandbox.fault(at="download", kind="stall_body", seconds=60, times=2)
    with pytest.raises(httpx.ReadTimeout):
        gateways.client.get(url, timeout=0.2)
    with gateways.client.stream("GET", url) as answer:
        chunks = answer.iter_raw()
        first = next(chunks)
        gateways.sandbox.release()
        assert first + b"".join(chunks) == whole


def test_bodies_that_are_not_the_file(gateways: Caller) -> None:
    """HTML in place of a video, noise of the right length, server errors and refusals."""
    url = _finished(gateways)
    whole = gateways.client.get(url).content
    for kind in ("wrong_type", "html", "garbage", "http", "throttle", "unauthorized"):
        gateways.sandbox.fault(at="download", kind=kind)
    page, _, noise, *errors = (gateways.client.get(url) for _ in range(6))
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert (len(noise.content), noise.headers["content-type"], noise.content != whole) == (len(whole), "video/mp4", True)
    assert [error.status_code for error in errors] == [503, 429, 403]
    assert gateways.client.get(url).content == whole


def test_redirects(gateways: Caller) -> None:
    """A download is led elsewhere, or in a circle without end."""
    url = _finished(gateways)
    gateways.sandbox.fault(at="download", kind="redirect", to="http://169.254.169.254/latest")
    gateways.sandbox.fault(at="download", kind="redirect")
    assert gateways.client.get(url).headers["location"] == "http://169.254.169.254/latest"
    with pytest.raises(httpx.TooManyRedirects):
        gateways.client.get(url, follow_redirects=True)


def test_an_address_that_expires_on_demand(gateways: Caller) -> None:
    """An expired address stays dead, and a new poll gives a fresh one."""
    task_id = gateways.submit(UNIALL).json()["id"]
    urls = [find_url(gateways.poll("uniall", f"/v1/videos/{task_id}").json()) for _ in range(2)]
    gateways.sandbox.fault(at="download", kind="expire")
    assert urls[0] == urls[1]
    assert [gateways.client.get(urls[0]).status_code for _ in range(2)] == [403, 403]
    fresh = find_url(gateways.poll("uniall", f"/v1/videos/{task_id}").json())
    assert (fresh != urls[0], gateways.client.get(fresh).status_code) == (True, 200)


@pytest.mark.parametrize("kind", ["drop_before", "drop_after"])
def test_a_download_that_never_begins(gateways: Caller, kind: str) -> None:
    """The connection closes without an answer."""
    url = _finished(gateways)
    gateways.sandbox.fault(at="download", kind=kind)
    with pytest.raises(httpx.RemoteProtocolError):
        gateways.client.get(url)
