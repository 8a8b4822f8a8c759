"""An access token is shared by all, since a new one kills the one before."""

from __future__ import annotations

import asyncio
import errno
import stat
import traceback
from datetime import datetime, timezone
from pathlib import Path

import pytest
from pydantic import SecretStr
from tests.engine.conftest import AccountMaker, Naps
from tests.engine.jobs.test_submit import ride

from prefect_happyhorse.domain.errors import AuthenticationFailed, GatewayUnavailable
from prefect_happyhorse.engine.http.auth import TokenStore
from prefect_happyhorse.engine.jobs.prepare import prepare
from prefect_happyhorse.engine.jobs.submit import Submitter
from prefect_happyhorse.engine.journal.journal import Journal
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import AccessToken, Account
from prefect_happyhorse.sandbox import SandboxServer


@pytest.fixture
def app(account: AccountMaker) -> Account:
    return account("chanjing", key=None, app_id="app-1", secret_key=SecretStr("sesame-5678"))


async def submit(app: Account, tmp_path: Path, folder: Path, take: int) -> str:
    submitter = Submitter(store=Store(url=str(tmp_path / "outputs")), tokens=TokenStore(folder))
    return (await submitter.submit(await prepare(ride("chanjing"), app, take=take))).task_id


async def test_many_jobs_ask_for_one_token(sandbox: SandboxServer, app: Account, tmp_path: Path) -> None:
    """Thirty jobs at once, each with a token store of its own, issue one token between them."""
    await asyncio.gather(*(submit(app, tmp_path, tmp_path / "tokens", take) for take in range(1, 31)))
    assert len(sandbox.ledger()) == 30
    assert len({entry.account for entry in sandbox.ledger()}) == 1
    assert len(list((tmp_path / "tokens").glob("*.json"))) == 1


async def test_a_killed_token_is_renewed_and_the_request_sent_again(sandbox: SandboxServer, app: Account, tmp_path: Path) -> None:
    """A machine that cannot see the other's token issues its own; the other notices and goes on, and each job is charged once."""
    for take in range(1, 5):
        await submit(app, tmp_path, tmp_path / f"machine-{take % 2}", take)
    assert len(sandbox.ledger()) == 4


async def test_a_token_is_readable_by_its_owner_alone(sandbox: SandboxServer, app: Account, tmp_path: Path) -> None:
    """The file's mode is 600, and neither its name nor its content holds the secret key."""
    await submit(app, tmp_path, tmp_path / "tokens", 1)
    (file,) = (tmp_path / "tokens").glob("*.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "sesame" not in file.name + file.read_text()


DAMAGED = [
    b"{",
    b"",
    b"\xff\xfe",
    b"[1]",
    b"[" * 100_000,
    b'{"token": "t", "expires_at": "2099-01-01T00:00:00"}',
    b'{"token": "t", "expires_at": "0001-01-01T00:00:00+00:00"}',
    b'{"token": "t", "expires_at": 4070908800}',
    b'{"token": 5, "expires_at": "2099-01-01T00:00:00+00:00"}',
    b'{"token": null, "expires_at": "2099-01-01T00:00:00+00:00"}',
    b'{"token": "", "expires_at": "2099-01-01T00:00:00+00:00"}',
]


@pytest.mark.parametrize("content", DAMAGED)
async def test_a_damaged_token_file_is_no_obstacle(content: bytes, tmp_path: Path) -> None:
    """What cannot be read, or cannot be what was written, is asked for anew and replaced."""
    asked: list[None] = []

    async def exchange() -> AccessToken:
        asked.append(None)
        return AccessToken(SecretStr("sesame-5678"), datetime(2099, 1, 1, tzinfo=timezone.utc))

    for _ in range(2):
        assert (await TokenStore(tmp_path).get("name", exchange)).get_secret_value() == "sesame-5678"
        if len(asked) == 1:
            (file,) = tmp_path.glob("*.json")
            file.write_bytes(content)
    assert (await TokenStore(tmp_path).get("name", exchange)).get_secret_value() == "sesame-5678"
    assert len(asked) == 2


async def test_a_token_that_ended_long_ago_is_used_and_asked_for_anew(tmp_path: Path) -> None:
    """As a gateway says by mistake, even at the very beginning of time."""

    async def exchange() -> AccessToken:
        return AccessToken(SecretStr("sesame-5678"), datetime(1, 1, 1, tzinfo=timezone.utc))

    for _ in range(2):
        assert (await TokenStore(tmp_path).get("name", exchange)).get_secret_value() == "sesame-5678"


async def test_a_refused_app_id_is_told(sandbox: SandboxServer, app: Account, tmp_path: Path) -> None:
    """The gateway's refusal comes through, without the secret."""
    sandbox.fault(at="token", kind="unauthorized", times=None)
    with pytest.raises(AuthenticationFailed) as caught:
        await submit(app, tmp_path, tmp_path / "tokens", 1)
    assert "sesame" not in str(caught.value)
    assert sandbox.ledger() == []


@pytest.mark.parametrize("kind", ["http", "html", "garbage", "drop_before", "drop_after"])
async def test_an_exchange_that_fails_leaves_no_doubt_about_the_submit(
    sandbox: SandboxServer, app: Account, tmp_path: Path, naps: Naps, kind: str
) -> None:
    """Nothing was sent that could be paid for, and nobody has to look."""
    sandbox.fault(at="token", kind=kind, times=None)
    store = Store(url=str(tmp_path / "outputs"))
    submitter = Submitter(store=store, tokens=TokenStore(tmp_path / "tokens"), sleep=naps)
    with pytest.raises(GatewayUnavailable, match="No access token was given") as caught:
        await submitter.submit(await prepare(ride("chanjing"), app))
    assert (caught.value.money, (await Journal(store).entries()).entries, sandbox.ledger()) == ("not spent", [], [])


async def test_a_traceback_of_a_refused_exchange_shows_no_secret(sandbox: SandboxServer, app: Account, tmp_path: Path) -> None:
    """Not even with the locals of its frames, as error trackers show them."""
    sandbox.fault(at="token", kind="unauthorized", times=None)
    with pytest.raises(AuthenticationFailed) as caught:
        await submit(app, tmp_path, tmp_path / "tokens", 1)
    error: BaseException | None = caught.value
    while error is not None:
        frame = error.__traceback__
        while frame is not None:
            if "prefect_happyhorse" in frame.tb_frame.f_code.co_filename:
                assert "sesame-5678" not in repr(frame.tb_frame.f_locals), frame.tb_frame.f_code.co_name
            frame = frame.tb_next
        error = error.__cause__ or error.__context__


async def test_a_token_that_cannot_be_written_down_shows_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the locals of a traceback's frames, when the disk is full."""

    def full(path: Path, content: bytes, *, mode: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    async def exchange() -> AccessToken:
        return AccessToken(SecretStr("sesame-5678"), datetime(2030, 1, 1, tzinfo=timezone.utc))

    monkeypatch.setattr("prefect_happyhorse.engine.http.auth.replace_file", full)
    with pytest.raises(OSError, match="No space left") as caught:
        await TokenStore(tmp_path).get("name", exchange)
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert caught.value.__context__ is None
    assert not any("sesame" in str(frame.locals) for frame in shown.stack)
