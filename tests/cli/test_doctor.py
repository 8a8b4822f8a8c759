"""What the doctor says when things are well, and of each that is not; nothing is ever bought."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme
from click.testing import CliRunner, Result
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.settings import get_current_settings
from pydantic import SecretStr
from tests.cli.journal import bought, riding, write
from tests.engine.scripted_server import Wire, refuse

from prefect_happyhorse.blocks import GatewayCredentials, MediaStore
from prefect_happyhorse.catalog import GATEWAYS
from prefect_happyhorse.cli import main
from prefect_happyhorse.cli.doctor import gateways, places, server
from prefect_happyhorse.cli.doctor.findings import Finding
from prefect_happyhorse.engine.journal.journal import Failure, Journal
from prefect_happyhorse.engine.journal.owner import LeaseOwner
from prefect_happyhorse.engine.storage.local import LocalFolder
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.sandbox import SandboxServer

KEY = "sesame-1234"


@pytest.fixture(autouse=True)
def _alone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a Prefect server, but where a test has one."""
    if "prefect_server" not in request.fixturenames:
        for module in (server, gateways, places):
            monkeypatch.setattr(module, "api_url", lambda: None)


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *words])


def found(*words: str, code: int) -> list[Finding]:
    """All that the doctor says, ended by a code; no line shows the key."""
    done = run(*words, "--json")
    assert done.exit_code == code, done.output
    assert KEY not in done.output
    assert "Traceback" not in done.output
    return [Finding(**json.loads(line)) for line in done.stdout.splitlines()]


def bad(findings: list[Finding], check: str | None = None) -> list[Finding]:
    return [one for one in findings if one.level != "ok" and one.check != "worker's folder" and check in {None, one.check}]


def only(findings: list[Finding], check: str) -> Finding:
    (one,) = bad(findings, check)
    assert one.advice
    return one


@pytest.fixture
def one_gateway(sandbox_env: SandboxServer, monkeypatch: pytest.MonkeyPatch, store: Store) -> SandboxServer:
    """The gateway happyhorse alone has a key, and the store is there."""
    for name in GATEWAYS:
        if name != "happyhorse":
            monkeypatch.delenv(f"{name.upper()}_API_KEY")
    return sandbox_env


def test_all_is_well(sandbox_env: SandboxServer) -> None:
    """Each gateway with a key is asked, each thing has a line, and the code is 0."""
    findings = found(code=0)
    taken = {one.check for one in findings if one.what == "the key is taken"}
    # Chanjing's document has no code for a job that is not there; it says so.
    assert taken == {f"gateway {name}" for name in GATEWAYS if name != "chanjing"}
    assert "whether the key is taken is not known" in only(findings, "gateway chanjing").what
    assert {"store", "spool", "journal", "disk", "prefect", "prices", "proxy", "certificates"} <= {one.check for one in findings}
    assert sandbox_env.ledger() == []


def test_for_people_it_is_a_line_each(one_gateway: SandboxServer) -> None:
    """With how it is in front, and a sum at the end."""
    done = run()
    assert done.exit_code == 0
    assert all(line.startswith(("ok       ", "warning  ", "problem  ")) for line in done.stdout.splitlines())
    assert done.stderr == "0 problems, 2 warnings.\n"


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_a_refused_key(gateway: str, sandbox_env: SandboxServer) -> None:
    """Is told of each gateway, in its own words."""
    sandbox_env.settings(good_keys=["another"])
    one = only(found("--credentials", gateway, code=1), f"gateway {gateway}")
    assert (one.level, "the key is refused" in one.what) == ("problem", True)


