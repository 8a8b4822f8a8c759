"""Access tokens that every process of a machine shares, since a new one may invalidate the one before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, timezone
from functools import cached_property
from pathlib import Path
from typing import Protocol

import anyio.to_thread
from filelock import AsyncFileLock
from pydantic import SecretStr

from prefect_happyhorse.engine.storage.local import replace_file
from prefect_happyhorse.engine.storage.machine import state_folder
from prefect_happyhorse.gateways import AccessToken

__all__ = ["TokenCache", "TokenStore"]

_MARGIN = timedelta(minutes=5)


class TokenCache(Protocol):
    """Where access tokens are kept between calls."""

    async def get(self, name: str, exchange: Callable[[], Awaitable[AccessToken]], *, refused: SecretStr | None = None) -> SecretStr:
        """The token of that name; without a living one, or with none but the refused one, that of a new exchange."""
        ...


class TokenStore:
    """A folder of access tokens, one file per account, readable by its owner alone.

    Args:
        folder: The folder; None for the machine's own.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    @cached_property
    def folder(self) -> Path:
        """Where they lie: looked up once there is one, for most accounts have a key."""
        return self._folder or state_folder() / "tokens"

    async def get(self, name: str, exchange: Callable[[], Awaitable[AccessToken]], *, refused: SecretStr | None = None) -> SecretStr:
        """The token of that name; while it is exchanged, every process of the machine waits for it."""
        path = self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"
        await anyio.to_thread.run_sync(_make_private, self.folder)
        async with AsyncFileLock(path.with_suffix(".lock")):
            cached = await anyio.to_thread.run_sync(_read, path)
            if cached is not None and (refused is None or cached.get_secret_value() != refused.get_secret_value()):
                return cached
            token = await exchange()
            await anyio.to_thread.run_sync(_write, path, token)
            return token.value


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _read(path: Path) -> SecretStr | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        token = data["token"]
        # Of a time without a zone it is not known whether it is over.
        lives = datetime.fromisoformat(data["expires_at"]) > datetime.now(timezone.utc) + _MARGIN
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return SecretStr(token) if lives and token and isinstance(token, str) else None


def _write(path: Path, token: AccessToken) -> None:
    failed = None
    try:
        replace_file(path, _content(token), mode=0o600)
    except OSError as error:
        failed = OSError(error.errno, error.strerror, error.filename)
    if failed is not None:
        # Without the frames below, which hold the token: a traceback may show their locals.
        raise failed


def _content(token: AccessToken) -> bytes:
    return json.dumps({"token": token.value.get_secret_value(), "expires_at": token.expires_at.isoformat()}).encode()
