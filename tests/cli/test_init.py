"""What `happyhorse init` asks, checks, refuses and makes; the key shows nowhere."""

from __future__ import annotations

import asyncio
import signal
import stat
import subprocess
from contextlib import suppress
from datetime import date
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists
from prefect.types import SecretDict
from pydantic import SecretStr

from prefect_happyhorse.blocks import GatewayCredentials, MediaStore
from prefect_happyhorse.cli import main
from prefect_happyhorse.cli.doctor import server as prefect_server_check
from prefect_happyhorse.cli.init import command, dotenv, server
from prefect_happyhorse.domain.prices import Price
from prefect_happyhorse.runtime.concurrency import calls_limit, jobs_limit

KEY = "sesame-1234"


@pytest.fixture(autouse=True)
def here(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, and a key in a variable; no server, but where a test has one."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MY_KEY", KEY)
    if "prefect_server" not in request.fixturenames:
        monkeypatch.setattr(prefect_server_check, "api_url", lambda: None)
    return folder


def run(*words: str, code: int, typed: str | None = None) -> Result:
    done = CliRunner().invoke(main, ["init", *words], input=typed)
    assert done.exit_code == code, done.output
    assert KEY not in done.output
    return done


def ttapi(*words: str, code: int = 0, key: tuple[str, ...] = ("--key-from-env", "MY_KEY"), typed: str | None = None) -> Result:
    return run("--gateway", "ttapi", "--store", "/srv/films", *key, *words, code=code, typed=typed)


def test_without_a_terminal_all_that_is_missing_is_told_at_once(here: Path) -> None:
    """With the options that would say it; nothing is written."""
    told = run(code=2).stderr
    assert all(option in told for option in ("--gateway", "--key-from-env", "--key-stdin", "--store"))
    assert "--base-url" in run("--gateway", "uniall", code=2).stderr
    assert "the variable NOT_SET is not set" in run("--gateway", "ttapi", "--key-from-env", "NOT_SET", code=2).stderr
    assert "standard input holds none" in run("--gateway", "ttapi", "--key-stdin", code=2, typed="").stderr
    assert list(here.iterdir()) == []


def test_the_key_is_no_argument() -> None:
    """Others on the machine could read it."""
    assert not {"--key", "--api-key", "--secret-key"} & {option for parameter in command.init.params for option in parameter.opts}


