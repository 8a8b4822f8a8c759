"""The settings as Prefect reads them, and that each does what it says."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from click.testing import CliRunner
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.context import get_run_context

from prefect_happyhorse import MediaAsset, TextToImage, show_gallery
from prefect_happyhorse.blocks import GatewayCredentials, MediaStore
from prefect_happyhorse.cli import main
from prefect_happyhorse.domain.settings import current
from prefect_happyhorse.engine.jobs.results import StoredResult
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.runtime.log import run_logger
from prefect_happyhorse.sandbox import SandboxServer
from prefect_happyhorse.settings import use


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of its own."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def levels() -> Iterator[None]:
    """The package's loggers as they were."""
    before = {name: logging.getLogger(name).level for name in ("prefect_happyhorse", "prefect.happyhorse.happyhorse")}
    yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


def test_prefects_files_count_in_prefects_order(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment, .env, prefect.toml, pyproject.toml, the profile."""
    profiles = here / "profiles.toml"
    profiles.write_text(
        'active = "ours"\n[profiles.ours]\nPREFECT_INTEGRATIONS_HAPPYHORSE_STORE = "profile"\nHAPPYHORSE_GALLERY = "false"\n'
    )
    monkeypatch.setenv("PREFECT_PROFILES_PATH", str(profiles))
    for name in ("PREFECT_TEST_MODE", "PREFECT_UNIT_TEST_MODE", "PREFECT_TESTING_TEST_MODE", "PREFECT_TESTING_UNIT_TEST_MODE"):
        monkeypatch.delenv(name, raising=False)
    assert (current().store, current().gallery) == ("profile", False)
    steps = {
        "pyproject.toml": '[tool.prefect.integrations.happyhorse]\nstore = "pyproject"\n',
        "prefect.toml": '[integrations.happyhorse]\nstore = "toml"\ncall_timeout_s = 7\n',
        ".env": "HAPPYHORSE_STORE=dotenv\n",
    }
    for number, (name, text) in enumerate(steps.items()):
        (here / name).write_text(text)
        # Files are read once: what is asked again is asked from elsewhere.
        monkeypatch.setenv("PREFECT_HOME", f"/nowhere-{number}")
        assert current().store == text.splitlines()[-1 if number != 1 else 1].partition("=")[2].strip(' "')
    monkeypatch.setenv("HAPPYHORSE_STORE", "environment")
    assert (current().store, current().call_timeout_s, current().gallery) == ("environment", 7.0, False)


def test_gateways_in_a_file_are_refused(here: Path) -> None:
    """They would be read too late, and not be dropped without a word."""
    (here / "prefect.toml").write_text('[integrations.happyhorse]\ngateways = "folder"\n')
    with pytest.raises(ValueError, match="must stand in the environment"):
        current()


def test_a_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's may be while its run goes on."""
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert current().call_timeout_s == 60


@pytest.mark.parametrize("name", ["PREFECT_INTEGRATIONS_HAPPYHORSE_STORE", "HAPPYHORSE_STORE"])
async def test_the_store(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of tasks, blocks and the command line."""
    monkeypatch.setenv(name, str(tmp_path / "films"))
    assert (await MediaStore.find(None)).url == str(tmp_path / "films")
    listed = await asyncio.to_thread(CliRunner().invoke, main, ["jobs", "list", "--json"])
    assert (listed.exit_code, listed.stdout) == (0, "")


def test_the_command_line_reads_what_flows_read(here: Path) -> None:
    """Prefect's files too, though it starts without Prefect where none of them sets anything."""
    code = (
        "import sys; from prefect_happyhorse.cli.settings import use_settings; from prefect_happyhorse.domain.settings import current;"
        "use_settings(); print(current().store, 'prefect' in sys.modules)"
    )

    def said() -> str:
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True, cwd=here
        ).stdout.strip()

    (here / "prefect.toml").write_text("[server]\n")
    (here / ".env").write_text("HAPPYHORSE_API_KEY=sesame\n")
    assert said() == "None False"
    (here / "prefect.toml").write_text('[integrations.happyhorse]\nstore = "s3://films"\n')
    assert said() == "s3://films True"


def test_a_wrong_setting_ends_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is done."""
    monkeypatch.setenv("HAPPYHORSE_CALL_TIMEOUT_S", "1000")
    done = CliRunner().invoke(main, ["jobs", "list"])
    assert done.exit_code == 2
    assert "HAPPYHORSE_CALL_TIMEOUT_S: should be less than or equal to 70 (got '1000')" in done.stderr


def test_settings_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is set now, and no password."""
    monkeypatch.setenv("HAPPYHORSE_PROXY", "http://user:sesame@proxy.example:3128")
    monkeypatch.setenv("HAPPYHORSE_CALL_TIMEOUT_S", "33")
    done = CliRunner().invoke(main, ["settings"])
    assert "33.0" in done.output
    assert "sesame" not in done.output


def test_the_log_level(levels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the package, and of what a run says; the flow's own log is not touched."""
    monkeypatch.setenv("HAPPYHORSE_LOG_LEVEL", "error")
    use()
    assert not logging.getLogger("prefect_happyhorse.engine.journal.journal").isEnabledFor(logging.WARNING)
    assert not run_logger().isEnabledFor(logging.WARNING)
    monkeypatch.setenv("HAPPYHORSE_LOG_LEVEL", "debug")
    use()
    assert logging.getLogger("prefect_happyhorse.engine.journal.journal").isEnabledFor(logging.DEBUG)
    assert run_logger().isEnabledFor(logging.DEBUG)
    monkeypatch.delenv("HAPPYHORSE_LOG_LEVEL")
    assert run_logger().name == "prefect.happyhorse"  # pyright: ignore[reportAttributeAccessIssue]


def test_a_wrong_setting_hinders_no_import(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are registered whatever is set; whoever needs a setting says what is wrong."""
    monkeypatch.setenv("HAPPYHORSE_LOG_LEVEL", "loud")
    use()


async def made(store: Store) -> StoredResult:
    session = Session(GatewayCredentials.from_environment("happyhorse").to_account(), store)
    job = (await session.submit(await session.prepare(TextToImage(model="gpt-image-2", prompt="A white horse")))).job
    return await session.store_outputs(await session.poll(job))


@pytest.mark.parametrize("on", [True, False])
async def test_thumbnails(on: bool, sandbox_env: SandboxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Are made, or not."""
    monkeypatch.setenv("HAPPYHORSE_THUMBNAILS", str(on))
    stored = await made(Store(str(tmp_path)))
    assert bool(stored.thumbnails) == on
    assert any("thumbnails" in str(path) for path in tmp_path.rglob("*.jpg")) == on


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("on", [True, False])
async def test_the_gallery(on: bool, sandbox_env: SandboxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is made, or not."""
    monkeypatch.setenv("PREFECT_INTEGRATIONS_HAPPYHORSE_GALLERY", str(on))
    store = Store(str(tmp_path))
    asset = (await made(store)).asset

    @flow
    async def shows(asset: MediaAsset) -> str:
        await show_gallery([("picture", asset)], store=store, title="Horses")
        return str(get_run_context().flow_run.id)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType, reportUnknownMemberType, reportOptionalMemberAccess]

    run = await shows(asset)
    async with get_client() as client:
        found = await client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(run)])))
    assert [one.type for one in found] == ["markdown"] * on


def test_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By either name, and never the user's own HOME."""
    from prefect_happyhorse.engine.storage.machine import state_folder

    monkeypatch.delenv("HAPPYHORSE_HOME")
    assert state_folder().name == "prefect-happyhorse"
    assert str(state_folder()) != os.environ.get("HOME")
    monkeypatch.setenv("PREFECT_INTEGRATIONS_HAPPYHORSE_HOME", str(tmp_path))
    assert state_folder() == tmp_path
