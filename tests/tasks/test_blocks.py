"""The blocks: who pays, and where the results are kept."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites import BlockStandardTestSuite
from prefect.types import SecretDict
from pydantic import SecretStr, ValidationError

from prefect_happyhorse import GATEWAYS, AuthenticationFailed, GatewayCredentials, GatewayPool, MediaStore, PollRejected
from prefect_happyhorse.engine.http.client import is_local
from prefect_happyhorse.engine.storage.backend import HiddenOptions
from prefect_happyhorse.engine.storage.fsspec_backend import open_filesystem

OPTIONS = {"key": "AK", "secret": "sesame-0123456789"}


@pytest.mark.parametrize("block", [GatewayCredentials, GatewayPool, MediaStore])
class TestStandards(BlockStandardTestSuite):
    """Prefect's own standards for blocks."""

    @pytest.fixture
    def block(self, request: pytest.FixtureRequest) -> type[Block]:
        return request.param

    def test_has_a_valid_image(self, block: type[Block]) -> None:
        """The logo is one of Prefect's own square ones; the suite would fetch it, and tests do without a network."""
        assert str(block._logo_url).startswith("https://raw.githubusercontent.com/PrefectHQ/prefect/")
        assert str(block._logo_url).endswith(".png")


def test_the_key_shows_nowhere() -> None:
    """Neither repr, str nor JSON of the credentials holds a secret."""
    credentials = GatewayCredentials(gateway="chanjing", app_id="app-1", secret_key=SecretStr("sesame-1"), api_key=SecretStr("sesame-2"))
    assert "sesame" not in f"{credentials!r} {credentials} {credentials.model_dump_json()} {credentials.to_account()!r}"
    store = MediaStore(url="s3://bucket", options={"secret": "sesame-3"})  # pyright: ignore[reportArgumentType]
    assert "sesame" not in f"{store!r} {store} {store.model_dump_json()} {store.to_store()!r}"