def test_a_file_env(here: Path) -> None:
    """Is its owner's alone, is read by a shell as it was meant, and says how."""
    done = ttapi("--account", "film & co", "--base-url", "https://ttapi.example")
    assert "set -a; . ./.env; set +a" in done.stdout
    file = here / ".env"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    shown = subprocess.run(
        ["/bin/sh", "-c", '. ./.env; echo "$TTAPI_API_KEY|$TTAPI_BASE_URL|$TTAPI_ACCOUNT|$HAPPYHORSE_STORE"'],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert shown.stdout == f"{KEY}|https://ttapi.example|film & co|file:///srv/films\n"


def test_a_key_from_standard_input(here: Path) -> None:
    """Its first line; with an app id it is the secret key."""
    ttapi(key=("--key-stdin",), typed=f"{KEY}\n")
    assert f"TTAPI_API_KEY={KEY}\n" in (here / ".env").read_text()
    run("--gateway", "chanjing", "--app-id", "app-1", "--key-stdin", "--store", "/srv/films", code=0, typed=f"{KEY}\n")
    text = (here / ".env").read_text()
    assert f"CHANJING_APP_ID=app-1\nCHANJING_SECRET_KEY={KEY}\n" in text
    assert "CHANJING_API_KEY" not in text
    assert text.count("HAPPYHORSE_STORE=") == 1


def test_lines_that_are_there_are_kept(here: Path) -> None:
    """One that says otherwise is refused by its name, or replaced in its place where that is wished."""
    file = here / ".env"
    file.write_text("# mine\nOTHER='x y'\nexport TTAPI_API_KEY=old-key # of last year\nHAPPYHORSE_STORE=file:///srv/films")
    file.chmod(0o644)
    told = ttapi(code=2).stderr
    assert ".env sets TTAPI_API_KEY otherwise already: --overwrite" in told
    assert "old-key" not in told
    assert "old-key" in file.read_text()
    assert "could be read by others" in ttapi("--overwrite").stdout
    assert file.read_text() == f"# mine\nOTHER='x y'\nTTAPI_API_KEY={KEY}\nHAPPYHORSE_STORE=file:///srv/films\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_text()
    ttapi()
    assert file.read_text() == before


def test_a_system_without_modes_is_not_said_to_be_open(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows shows 0o666 of every file."""
    (here / ".env").write_text("A=b")
    (here / ".env").chmod(0o644)
    monkeypatch.setattr("os.name", "nt")
    was_open = dotenv.write(here / ".env", "A=c\n")
    monkeypatch.undo()
    assert (was_open, (here / ".env").read_text()) == (False, "A=c\n")


def test_what_a_file_says_beside_is_kept_and_told(here: Path) -> None:
    """Whoever loads it pays with the account that stands in it; of another address nothing stays that would win over it."""
    (here / ".env").write_text(f"TTAPI_API_KEY={KEY}\nTTAPI_ACCOUNT=film\nTTAPI_PRICES=mine.toml\nTTAPI_BASE_URL=https://old.example\n")
    done = ttapi()
    assert "gateway: ttapi at https://old.example, account film" in done.stdout
    assert "replaced: what .env says of ttapi, which keeps base_url, account" in done.stdout
    run("--gateway", "infiflow", "--key-from-env", "MY_KEY", "--store", "/srv/films", code=0)
    text = (here / ".env").read_text()
    assert "TTAPI_ACCOUNT=film\nTTAPI_PRICES=mine.toml\nTTAPI_BASE_URL=https://old.example\n" in text
    (here / ".env").write_text(f"{text}DASHSCOPE_API_KEY={KEY}\nDASHSCOPE_BASE_URL=https://old.example\nDASHSCOPE_ACCOUNT=film\n")
    words = ("--gateway", "dashscope", "--region", "beijing", "--key-from-env", "MY_KEY", "--store", "/srv/films")
    assert ".env sets DASHSCOPE_BASE_URL otherwise already" in run(*words, code=2).stderr
    assert "keeps account and LOSES base_url" in run(*words, "--overwrite", code=0).stdout
    assert "DASHSCOPE_BASE_URL" not in (here / ".env").read_text()


def test_a_linked_file_env(here: Path, tmp_path: Path) -> None:
    """Is written where the link leads."""
    (here / ".env").symlink_to(tmp_path / "kept.env")
    ttapi()
    assert (here / ".env").is_symlink()
    assert KEY in (tmp_path / "kept.env").read_text()


@pytest.mark.parametrize("value", ["it's", "a\\b", "two\nlines"])
def test_what_not_all_read_alike(value: str) -> None:
    """Is refused by its name, and the value is not shown."""
    with pytest.raises(ValueError, match=r"^TTAPI_ACCOUNT must hold no quote, backslash or line break"):
        dotenv.merged("", {"TTAPI_ACCOUNT": value})


def test_a_line_that_cannot_be_read() -> None:
    """Is another value."""
    assert dotenv.merged("A='open\n", {"A": "1"}) == ("A=1\n", ["A"])


def test_all_that_is_wrong_is_told_at_once(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is made."""
    monkeypatch.setenv("MY_KEY", f" {KEY} ")
    words = ("--base-url", "ftp://x", "--region", "paris", "--public-base-url", "https://films.example", "--save", "env", "--limits")
    told = run("--gateway", "happyhorse", "--store", "xyz://films", "--key-from-env", "MY_KEY", *words, code=2).stderr
    assert all(
        one in told for one in ("api_key", "store: ", "public_base_url: goes with --save blocks", "limits: happyhorse documents none")
    )
    assert "Nothing was changed" in told
    assert list(here.iterdir()) == []
    ttapi("--account", "it's", code=2)
    assert list(here.iterdir()) == []


def test_a_folder_in_the_files_place(here: Path) -> None:
    """Is refused too."""
    (here / "folder.env").mkdir()
    assert ttapi("--env-file", "folder.env", code=2).exit_code == 2


def test_on_a_terminal_it_asks(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For all that no option says, shows what it is about to do, and asks once more; the key is not shown."""
    monkeypatch.setattr(command, "sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    typed = f"\nuniall\nhttps://uniall.example\n{KEY}\n/srv/films\nenv\n"
    told = run(code=1, typed=f"{typed}n\n").output
    assert "Error: '' is not one of" in told
    assert "gateway: uniall at https://uniall.example, account default" in told
    assert list(here.iterdir()) == []
    run(code=0, typed=f"{typed}y\n")
    assert f"UNIALL_API_KEY={KEY}\n" in (here / ".env").read_text()
    (here / ".env").unlink()
    run("--yes", code=0, typed=typed)
    assert (here / ".env").exists()


def test_an_answer_that_cannot_be(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is told where it was given, and asked for anew; what a key was is not shown."""
    monkeypatch.setattr(command, "sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    answers = {
        "unial": "'unial' is not one of",
        "uniall": "",
        "http://uniall.example": "must be https unless its host is this machine",
        "https://uniall.example": "",
        "": "must not be empty",
        f" {KEY}": "paste it anew",
        f"{KEY}\t{KEY}": "paste it anew",
        f"{KEY}é": "paste it anew",
        KEY: "",
        "xyz://films": "xyz",
        "s3://": "bucket",
        "/srv/films": "",
        "blocs": "'blocs' is not one of",
        "env": "",
        "y": "",
    }
    asked = run(code=0, typed="".join(f"{answer}\n" for answer in answers)).stderr
    told = [line for line in asked.replace(": Error", ":\nError").splitlines() if "Error: " in line]
    assert len(told) == len([why for why in answers.values() if why]), asked
    for line, why in zip(told, filter(None, answers.values()), strict=True):
        assert why in line
    assert f"UNIALL_API_KEY={KEY}\n" in (here / ".env").read_text()


def test_one_interrupt_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a question, where asyncio would only take note of it and wait for the answer."""

    def interrupted(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)
        pytest.fail("It went on.")

    monkeypatch.setattr(command, "sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    monkeypatch.setattr("click.prompt", interrupted)
    assert "Aborted!" in run(code=1).output


@pytest.mark.parametrize(
    ("gateway", "rule"), [("ttapi", "left empty for ttapi, which has none"), ("dashscope", "one of beijing, singapore")]
)
def test_a_region_that_there_is_not(gateway: str, rule: str) -> None:
    """Is what is told, and not that an address is missing."""
    told = run("--gateway", gateway, "--region", "mars", "--store", "/srv/films", "--key-from-env", "MY_KEY", code=2).stderr
    assert f"region must be {rule}" in told
    assert "--base-url" not in told


def test_a_number_of_jobs_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it needs a server, as --limits do, and goes not with --no-limits."""

    async def unreachable() -> str:
        return "http://x/api does not answer: ConnectError: refused."

    monkeypatch.setattr(server, "unreachable", unreachable)
    assert "does not answer" in ttapi("--jobs", "20", "--save", "env", code=2).stderr
    assert "--no-limits" in ttapi("--jobs", "20", "--no-limits", code=2).stderr


def saved(name: str, store: str) -> tuple[GatewayCredentials, MediaStore]:
    async def load() -> Any:
        return await GatewayCredentials.aload(name), await MediaStore.aload(store)

    return asyncio.run(load())


def make_pool(name: str, kind: str = "process") -> None:
    async def make() -> None:
        async with get_client() as client:
            with suppress(ObjectAlreadyExists):
                await client.create_work_pool(WorkPoolCreate(name=name, type=kind))

    asyncio.run(make())


@pytest.mark.usefixtures("prefect_server")
class TestServer:
    """Blocks, limits, automations and deployments."""

    def test_blocks(self, tmp_path: Path) -> None:
        """Are saved once; over one that is there only where that is wished, and another gateway shares the store's."""
        first = ("--name", "init-one", "--store-name", "init-store", "--public-base-url", "https://films.example")
        ttapi(*first)
        credentials, store = saved("init-one", "init-store")
        assert credentials.api_key is not None
        assert (credentials.api_key.get_secret_value(), store.url) == (KEY, "file:///srv/films")
        assert store.public_base_url == "https://films.example"
        told = ttapi(*first, "--store", "/srv/others", code=2).stderr
        assert "block 'init-one' already: --overwrite replaces it, --name" in told
        assert "'init-store' of a store" in told
        ttapi("--name", "init-two", *first[2:])
        ttapi(*first, "--store", "/srv/others", "--overwrite")
        assert saved("init-one", "init-store")[1].url == "file:///srv/others"

    def test_what_is_not_asked_for_is_kept(self) -> None:
        """Of a block that is replaced: prices and account above all; what belongs to another address or place goes, which is said first."""
        price = Price(model="gpt-image-2", per="output", amount=Decimal("0.9"), currency="CNY", dated=date(2026, 11, 1))

        async def save() -> None:
            old = GatewayCredentials(
                gateway="ttapi", api_key=SecretStr("old"), base_url="http://10.0.0.1", private_network=True, account="film", prices=[price]
            )
            await old.asave("init-kept", overwrite=True)
            store = MediaStore(url="/srv/films", options=SecretDict({"auto_mkdir": True}), public_base_url="https://old.example")
            await store.asave("init-kept", overwrite=True)

        asyncio.run(save())
        names = ("--name", "init-kept", "--store-name", "init-kept", "--overwrite")
        told = ttapi(*names, "--public-base-url", "https://new.example").stdout
        assert "keeps base_url, account, private_network, prices" in told
        assert "LOSES" not in told
        assert "account film" in told
        credentials, store = saved("init-kept", "init-kept")
        assert credentials.api_key is not None
        assert (credentials.api_key.get_secret_value(), credentials.account, credentials.prices) == (KEY, "film", [price])
        assert (credentials.base_url, store.options.get_secret_value()) == ("http://10.0.0.1", {"auto_mkdir": True})
        assert store.public_base_url == "https://new.example"
        told = ttapi(*names, "--base-url", "https://ttapi.example", "--store", "/srv/others").stdout
        assert "keeps account, prices and LOSES private_network" in told
        assert "LOSES options, public_base_url" in told
        told = run("--gateway", "infiflow", "--key-from-env", "MY_KEY", "--store", "/srv/others", *names, code=0).stdout
        assert "LOSES base_url, account, prices" in told

    def test_limits_and_automations(self) -> None:
        """As `happyhorse setup` makes them."""
        words = ("--name", "init-limits", "--store-name", "init-limits", "--account", "init", "--jobs", "7", "--automations")
        told = ttapi(*words).stdout

        async def limits() -> list[tuple[str, int]]:
            async with get_client() as client:
                names = [jobs_limit("ttapi", "init"), calls_limit("ttapi", "init")]
                return [(name, (await client.read_global_concurrency_limit_by_name(name)).limit) for name in names]

        assert asyncio.run(limits()) == [("happyhorse-ttapi-init-jobs", 7), ("happyhorse-ttapi-init-calls", 20)]
        assert "happyhorse: pause on an uncertain submit" in told

    def test_deployments(self) -> None:
        """Every flow, to a process pool that is there, with the blocks; what would be written over or cannot be made is refused."""
        names = ("--name", "init-deploy", "--store-name", "init-deploy")
        make_pool("init-docker", "docker")
        assert "prefect work-pool create nowhere" in ttapi(*names, "--deploy", "nowhere", code=2).stderr
        assert "deployments/docker.yaml" in ttapi(*names, "--deploy", "init-docker", code=2).stderr
        make_pool("init-pool")
        assert "batch/process, collect/process" in ttapi(*names, "--deploy", "init-pool").stdout

        async def made() -> dict[str, Any]:
            async with get_client() as client:
                return {name: await client.read_deployment_by_name(name) for name in await server.deployed()}

        found = asyncio.run(made())
        assert sorted(found) == [f"{name.replace('_', '-')}/process" for name in sorted(server.FLOWS)]
        assert {one.work_pool_name for one in found.values()} == {"init-pool"}
        assert {one.parameters["store"] for one in found.values()} == {"init-deploy"}
        assert found["batch/process"].parameters["credentials"] == "init-deploy"
        assert {name for name, one in found.items() if one.schedules} == {"collect/process"}
        told = ttapi("--name", "init-more", "--store-name", "init-more", "--deploy", "init-pool", code=2).stderr
        assert "batch/process" in told
        assert "--overwrite" in told
        ttapi("--save", "env", "--deploy", "init-pool", "--overwrite")
        assert asyncio.run(made())["batch/process"].parameters == {"store": "file:///srv/films", "credentials": "ttapi"}

    def test_on_a_terminal_it_asks_what_the_server_should_know(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """And to which pool, where one is there."""
        make_pool("init-asked")
        monkeypatch.setattr(command, "sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
        words = ("--name", "init-asked", "--store-name", "init-asked", "--overwrite")
        told = ttapi(*words, typed="blocks\ny\nn\ninit-asked\ny\n").output
        assert "Made: the limit happyhorse-ttapi-default-calls" in told
        assert "automation" not in told.partition("Go on?")[2]
        assert "Deployed: batch/process" in told
        again = ttapi(*words[:-1], code=2, typed="blocks\nn\nn\nnone\n").output
        assert again.index("There is a block 'init-asked' already") < again.index("Save as")


def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    """Is told with the way out."""

    async def unreachable() -> str:
        return "http://x/api does not answer: ConnectError: refused."

    monkeypatch.setattr(server, "unreachable", unreachable)
    told = ttapi("--save", "blocks", code=2).stderr
    assert "http://x/api does not answer: ConnectError: refused" in told
    assert "--save env" in told
