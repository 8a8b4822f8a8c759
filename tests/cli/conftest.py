"""The store that commands are run on."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefect_happyhorse.catalog import GATEWAYS
from prefect_happyhorse.cli.doctor import gateways, places, server
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.sandbox import SandboxServer


@pytest.fixture
def store(sandbox_env: SandboxServer, tmp_path: Path) -> Store:
    return Store(url=str(tmp_path / "outputs"))


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for gateway in GATEWAYS:
        for name in ("API_KEY", "BASE_URL", "ACCOUNT"):
            monkeypatch.delenv(f"{gateway.upper()}_{name}", raising=False)


@pytest.fixture
def at_sandbox(no_environment: None, sandbox_env: SandboxServer) -> SandboxServer:
    return sandbox_env


@pytest.fixture
def alone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a Prefect server, but where a test has one."""
    if "prefect_server" not in request.fixturenames:
        for module in (server, gateways, places):
            monkeypatch.setattr(module, "api_url", lambda: None)


@pytest.fixture
def one_gateway(sandbox_env: SandboxServer, monkeypatch: pytest.MonkeyPatch, store: Store) -> SandboxServer:
    """The gateway happyhorse alone has a key, and the store is there."""
    for name in GATEWAYS:
        if name != "happyhorse":
            monkeypatch.delenv(f"{name.upper()}_API_KEY")
    return sandbox_env