async def test_blocks_reach_other_processes_whole(prefect_server: None) -> None:
    """As a task runner on other machines sends them: the secrets, and the name that the journal remembers the payer by."""
    await GatewayCredentials(gateway="ttapi", api_key=SecretStr("sesame-1"), account="film").save("payer", overwrite=True)
    credentials = await GatewayCredentials.find("payer")
    arrived = cloudpickle.loads(cloudpickle.dumps(credentials))
    assert arrived.to_account() == credentials.to_account()
    assert (arrived.to_account().key.get_secret_value(), arrived.to_account().credentials) == ("sesame-1", "payer")
    store = MediaStore(url="s3://bucket", options={"secret": "sesame-2"})  # pyright: ignore[reportArgumentType]
    assert cloudpickle.loads(cloudpickle.dumps(store)).to_store() == store.to_store()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"gateway": "nowhere"}, "gateway must be one of chanjing, dashscope, happyhorse, infiflow, ttapi, uniall (got 'nowhere')"),
        ({"gateway": "ttapi", "base_url": "ftp://example.com"}, "base_url"),
        ({"gateway": "ttapi", "base_url": "https://user:pass@example.com"}, "belongs into api_key"),
        (
            {"gateway": "ttapi", "base_url": "http://api.example"},
            "base_url must be https unless its host is this machine or private_network is true (got 'http://api.example')",
        ),
        ({"gateway": "ttapi", "base_url": "http://127.evil.com"}, "must be https"),
        ({"gateway": "ttapi", "base_url": "http://127.0.0.1.nip.io"}, "must be https"),
        ({"gateway": "ttapi", "base_url": r"https://good.example\@evil.example"}, "must hold no backslash"),
        ({"gateway": "ttapi", "base_url": "https://good.example/\n"}, "control character"),
        ({"gateway": "ttapi", "base_url": "https://169.254.169.254"}, "link-local"),
        ({"gateway": "ttapi", "base_url": "http://2852039166", "private_network": "true"}, "link-local"),
        ({"gateway": "ttapi", "base_url": "https://good.example/?a=b"}, "belongs into api_key"),
        ({"gateway": "ttapi", "temporary_upload": True}, "temporary_upload must stay false for ttapi"),
        ({"gateway": "ttapi", "submit_path": "no-slash"}, "begin with one slash"),
        ({"gateway": "ttapi", "poll_path": "/jobs"}, "must hold {task_id}"),
        ({"gateway": "chanjing", "app_id": "app-1"}, "go together"),
        ({"gateway": "ttapi", "app_id": "app-1", "secret_key": "s"}, "must stay empty for ttapi"),
        (
            {"gateway": "dashscope", "region": "paris"},
            "region must be one of beijing, singapore, virginia, frankfurt, tokyo, hongkong (got",
        ),
        ({"gateway": "ttapi", "region": "beijing"}, "region must be left empty for ttapi, which has none (got 'beijing')"),
        ({"gateway": "ttapi", "workspace": "ws-1"}, "workspace must be left empty for ttapi"),
        ({"gateway": "dashscope", "region": "tokyo"}, "workspace must be given for the region tokyo"),
        ({"gateway": "dashscope", "region": "tokyo", "workspace": "ws-1.evil.com/"}, "workspace"),
    ],
)
def test_wrong_credentials_are_refused(fields: dict[str, str], told: str) -> None:
    """Each with the field and the way out."""
    with pytest.raises(ValidationError) as caught:
        GatewayCredentials(**fields)  # pyright: ignore[reportArgumentType]
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("region", "workspace", "address", "label"),
    [
        (None, None, "https://dashscope.aliyuncs.com", "default"),
        ("singapore", None, "https://dashscope-intl.aliyuncs.com", "singapore"),
        ("virginia", "llm-9", "https://llm-9.us-east-1.maas.aliyuncs.com", "virginia"),
        (None, "ws-1", "https://ws-1.cn-beijing.maas.aliyuncs.com", "default"),
        ("tokyo", "ws-1", "https://ws-1.ap-northeast-1.maas.aliyuncs.com", "tokyo"),
    ],
)
def test_a_region_gives_the_address_and_an_account_of_its_own(
    monkeypatch: pytest.MonkeyPatch, region: str | None, workspace: str | None, address: str, label: str
) -> None:
    """A job of one region is unknown in another, so that two of them are two accounts; an address of one's own comes first."""
    account = GatewayCredentials(gateway="dashscope", api_key=SecretStr("k"), region=region, workspace=workspace).to_account()
    assert (account.base_url, account.label, account.region) == (address, label, region)
    for name, value in (("API_KEY", "k"), ("REGION", region), ("WORKSPACE", workspace)):
        if value is not None:
            monkeypatch.setenv(f"DASHSCOPE_{name}", value)
    assert GatewayCredentials.from_environment("dashscope").to_account() == account
    own = GatewayCredentials(gateway="dashscope", api_key=SecretStr("k"), region=region, base_url="https://proxy.example/wan")
    assert own.to_account().base_url == "https://proxy.example/wan"


@pytest.mark.parametrize("field", ["api_key", "secret_key"])
@pytest.mark.parametrize(
    "key", ["sesame-1234\n", "sesame-\n1234", " sesame-1234", "sesame-1234\u200b", "s\u00e9same-1234", "sesame\x00-1234"]
)
def test_a_key_that_was_pasted_badly_is_refused_unseen(field: str, key: str) -> None:
    """When the block is made, and by a message that does not show it."""
    with pytest.raises(ValidationError, match=f"{field}\n.*must be printable ASCII") as caught:
        GatewayCredentials.model_validate({"gateway": "chanjing", "app_id": "app-1", "secret_key": "good", field: key})
    assert "same" not in str(caught.value)


def test_a_form_offers_every_gateway() -> None:
    """As Prefect's UI reads it from the block's schema; one that is registered later is offered too."""
    assert GatewayCredentials.model_json_schema()["properties"]["gateway"]["enum"] == list(GATEWAYS)


