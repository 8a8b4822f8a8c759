"""A result that a gateway gives to the key alone: the key goes to the gateway's own origin, and nowhere else by whatever way."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from tests.engine.scripted_server import Step, Wire, cut, file, redirect, refuse
from tests.vault import registered

from prefect_happyhorse.domain.errors import DownloadFailed
from prefect_happyhorse.domain.jobs import Output
from prefect_happyhorse.engine.http.auth import TokenStore
from prefect_happyhorse.engine.http.connections import Client
from prefect_happyhorse.engine.http.result_key import ResultKey
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account

from .conftest import OPTIONS, VIDEO, Gateway, Get

KEY = "sesame-open-1234"
Opens = Callable[[str], ResultKey]


@pytest.fixture(autouse=True)
async def _vault() -> AsyncIterator[None]:
    with registered():
        yield


@pytest.fixture
def opens(client: httpx.AsyncClient, tokens: TokenStore) -> Opens:
    """The key of an account at a base URL."""

    def opens(base_url: str) -> ResultKey:
        return ResultKey(Client(lambda **_: client), Account(gateway="vault", base_url=base_url, key=SecretStr(KEY)), tokens)

    return opens


def sent(wire: Wire) -> list[str | None]:
    """The key in each request that a server received."""
    assert not [one for one in wire.received if KEY in one.target]
    return [one.headers.get("x-vault-key") for one in wire.received]


def shown(error: BaseException) -> str:
    """An error and all that led to it, with what the variables of every frame held, but for those of this very module."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    chain = [told]
    while (before := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(before)
    for one in chain:
        one.stack = traceback.StackSummary.from_list(frame for frame in one.stack if "tests" not in Path(frame.filename).parts)
    return "".join(told.format())


def keyed(wire: Wire, path: str = "/videos/1/content") -> Output:
    return Output(kind="video", url=wire.url(path), keyed=True)


async def test_the_gateway_itself_gets_the_key(get: Get, opens: Opens) -> None:
    """With every attempt, one that goes on from where another broke off included; and the asset names no address."""
    async with Wire([cut(VIDEO, 200_000), file(VIDEO)]) as own:
        kept = await get(keyed(own), key=opens(own.url("/v2")))
        assert sent(own) == [KEY, KEY]
        assert own.received[1].headers["range"].startswith("bytes=")
    assert (kept.info.bytes, kept.url) == (len(VIDEO), None)


async def test_an_output_of_an_ordinary_address_gets_no_key(get: Get, opens: Opens) -> None:
    """Not at the gateway's own origin either: nobody asked for one."""
    async with Wire([file(VIDEO)]) as own:
        kept = await get(own.url(), key=opens(own.url("/v2")))
        assert sent(own) == [None]
    assert kept.url == own.url()


@pytest.mark.parametrize("change", [{"port": 1}, {"host": "localhost"}, {"scheme": "https"}])
async def test_another_origin_gets_no_key(get: Get, opens: Opens, change: dict[str, object]) -> None:
    """Another port, host or scheme is another origin, whatever the output says of itself."""
    async with Wire([file(VIDEO)]) as other:
        await get(keyed(other), key=opens(str(httpx.URL(other.url("")).copy_with(**change))))  # pyright: ignore[reportArgumentType]
        assert sent(other) == [None]


async def test_a_redirect_to_elsewhere_loses_the_key_for_good(get: Get, opens: Opens) -> None:
    """Also where it leads back: whoever is in between chose that."""
    steps: list[Step] = []
    async with Wire(steps) as own, Wire([redirect(own.url("/again"))]) as other:
        steps += [redirect("/moved"), redirect(other.url("/elsewhere")), file(VIDEO)]
        await get(keyed(own), key=opens(own.url("")))
        assert (sent(own), sent(other)) == ([KEY, KEY, None], [None])


async def test_a_gateway_to_which_no_key_may_be_sent_gets_none(opens: Opens) -> None:
    """An address without encryption off this machine, as for every other call."""
    assert not opens("http://vault.example").opens(httpx.URL("http://vault.example/videos/1/content"))
    assert opens("https://Vault.example/v2").opens(httpx.URL("https://vault.example:443/videos/1/content"))


async def test_without_a_key_nothing_is_requested(get: Get, opens: Opens) -> None:
    """And what is missing is said."""
    async with Wire([]) as own:
        key = opens(own.url(""))
        with pytest.raises(DownloadFailed, match="to its account's key alone, and There is no key for vault"):
            await get(keyed(own), key=replace(key, account=replace(key.account, key=None)))
        assert own.received == []


async def test_a_token_that_cannot_be_had_now_is_waited_for(get: Get, opens: Opens, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is exchanged may be had a moment later."""
    from prefect_happyhorse.gateways import CallUnavailable

    answers = [CallUnavailable("Not now.", may_have_acted=False), SecretStr(KEY)]

    async def authorize(*_: object) -> SecretStr:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("prefect_happyhorse.engine.http.result_key.authorize", authorize)
    async with Wire([file(VIDEO)]) as own:
        await get(keyed(own), key=opens(own.url("")))
        assert sent(own) == [KEY]


@pytest.mark.parametrize("is_keyed", [True, False])
async def test_a_gateway_that_echoes_the_key_shows_it_to_nobody(get: Get, opens: Opens, store: Store, is_keyed: bool) -> None:
    """Neither in an error, however its traceback is shown, nor in the state of a partial download; also where the result needs no key."""
    page = b"<html>no</html>"
    answers = [
        refuse(200, f"Content-Type: text/{KEY}\r\n", page),
        refuse(200, f"Content-Encoding: {KEY}\r\n", page),
        refuse(401, f"X: {KEY}\r\n"),
        redirect(f"ftp://elsewhere.example/{KEY}?k={KEY}"),
        redirect(f"http://user:{KEY}@elsewhere.example/"),
        redirect(f"http:\\\\elsewhere.example/{KEY}"),
    ]
    for answer in answers:
        async with Wire([answer] * 9) as own:
            same = keyed(own).model_copy(update={"keyed": is_keyed})
            with pytest.raises(DownloadFailed) as caught:
                await get(same, key=opens(own.url("")), refresh=Gateway(same, same))
            assert KEY not in shown(caught.value)
    async with Wire([cut(VIDEO, 200_000, tag=f'"{KEY}"'), refuse(404)]) as own:
        same = keyed(own).model_copy(update={"keyed": is_keyed})
        with pytest.raises(DownloadFailed):
            await get(same, key=opens(own.url("")), options=replace(OPTIONS, retries=0))
    left = b"".join(path.read_bytes() for path in store.scratch_dir().rglob("*") if path.is_file())
    assert len(left) > 100_000
    assert KEY.encode() not in left


async def test_a_call_that_breaks_shows_no_key(get: Get, opens: Opens) -> None:
    """The HTTP library's own errors and frames hold the request as it was sent."""
    key = opens("http://127.0.0.1:1/v2")
    with pytest.raises(DownloadFailed) as caught:
        await get(Output(kind="video", url="http://127.0.0.1:1/videos/1/content", keyed=True), key=key)
    assert KEY not in shown(caught.value)
