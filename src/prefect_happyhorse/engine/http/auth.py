"""Access tokens that every process of a machine shares, since a new one kills the one before."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import anyio.to_thread
import httpx
from filelock import AsyncFileLock
from pydantic import SecretStr

from prefect_happyhorse.engine.storage.machine import state_folder
from prefect_happyhorse.gateways import Account, ChanjingGateway

__all__ = ["TokenStore"]

_MARGIN = timedelta(minutes=5)


class TokenStore:
    """A folder of access tokens, one file per account, readable by its owner alone.

    Args:
        folder: The folder; None for the machine's own.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or state_folder() / "tokens"

    async def current(self, account: Account, gateway: ChanjingGateway, issue: Callable[[], Awaitable[httpx.Response]]) -> SecretStr:
        """The account's token, asked for when there is none that still lives."""
        return await self._token(account, gateway, issue, refused=None)

    async def renewed(
        self, account: Account, gateway: ChanjingGateway, issue: Callable[[], Awaitable[httpx.Response]], *, refused: SecretStr
    ) -> SecretStr:
        """A token other than the one that was refused: another process's newer one, else a new one."""
        return await self._token(account, gateway, issue, refused=refused)

    async def _token(
        self,
        account: Account,
        gateway: ChanjingGateway,
        issue: Callable[[], Awaitable[httpx.Response]],
        *,
        refused: SecretStr | None,
    ) -> SecretStr:
        path = self._path(account)
        await anyio.to_thread.run_sync(_make_private, self.folder)
        async with AsyncFileLock(path.with_suffix(".lock")):
            kept = await anyio.to_thread.run_sync(_read, path)
            if kept is not None and (refused is None or kept.get_secret_value() != refused.get_secret_value()):
                return kept
            token, ends = gateway.read_token(await issue())
            await anyio.to_thread.run_sync(_write, path, token, ends)
            return token

    def _path(self, account: Account) -> Path:
        # The secret key is no part of the name: a rotated secret still speaks for the same account.
        name = hashlib.sha256(f"{account.gateway}\n{account.base_url}\n{account.app_id}".encode()).hexdigest()
        return self.folder / f"{name[:32]}.json"


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _read(path: Path) -> SecretStr | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        ends = datetime.fromisoformat(data["ends"])
        token = SecretStr(data["token"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return token if ends - _MARGIN > datetime.now(timezone.utc) else None


def _write(path: Path, token: SecretStr, ends: datetime) -> None:
    # mkstemp makes the file readable by its owner alone before a byte of the token is in it.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump({"token": token.get_secret_value(), "ends": ends.isoformat()}, file)
    os.replace(temporary, path)
