"""Where a download may go: redirects, private addresses, rebound names, certificates and proxies."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

import httpx
import pytest
import trustme
from tests.engine.download.conftest import PLACE, VIDEO, Get, lying
from tests.engine.scripted_server import Wire, cut, file, redirect, refuse

from prefect_happyhorse.domain.errors import DownloadFailed
from prefect_happyhorse.engine.download.download import DownloadOptions
from prefect_happyhorse.engine.http.auth import TokenStore
from prefect_happyhorse.engine.http.connections import Client
from prefect_happyhorse.engine.http.result_key import ResultKey
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account


async def test_redirects(get: Get, store: Store) -> None:
    """Redirects are followed, relative and absolute, with the Range that is wanted."""
    async with Wire([cut(VIDEO, 100_000), redirect("b?c=1"), file(VIDEO)]) as wire:
        await get(wire.url("/x/a"))
    assert [(request.target, request.headers.get("range")) for request in wire.received] == [
        ("/x/a", None),
        ("/x/a", "bytes=100000-"),
        ("/x/b?c=1", "bytes=100000-"),
    ]
    assert lying(store) == {PLACE: VIDEO}


async def test_redirect_to_nowhere(get: Get, store: Store) -> None:
    """A redirect that does not say where to is tried again."""
    async with Wire([refuse(302), file(VIDEO)]) as wire:
        await get(wire.url())
    assert lying(store) == {PLACE: VIDEO}


async def test_proxy_knows_the_name(get: Get, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only the proxy can resolve names, it is left to do so."""

    async def getaddrinfo(*_: object, **__: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async with Wire([file(VIDEO)]) as wire:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{wire.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        async with httpx.AsyncClient() as client:
            with monkeypatch.context() as patch:
                patch.setattr("prefect_happyhorse.engine.http.proxy.checked_addresses", getaddrinfo)
                await get("http://results.example/a", client=client, local_allowed=False)
    assert [request.target for request in wire.received] == ["http://results.example/a"]
    assert lying(store) == {PLACE: VIDEO}


async def test_redirect_circle(get: Get) -> None:
    """Redirects that lead in a circle end."""
    async with Wire([redirect("/again")] * 9) as wire:
        with pytest.raises(DownloadFailed, match="more than 2 redirects"):
            await get(wire.url(), options=DownloadOptions(redirects=2, refreshes=0))
    assert len(wire.received) == 3


@pytest.mark.parametrize(
    "target", ["ftp://example.com/x", "file:///etc/passwd", "gopher://example.com/", "http://user:pw@example.com/", "http://xn--zzzzzz/"]
)
async def test_strange_redirect(target: str, get: Get) -> None:
    """Only http and https are followed, and no user name or password is."""
    async with Wire([redirect(target)]) as wire:
        with pytest.raises(DownloadFailed) as caught:
            await get(wire.url())
    assert "pw" not in str(caught.value)
    assert len(wire.received) == 1


@pytest.mark.parametrize("target", [r"https://good.example\@evil.example/x", r"\\evil.example\x", r"/\evil.example"])
async def test_ambiguous_redirect(target: str, get: Get) -> None:
    """What others would read as another host is neither followed nor fetched."""
    async with Wire([redirect(target)]) as wire:
        with pytest.raises(DownloadFailed, match="must hold no backslash"):
            await get(wire.url())
        with pytest.raises(DownloadFailed, match="the address must hold no backslash"):
            await get(rf"http://127.0.0.1:{wire.port}\@evil.example/x", options=DownloadOptions(refreshes=0))
    assert len(wire.received) == 1


@pytest.mark.parametrize("address", ["169.254.169.254", "100.100.100.200", "::ffff:169.254.169.254", "fd00:ec2::254"])
async def test_metadata(address: str, get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cloud's metadata is out of reach for a gateway in a private network too: by address, by name and by redirect."""
    Names(monkeypatch, results_example=[address])
    host = f"[{address}]" if ":" in address else address
    for url in (f"http://{host}/latest/meta-data", "http://results.example/x"):
        async with Wire([redirect(url)]) as wire:
            for start in (url, wire.url()):
                with pytest.raises(DownloadFailed, match="which is link-local or a cloud's metadata"):
                    await get(start)


class Names:
    """A resolver that answers from a script; each name takes its next answer, and stays with the last."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: list[str]) -> None:
        self.answers = {name.replace("_", "."): addresses for name, addresses in answers.items()}
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self.getaddrinfo)

    async def getaddrinfo(self, host: str, port: int, **_: object) -> list[Any]:
        """In place of the event loop's own."""
        known = self.answers.get(host)
        if known is None:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]
        address = known.pop(0) if len(known) > 1 else known[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]


async def test_private_redirect(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redirect to a private address is not followed: nothing is sent there."""
    Names(monkeypatch, results_example=["93.184.215.14"], inside_example=["10.0.0.7"])
    sent: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(str(request.url))
        return httpx.Response(302, headers={"Location": "https://inside.example/x"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        with pytest.raises(DownloadFailed, match=r"inside\.example is at 10\.0\.0\.7, which is not on the public internet"):
            await get("https://results.example/a", client=client, local_allowed=False)
    assert sent == ["https://93.184.215.14/a"]


async def test_rebinding(get: Get, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection goes to the address that was checked, under the name of the URL, even if the name means another one by then."""
    Names(monkeypatch, results_example=["93.184.215.14", "127.0.0.1"])
    sent: list[tuple[str, str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append((str(request.url), request.headers["Host"], request.extensions["sni_hostname"]))
        return httpx.Response(503) if len(sent) == 1 else httpx.Response(200, content=VIDEO)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        with pytest.raises(DownloadFailed, match=r"results\.example is at 127\.0\.0\.1"):
            await get("https://results.example:8443/a?b=1", client=client, local_allowed=False)
    assert sent == [("https://93.184.215.14:8443/a?b=1", "results.example:8443", "results.example")]
    assert lying(store) == {}


async def test_downgrade(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redirect from https to http is not followed."""
    Names(monkeypatch, results_example=["93.184.215.14"])
    transport = httpx.MockTransport(lambda request: httpx.Response(302, headers={"Location": "http://results.example/x"}))
    async with httpx.AsyncClient(transport=transport) as client:
        with pytest.raises(DownloadFailed, match="a redirect leads from https to http"):
            await get("https://results.example/a", client=client, local_allowed=False)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "http://[::1]:1/x", "http://169.254.169.254/latest", "http://2130706433/x"])
async def test_private_address(url: str, get: Get) -> None:
    """A result of a public gateway is not fetched from this machine or a private network."""
    with pytest.raises(DownloadFailed, match="not on the public internet"):
        await get(url, local_allowed=False)


@pytest.mark.parametrize(("name", "is_good"), [("results.example", True), ("other.example", False)])
async def test_certificate(name: str, is_good: bool, get: Get, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The certificate is checked against the name in the URL, though the connection is made to an address."""
    authority = trustme.CA()
    serving, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert(name).configure_cert(serving)
    authority.configure_trust(trusting)
    Names(monkeypatch, results_example=["127.0.0.1"])
    async with httpx.AsyncClient(verify=trusting, trust_env=False) as client, Wire([file(VIDEO)], tls=serving) as wire:
        url = f"https://results.example:{wire.port}/a"
        if is_good:
            await get(url, client=client)
            assert wire.received[0].headers["host"] == f"results.example:{wire.port}"
        else:
            with pytest.raises(DownloadFailed, match="CERTIFICATE_VERIFY_FAILED"):
                await get(url, client=client, options=DownloadOptions(retries=0))
    assert lying(store) == ({PLACE: VIDEO} if is_good else {})


async def test_next_address(get: Get, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a host has several addresses and the first does not answer, the next is tried."""

    async def getaddrinfo(host: str, port: int, **_: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("127.0.0.9", "127.0.0.1")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    async with Wire([file(VIDEO)]) as wire, httpx.AsyncClient(trust_env=False) as client:
        await get(f"http://results.example:{wire.port}/a", client=client)
    assert lying(store) == {PLACE: VIDEO}


async def test_no_such_name(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that does not resolve is tried again, and then reported."""

    async def getaddrinfo(*_: object, **__: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    with pytest.raises(DownloadFailed, match=r"the name results\.example could not be resolved"):
        await get("http://results.example/a")


async def test_proxy_of_the_environment(get: Get, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the environment names a proxy, it is asked for the host by name; hosts on this machine are refused without asking it."""
    async with Wire([file(VIDEO)]) as wire:
        monkeypatch.setenv("http_proxy", wire.url(""))
        monkeypatch.delenv("no_proxy", raising=False)
        Names(monkeypatch, results_example=["93.184.215.14"])
        async with httpx.AsyncClient() as client:
            await get("http://results.example/a", client=client, local_allowed=False)
            with pytest.raises(DownloadFailed, match="not on the public internet"):
                await get("http://127.1/a", client=client, local_allowed=False, index=1)
    assert [request.target for request in wire.received] == ["http://results.example/a"]
    assert lying(store) == {PLACE: VIDEO}


async def test_a_host_that_no_proxy_is_meant_for(get: Get, tokens: TokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is connected to by its address, which the environment does not name."""
    async with Wire([file(VIDEO)]) as wire, Wire([refuse(502)] * 9) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url(""))
        monkeypatch.setenv("no_proxy", "results.example")
        Names(monkeypatch, results_example=["127.0.0.1"])
        async with httpx.AsyncClient() as client, httpx.AsyncClient(trust_env=False) as past:
            clients = Client(lambda *, direct: past if direct else client)
            key = ResultKey(clients, Account(gateway="ttapi", base_url="https://api.ttapi.io"), tokens)
            await get(f"http://results.example:{wire.port}/a", client=client, key=key)
    assert (len(wire.received), len(proxy.received)) == (1, 0)
