"""What the engine's tests stand on: a real folder, an account at the sandbox, and no waiting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from prefect_happyhorse.engine.http.auth import TokenStore
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account
from prefect_happyhorse.sandbox import SandboxServer

AccountMaker = Callable[..., Account]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(url=str(tmp_path / "outputs"))


@pytest.fixture
def tokens(tmp_path: Path) -> TokenStore:
    return TokenStore(tmp_path / "tokens")


@pytest.fixture
def account(sandbox: SandboxServer) -> AccountMaker:
    def make(gateway: str = "happyhorse", **changes: object) -> Account:
        facts: dict[str, object] = {"gateway": gateway, "base_url": sandbox.base_url(gateway), "key": SecretStr("sesame-1234")}
        return Account(**(facts | changes))  # pyright: ignore[reportArgumentType]

    return make


class Naps:
    """A sleep that takes no time and remembers how long it should have been."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    async def __call__(self, seconds: float) -> None:
        """Sleep not at all."""
        self.taken.append(seconds)


@pytest.fixture
def naps() -> Naps:
    return Naps()
