"""The settings of calls: how long they take, by which proxy they go, and whose certificates count."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx
import pytest
import trustme
from tests.engine.scripted_server import Wire, refuse

from prefect_happyhorse.engine.download.exchange import DownloadOptions, FetchProblem, open_result
from prefect_happyhorse.engine.http.connections import Connections

_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def test_how_long_a_call_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a whole, in each of its waits, and until it is connected; that a call ends by it is shown beside."""
    monkeypatch.setenv("HAPPYHORSE_CALL_TIMEOUT_S", "33")
    monkeypatch.setenv("HAPPYHORSE_CONNECT_TIMEOUT_S", "7")
    async with Connections().client() as client:
        assert client.call_s == 33
        for http in (client.http, client.direct):
            assert (http.timeout.read, http.timeout.write, http.timeout.connect) == (33, 33, 7)


async def test_the_proxy_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is asked for gateways and downloads, before the environment's; never for this machine."""
    async with Wire([refuse(407)] * 2) as proxy, Wire([refuse(200)]) as here:
        monkeypatch.setenv("HAPPYHORSE_PROXY", proxy.url(""))
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
        async with Connections().client() as client:
            with pytest.raises(httpx.ProxyError):
                await client.http.get("https://gateway.example/")
            with pytest.raises(FetchProblem, match="ProxyError"):
                async with open_result(client.http, "https://93.184.215.14/a", headers={}, options=DownloadOptions(), local_allowed=False):
                    pass
            assert (await client.http.get(here.url("/a"))).status_code == 200
    assert [request.target for request in proxy.received] == ["gateway.example:443", "93.184.215.14:443"]


async def test_no_proxy_is_asked_where_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment names."""
    async with Wire([refuse(407)]) as proxy:
        monkeypatch.setenv("all_proxy", proxy.url(""))
        monkeypatch.setenv("HAPPYHORSE_PROXY", "none")
        async with Connections().client() as client:
            with pytest.raises(httpx.ConnectError):
                await client.http.get("https://gateway.invalid/")
    assert proxy.received == []


async def test_a_companys_own_authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its certificates count only where it is named; and beside the public ones, not in their place."""
    authority = trustme.CA()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(serving)
    async with Wire([refuse(200)] * 2, tls=serving) as wire:
        async with Connections().client() as client:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await client.http.get(wire.url())
        authority.cert_pem.write_to_path(str(tmp_path / "ours.pem"))
        monkeypatch.setenv("HAPPYHORSE_CA_BUNDLE", str(tmp_path / "ours.pem"))
        async with Connections().client() as client:
            assert (await client.http.get(wire.url())).status_code == 200


async def test_no_cookies_are_kept() -> None:
    """What a gateway sets is nothing that any call sends."""
    async with Wire([refuse(200, "Set-Cookie: a=b\r\n")] * 2) as wire, Connections().client() as client:
        for _ in range(2):
            assert (await client.http.get(wire.url())).headers["set-cookie"] == "a=b"
        assert len(client.http.cookies) == 0
    assert ["cookie" in one.headers for one in wire.received] == [False, False]


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_a_file_that_is_no_bundle(content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is named before anything is sent."""
    if content is not None:
        (tmp_path / "ours.pem").write_text(content)
    monkeypatch.setenv("HAPPYHORSE_CA_BUNDLE", str(tmp_path / "ours.pem"))
    with pytest.raises(OSError, match=r"the setting ca_bundle must name a PEM file with certificates .* nothing was sent.*ours\.pem"):
        async with Connections().client():
            pass