def test_missing_values_are_told_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway without host and key names both, and the variables that would give them."""
    for name in ("HAPPYHORSE_API_KEY", "HAPPYHORSE_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(AuthenticationFailed, match=r"HAPPYHORSE_BASE_URL.*HAPPYHORSE_API_KEY"):
        GatewayCredentials.from_environment("happyhorse").to_account()


def test_the_environment_gives_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key, address, account and Chanjing's pair are read from <GATEWAY>_ variables."""
    monkeypatch.setenv("CHANJING_APP_ID", "app-1")
    monkeypatch.setenv("CHANJING_SECRET_KEY", "s")
    monkeypatch.setenv("CHANJING_ACCOUNT", "sandbox_env")
    monkeypatch.setenv("CHANJING_BASE_URL", "https://open-api.chanjing.cc/")
    account = GatewayCredentials.from_environment("chanjing").to_account()
    assert (account.app_id, account.label, account.base_url) == ("app-1", "sandbox_env", "https://open-api.chanjing.cc")


@pytest.mark.parametrize(
    ("base_url", "label"),
    [
        ("http://127.0.0.1:8808/ttapi", "sandbox"),
        ("http://localhost:8808/ttapi", "sandbox"),
        ("http://[::1]:8808/ttapi", "sandbox"),
        ("https://api.ttapi.io", "default"),
        ("https://127.evil.com", "default"),
        ("https://127.0.0.1.nip.io", "default"),
    ],
)
def test_a_sandbox_is_an_account_of_its_own(base_url: str, label: str) -> None:
    """A sandbox's jobs can never pass for a paid gateway's in the journal."""
    assert GatewayCredentials(gateway="ttapi", api_key=SecretStr("k"), base_url=base_url).to_account().label == label