def test_an_exchange_that_is_refused(sandbox_env: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where app id and secret key stand in for a key."""
    monkeypatch.delenv("CHANJING_API_KEY")
    monkeypatch.setenv("CHANJING_APP_ID", "app-1234")
    monkeypatch.setenv("CHANJING_SECRET_KEY", KEY)
    sandbox_env.settings(good_keys=["another"])
    assert "the key is not taken" in only(found("--credentials", "chanjing", code=1), "gateway chanjing").what


def test_no_gateway(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """And one that is named and has no key, or is none."""
    for name in GATEWAYS:
        monkeypatch.delenv(f"{name.upper()}_API_KEY")
    assert "happyhorse init" in only(found(code=1), "gateways").advice
    assert "TTAPI_API_KEY" in only(found("--credentials", "ttapi", code=1), "gateway ttapi").advice
    assert "no server" in only(found("--credentials", "studio", code=1), "block studio").what


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("BASE_URL", "http://gateway.example", "base_url"),
        ("API_KEY", " spaced out ", "printable ASCII"),
        ("PRICES", "/nowhere/prices.toml", "No such file"),
    ],
)
def test_wrong_credentials(name: str, value: str, told: str, one_gateway: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Are told with the field, and all else is looked at."""
    monkeypatch.setenv(f"HAPPYHORSE_{name}", value)
    findings = found(code=1)
    assert told in only(findings, "gateway happyhorse").what
    assert "store" in {one.check for one in findings if one.level == "ok"}


def test_no_base_url(one_gateway: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the document names none."""
    monkeypatch.delenv("HAPPYHORSE_BASE_URL")
    assert "HAPPYHORSE_BASE_URL" in only(found(code=1), "gateway happyhorse").what


def test_without_a_network(one_gateway: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what could not be asked, and in bounded time."""
    monkeypatch.setenv("HAPPYHORSE_BASE_URL", "https://gateway.invalid")
    started = time.monotonic()
    one = only(found("--timeout", "20", code=1), "gateway happyhorse")
    assert "never reached the gateway" in one.what
    assert "Key and clock were not asked" in one.advice
    assert time.monotonic() - started < 60


def test_another_address(one_gateway: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of something that is no such gateway: whether the key is taken is not known, which is said."""
    monkeypatch.setenv("HAPPYHORSE_BASE_URL", one_gateway.base_url("happyhorse") + "/nowhere")
    findings = bad(found(code=0), "gateway happyhorse")
    assert {one.level for one in findings} == {"warning"}
    assert all("not known" in one.what for one in findings)


@pytest.mark.parametrize(("ahead_s", "level"), [(-20, "ok"), (100, "warning"), (-100, "warning"), (1000, "problem")])
def test_the_clock(ahead_s: float, level: str, one_gateway: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the gateway's own."""
    monkeypatch.setattr(gateways, "time", SimpleNamespace(time=lambda: time.time() + ahead_s, monotonic=time.monotonic))
    findings = found(code=1 if level == "problem" else 0)
    (one,) = [one for one in findings if "clock is" in one.what or "same time" in one.what]
    assert one.level == level
    assert (("ahead of" if ahead_s > 0 else "behind") in one.what) == (level != "ok")


async def test_no_date(one_gateway: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a gateway says no time, that is said; and what its answers are taken for."""
    answers = {
        401: "the key is refused",
        402: "nothing left",
        404: "not known",
        429: "not known",
        500: "not known",
        200: "not known",
    }
    for status, told in answers.items():
        async with Wire([refuse(status)] * 4) as wire:
            monkeypatch.setenv("HAPPYHORSE_BASE_URL", wire.url(""))
            findings = await gateways.check_gateway("happyhorse", call_s=20)
        assert any("says no time" in one.what for one in findings)
        assert all(told in one.what for one in findings if one.level != "ok")
        assert any(told in one.what for one in findings)


async def test_an_authority_that_is_not_known(one_gateway: SandboxServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As where a company looks inside: the setting is named; named itself, it is looked at."""
    authority = trustme.CA()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(serving)
    async with Wire([refuse(404)] * 4, tls=serving) as wire:
        monkeypatch.setenv("HAPPYHORSE_BASE_URL", wire.url(""))
        (one,) = await gateways.check_gateway("happyhorse", call_s=20)
        assert ("CERTIFICATE_VERIFY_FAILED" in one.what, "HAPPYHORSE_CA_BUNDLE" in one.advice) == (True, True)
        authority.cert_pem.write_to_path(str(tmp_path / "ours.pem"))
        monkeypatch.setenv("HAPPYHORSE_CA_BUNDLE", str(tmp_path / "ours.pem"))
        first, *_ = await gateways.check_gateway("happyhorse", call_s=20)
        assert (first.level, "answers in" in first.what) == ("ok", True)
        assert "ours.pem" in (await gateways.check_network())[1].what
    (tmp_path / "none.pem").write_text("nothing")
    monkeypatch.setenv("HAPPYHORSE_CA_BUNDLE", str(tmp_path / "none.pem"))
    assert (await gateways.check_network())[1].level == "problem"
    (one,) = await gateways.check_gateway("happyhorse", call_s=20)
    assert (one.level, "See what is said of the certificates." in one.advice) == ("problem", True)


async def test_a_proxy(one_gateway: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named without its password, and blamed where it does not let a call through."""
    async with Wire([refuse(407)] * 4) as wire:
        monkeypatch.setenv("HAPPYHORSE_PROXY", f"http://user:{KEY}@127.0.0.1:{wire.port}")
        monkeypatch.setenv("HAPPYHORSE_BASE_URL", "https://gateway.example")
        proxy, _ = await gateways.check_network()
        assert proxy.what == f"127.0.0.1:{wire.port}, as is set"
        (one,) = await gateways.check_gateway("happyhorse", call_s=20)
        assert "Check the proxy" in one.advice
    monkeypatch.setenv("HAPPYHORSE_PROXY", "none")
    assert (await gateways.check_network())[0].what == "none, as is set"
    monkeypatch.delenv("HAPPYHORSE_PROXY")
    monkeypatch.setenv("https_proxy", f"http://user:{KEY}@proxy.example")
    assert (await gateways.check_network())[0].what == "proxy.example, by the environment"


def test_wrong_settings(one_gateway: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Are the first to be told, since all else follows them."""
    monkeypatch.setenv("HAPPYHORSE_CALL_TIMEOUT_S", "0")
    (one,) = found(code=1)
    assert (one.check, "HAPPYHORSE_CALL_TIMEOUT_S" in one.what) == ("settings", True)


def test_a_store_that_cannot_be_written(one_gateway: SandboxServer, tmp_path: Path) -> None:
    """Or is none at all, or is a block where there is no server."""
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in only(found("--store", str(tmp_path / "file"), code=1), "store").what
    assert "scheme" in only(found("--store", "xyz://films", code=1), "store").what
    assert "PREFECT_API_URL" in only(found("--block", "studio", code=1), "store").what


def test_a_store_without_conditional_writes(one_gateway: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs could buy the same job in it."""

    def overwrite(folder: LocalFolder, path: str, data: bytes) -> bool:
        folder.write(path, data)
        return True

    monkeypatch.setattr(LocalFolder, "create", overwrite)
    one = only(found(code=1), "store")
    assert "wrote over a file that it was to create" in one.what


def test_no_store_is_named(one_gateway: SandboxServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Then nothing is written, and a worker's run would lose it."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("HAPPYHORSE_STORE")
    findings = found(code=0)
    assert any(one.check == "worker's folder" and "none is named" in one.what for one in findings)
    assert list((tmp_path / "here").iterdir()) == []


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """A web server of the store's folder."""
    folder = tmp_path / "outputs"
    folder.mkdir(exist_ok=True)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    web = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=web.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{web.server_port}"
    web.shutdown()
    thread.join()
    web.server_close()


@pytest.mark.parametrize(("path", "level"), [("", "ok"), ("/elsewhere", "problem")])
async def test_the_public_address(path: str, level: str, served: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is asked for a file as a provider would, which is removed; an address of this network is none for a provider."""

    async def find(*_: object) -> tuple[Store, str]:
        return Store(store.url, public_base_url=served + path), store.url

    monkeypatch.setattr(places, "_find", find)
    (one,) = [one for one in await places.check_store(None, None, call_s=20) if one.check == "public address"]
    assert (one.level, "this network alone" in one.what) == ("warning", True)
    monkeypatch.setattr(places, "is_local_host", lambda _: False)
    (one,) = [one for one in await places.check_store(None, None, call_s=20) if one.check == "public address"]
    assert one.level == level
    assert list((store.folder or Path()).glob("inputs/*")) == []


@pytest.mark.parametrize(("free_gib", "level"), [(6, "ok"), (4, "warning"), (0.4, "problem")])
def test_the_disk(free_gib: float, level: str, one_gateway: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One output may have five gibibytes."""
    usage = shutil.disk_usage("/")._replace(free=int(free_gib * 1024**3))
    monkeypatch.setattr(places.shutil, "disk_usage", lambda _: usage)
    findings = found(code=1 if level == "problem" else 0)
    assert [one.level for one in findings if one.check == "disk"] == [level]


def test_jobs_that_wait_for_their_store(one_gateway: SandboxServer, store: Store, tmp_path: Path) -> None:
    """For this one, and for others of this machine."""
    spool = Journal(store).spool
    spool.folder.mkdir(parents=True)
    (spool.folder / f"{'a' * 64}.json").write_text("{}")
    other = spool.folder.parent / "other"
    other.mkdir()
    (other / f"{'b' * 64}.json").write_text("{}")
    here, there = bad(found(code=1), "spool")
    assert ("1 paid jobs wait for the store" in here.what, "1 paid jobs wait" in there.what) == (True, True)


def test_a_home_that_cannot_be_written(one_gateway: SandboxServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A job that is paid for could be written down nowhere."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HAPPYHORSE_HOME", str(tmp_path / "file"))
    assert "cannot be written" in only(found(code=1), "spool").what


def test_the_journals_health(one_gateway: SandboxServer, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Submits that were left or are uncertain, jobs near the end of their life and beyond it, and files that cannot be read."""
    monkeypatch.setenv("INFIFLOW_API_KEY", KEY)
    now = datetime.now(timezone.utc)
    for take, ends in enumerate((timedelta(minutes=30), -timedelta(minutes=30), timedelta(hours=20)), start=1):
        entry = riding(store, take=take)
        assert entry.job is not None
        write(store, entry.model_copy(update={"job": entry.job.model_copy(update={"expires_at": now + ends})}))
    long_ago = LeaseOwner(machine="another", process=1, run="another", at=now - timedelta(hours=3))
    facts: dict[str, Any] = {"job": None, "revision": 0}
    left = riding(store, take=4).model_copy(update={**facts, "digest": "c" * 64, "state": "intent", "owner": long_ago})
    fresh = left.model_copy(update={"digest": "d" * 64, "owner": LeaseOwner(machine="another", process=1, run="another")})
    doubt = left.model_copy(update={"digest": "e" * 64, "state": "uncertain", "failure": Failure(message="time-out")})
    for entry in (left, fresh, doubt):
        assert asyncio.run(Journal(store).create(entry)) is not None
    kept_before = len(one_gateway.ledger())
    for number in range(5):
        (Path(store.url.removeprefix("file://")) / "journal" / "ff").mkdir(exist_ok=True)
        (Path(store.url.removeprefix("file://")) / "journal" / "ff" / f"ff{number:062}.1.json").write_text("{")
    told = [(one.level, one.what) for one in bad(found(code=1), "journal")]
    assert len([what for _, what in told if "cannot be read" in what]) == 4
    assert ("problem", "2 more entries cannot be read") in told
    assert any(what.startswith("1 submits were begun and left") and "cccccccccccc" in what for _, what in told)
    assert any(what.startswith("1 submits may have been accepted") and "eeeeeeeeeeee" in what for _, what in told)
    assert any(what.startswith("1 paid jobs were not collected in their life") for _, what in told)
    assert any(level == "warning" and what.startswith("1 paid jobs end within 2 hours") for level, what in told)
    assert len(told) == 8
    assert len(one_gateway.ledger()) == kept_before


def test_a_journal_of_an_earlier_form(one_gateway: SandboxServer, store: Store) -> None:
    """What was bought under it is not known."""
    folder = Path(store.url.removeprefix("file://")) / "journal"
    folder.mkdir(parents=True)
    (folder / f"{'a' * 64}.json").write_text("{}")
    assert "unreleased version" in only(found(code=1), "journal").what


def test_a_journal_that_is_in_order(one_gateway: SandboxServer, store: Store) -> None:
    """Is left as it is."""
    bought(store)
    before = {path: path.stat().st_mtime_ns for path in Path(store.url.removeprefix("file://")).rglob("*.json")}
    assert any(one.what == "all is in order: 1 entry, 1 open" for one in found(code=0))
    assert {path: path.stat().st_mtime_ns for path in Path(store.url.removeprefix("file://")).rglob("*.json")} == before


def test_old_prices(one_gateway: SandboxServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Are a warning."""
    row = '[[price]]\nmodel = "gpt-image-2"\nper = "output"\namount = "0.4"\ncurrency = "CNY"\ndated = 2026-01-02\n'
    (tmp_path / "prices.toml").write_text(row)
    monkeypatch.setenv("HAPPYHORSE_PRICES", str(tmp_path / "prices.toml"))
    assert "more than 90 days old" in only(found(code=0), "prices").what


@pytest.mark.usefixtures("prefect_server")
class TestPrefect:
    """The server, its version, and who works."""

    def test_blocks_are_found(self, sandbox_env: SandboxServer, tmp_path: Path) -> None:
        """By the names that are given."""

        async def save() -> None:
            block = GatewayCredentials(gateway="ttapi", api_key=SecretStr(KEY), base_url=sandbox_env.base_url("ttapi"))
            await block.asave("doctors", overwrite=True)
            await MediaStore(url=str(tmp_path / "films")).asave("doctors", overwrite=True)

        asyncio.run(save())
        findings = found("--credentials", "doctors", "--block", "doctors", code=0)
        assert any(one.check == "block doctors" and one.what == "the key is taken" for one in findings)
        assert any(one.check == "store" and "films" in one.what for one in findings)
        assert any(one.check == "prefect server" and "version" in one.what for one in findings)
        missing = found("--credentials", "nobodys", "--block", "nobodys", code=1)
        assert {one.check for one in bad(missing)} == {"block nobodys", "store"}

    async def test_the_pools(self) -> None:
        """One without a worker, one that is paused, and one that is gone."""
        name = "doctors-pool"
        async with get_client() as client:
            assert (await server._pool(client, name)).what == "is not there, and deployments name it"
            await client.create_work_pool(WorkPoolCreate(name=name, type="process"))
            assert "no worker online" in (await server._pool(client, name)).what
            await client.send_worker_heartbeat(work_pool_name=name, worker_name="one", heartbeat_interval_seconds=30)
            assert (await server._pool(client, name)).what == "has 1 worker online"
            await client.update_work_pool(name, WorkPoolUpdate(is_paused=True))
            assert "is paused" in (await server._pool(client, name)).what

    def test_an_older_server(self) -> None:
        """Is a warning; another version here that the package cannot use is a problem."""
        assert server._server("http://x/api", "3.0.1").level == "warning"
        assert server._server("http://x/api", "99.0").level == "ok"

    @pytest.mark.parametrize(("version", "level"), [("3.8.0", "ok"), ("3.7.9", "problem"), ("4.0.0", "problem")])
    def test_the_installed_version(self, version: str, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Within what the package asks for."""
        monkeypatch.setattr(server.prefect, "__version__", version)
        assert server._installed().level == level


def test_a_server_that_does_not_answer(one_gateway: SandboxServer, tmp_path: Path) -> None:
    """In a process of its own, since Prefect reads its address once."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        environment = os.environ | {"PREFECT_API_URL": f"http://127.0.0.1:{taken.getsockname()[1]}/api", "PREFECT_CLIENT_MAX_RETRIES": "0"}
        done = subprocess.run(
            [sys.executable, "-m", "prefect_happyhorse.cli", "doctor", "--json"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    (one,) = [
        one for one in map(json.loads, done.stdout.splitlines()) if one["check"] in {"prefect server", "prefect"} and one["level"] != "ok"
    ]
    assert "does not answer" in one["what"] or "no answer came" in one["what"]


def test_a_store_that_never_answers(one_gateway: SandboxServer, tmp_path: Path) -> None:
    """The client of an object store may hang in a thread; the command ends all the same, and says of what it knows nothing."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        code = (
            "import sys; from prefect_happyhorse.cli import main; from prefect_happyhorse.engine.storage.store import Store;"
            "import socket; from prefect_happyhorse.engine.storage import local;"
            f"local.LocalFolder.create = lambda *_: socket.create_connection(('127.0.0.1', {silent.getsockname()[1]})).recv(1);"
            "main(['doctor', '--json', '--timeout', '5'])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 1
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert any(one["check"] == "store" and "no answer came within 5 s" in one["what"] for one in told)
    assert any(one["what"] == "the key is taken" for one in told)


def test_a_check_that_breaks(one_gateway: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is a line as every other."""

    async def broken() -> list[Finding]:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(server, "check_prefect", broken)
    assert "ZeroDivisionError: by nothing" in only(found(code=1), "prefect").what


def test_prefects_api_is_what_its_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the environment alone."""
    monkeypatch.undo()
    assert server.api_url() == get_current_settings().api.url
