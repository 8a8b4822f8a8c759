"""What the doctor says when things are well, of gateways, of Prefect, and of checks that hang or break; nothing is ever bought."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import trustme
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.settings import get_current_settings
from pydantic import SecretStr
from tests.cli.doctor import KEY, bad, found, only, run
from tests.engine.scripted_server import Wire, refuse

from prefect_happyhorse.blocks import GatewayCredentials, MediaStore
from prefect_happyhorse.catalog import GATEWAYS
from prefect_happyhorse.cli.doctor import gateways, server
from prefect_happyhorse.cli.doctor.findings import Finding
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.sandbox import SandboxServer

pytestmark = pytest.mark.usefixtures("alone")


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

    async def test_the_deployments(self) -> None:
        """Those with the tag alone are looked at, which is told where there are others."""
        async with get_client() as client:
            for deployment in await client.read_deployments():
                await client.delete_deployment(deployment.id)
            assert (await server._workers(client))[0].what == "there is no deployment, so none is needed"
            flow = await client.create_flow_from_name("doctors-flow")
            made = [await client.create_deployment(flow, "untagged")]
            try:
                assert "no deployment has the tag happyhorse" in (await server._workers(client))[0].what
                made.append(await client.create_deployment(flow, "served", tags=["happyhorse"]))
                assert "have no work pool" in (await server._workers(client))[0].what
                assert len(await server._workers(client)) == 1
                await client.pause_deployment(made[-1])
                _, paused = await server._workers(client)
                assert (paused.level, paused.check) == ("warning", "deployment doctors-flow/served")
                # The way out is the command that it says, as it says it.
                command = paused.advice.rpartition(": ")[2].split()
                environment = {**os.environ, **get_current_settings().to_environment_variables(exclude_unset=True)}
                done = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", *command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment
                )
                assert await done.wait() == 0
                assert not (await client.read_deployment(made[-1])).paused
            finally:
                for deployment in made:
                    await client.delete_deployment(deployment)

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
