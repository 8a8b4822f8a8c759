"""Who pays in the tests of settling and of pools."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.engine.conftest import AccountMaker, Naps
from tests.engine.jobs.pools import Pools

from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.shared import Shared
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.sandbox import SandboxServer


@pytest.fixture
def session(sandbox: SandboxServer, account: AccountMaker, store: Store, naps: Naps) -> Session:
    """Of the gateway that lists its tasks, at once."""
    sandbox.settings(list_delay_s=0)
    return Session(account("dashscope"), store, sleep=naps, shared=Shared())


@pytest.fixture
def pools(account: AccountMaker, store: Store, naps: Naps, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Pools:
    monkeypatch.setenv("HAPPYHORSE_HOME", str(tmp_path / "home"))
    return Pools(account, store, naps)