async def test_a_saved_block_comes_before_the_environment(prefect_server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name stands for the saved block, else for the gateway, else for nothing."""
    monkeypatch.setenv("TTAPI_API_KEY", "from-environment")
    assert (await GatewayCredentials.find("ttapi")).account is None
    await GatewayCredentials(gateway="ttapi", api_key=SecretStr("k"), account="from-block").asave("ttapi", overwrite=True)
    assert (await GatewayCredentials.find("ttapi")).account == "from-block"
    with pytest.raises(ValueError, match="no GatewayCredentials block named 'nobody'"):
        await GatewayCredentials.find("nobody")
    await Block.adelete("happyhorse-gateway-credentials/ttapi")


async def test_a_store_has_a_name_or_the_environments_or_outputs(
    prefect_server: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In that order."""
    monkeypatch.delenv("HAPPYHORSE_STORE", raising=False)
    assert (await MediaStore.find(None)).url == "outputs"
    monkeypatch.setenv("HAPPYHORSE_STORE", "memory://here")
    assert (await MediaStore.find(None)).url == "memory://here"
    await MediaStore(url=str(tmp_path), options={"auto_mkdir": True}).asave("shelf", overwrite=True)  # pyright: ignore[reportArgumentType]
    found = await MediaStore.find("shelf")
    assert (found.url, found.options.get_secret_value()) == (str(tmp_path), {"auto_mkdir": True})


def test_a_private_network_is_said_and_never_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host name tells nothing of where it leads, so results from private addresses are welcome only where that was said."""
    monkeypatch.setenv("TTAPI_API_KEY", "k")
    monkeypatch.setenv("TTAPI_BASE_URL", "https://sandbox:8808/ttapi")
    assert not is_local(GatewayCredentials.from_environment("ttapi").to_account())
    monkeypatch.setenv("TTAPI_PRIVATE_NETWORK", "true")
    monkeypatch.setenv("TTAPI_BASE_URL", "http://sandbox:8808/ttapi")
    account = GatewayCredentials.from_environment("ttapi").to_account()
    assert (is_local(account), account.label) == (True, "default")


def test_prices_come_from_the_block_or_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the account pays goes along with it; a wrong list is told with every problem."""
    row = {"model": "gpt-image-2", "per": "output", "amount": "0.25", "currency": "CNY", "dated": "2026-11-01"}
    block = GatewayCredentials.model_validate({"gateway": "ttapi", "api_key": "k", "prices": [row]})
    assert [str(price.amount) for price in block.to_account().prices] == ["0.25"]
    file = tmp_path / "prices.toml"
    file.write_text('[[price]]\nmodel = "*"\nper = "job"\namount = "1"\ncurrency = "CNY"\ndated = 2026-11-01\n')
    monkeypatch.setenv("TTAPI_API_KEY", "k")
    monkeypatch.setenv("TTAPI_PRICES", str(file))
    assert GatewayCredentials.from_environment("ttapi").to_account().prices[0].per == "job"
    file.write_text('[[price]]\nmodel = "*"\n')
    with pytest.raises(ValueError, match=r"price 0\.per"):
        GatewayCredentials.from_environment("ttapi")


@pytest.mark.usefixtures("prefect_server")
async def test_the_account_of_a_job_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the block's name where it had one, else from the environment; another account's is told."""
    block = GatewayCredentials(gateway="ttapi", api_key="sesame-7", account="film")
    await block.asave("of-a-job", overwrite=True)
    found = await GatewayCredentials.of_job(gateway="ttapi", account="film", name="of-a-job")
    assert found.to_account().credentials == "of-a-job"
    with pytest.raises(PollRejected, match="The block 'of-a-job' is of account 'film'"):
        await GatewayCredentials.of_job(gateway="ttapi", account="other", name="of-a-job")
    monkeypatch.setenv("TTAPI_API_KEY", "k")
    assert (await GatewayCredentials.of_job(gateway="ttapi", account="default", name=None)).to_account().credentials is None
    with pytest.raises(PollRejected, match="The environment's ttapi credentials"):
        await GatewayCredentials.of_job(gateway="ttapi", account="film", name=None)


WRONG: dict[str, Callable[[], object]] = {
    "address": lambda: GatewayCredentials.from_environment("happyhorse"),
    "template": lambda: MediaStore(url="s3://b", options=SecretDict(OPTIONS), path_template="{nope}").to_store(),
    "scheme": lambda: MediaStore(url="ftp://b", options=SecretDict(OPTIONS)).to_store(),
    "option": lambda: asyncio.run(MediaStore(url="memory://b", options=SecretDict(OPTIONS)).to_store().read("a")),
    "client library": lambda: open_filesystem("s3://b", HiddenOptions(OPTIONS)),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_traceback_with_locals_shows_no_secret(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As error trackers print it; that of the caller's own frames is the caller's."""
    monkeypatch.setenv("HAPPYHORSE_API_KEY", OPTIONS["secret"])
    monkeypatch.setenv("HAPPYHORSE_BASE_URL", "http://gateway.example")

    def fail(url: str, **options: Any) -> None:
        raise TypeError("there is no such option") if name == "option" else ImportError("it is not installed")

    monkeypatch.setattr("fsspec.core.url_to_fs", fail)
    with pytest.raises((ValueError, OSError, ImportError)) as caught:
        WRONG[name]()
    shown: list[str] = []
    found: BaseException | None = caught.value
    while found is not None:
        frames = traceback.TracebackException.from_exception(found, capture_locals=True).stack
        shown += [f"{frame.name} {frame.locals}" for frame in frames if "/tests/" not in frame.filename]
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
    assert shown
    assert not [line for line in shown if OPTIONS["secret"] in line]


def test_a_store_with_a_key_in_its_address_is_no_block() -> None:
    """A block is saved with its URL in the clear, and the refusal does not show it either."""
    with pytest.raises(ValidationError, match="must hold no key or password in its s3 address") as caught:
        MediaStore(url="s3://AKIA:sesame@bucket/outputs")
    assert "sesame" not in str(caught.value)
