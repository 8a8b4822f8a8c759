"""The store that commands are run on."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.sandbox import SandboxServer


@pytest.fixture
def store(sandbox_env: SandboxServer, tmp_path: Path) -> Store:
    return Store(url=str(tmp_path / "outputs"))
