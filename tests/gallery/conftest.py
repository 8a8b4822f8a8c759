"""A store's folder, and a gallery of it that is asked without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.engine.storage.conftest import s3, s3_endpoint

from prefect_happyhorse.engine.journal.journal import Journal
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gallery.app import create_app
from prefect_happyhorse.gallery.reader import JournalReader

__all__ = ["client", "folder", "reader", "s3", "s3_endpoint"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HAPPYHORSE_HOME", str(tmp_path / "home"))
    return tmp_path / "outputs"


@pytest.fixture
def reader(folder: Path) -> JournalReader:
    return JournalReader(Journal(Store(str(folder))))


@pytest.fixture
async def client(reader: JournalReader) -> AsyncIterator[httpx.AsyncClient]:
    """The gallery, which looks at the journal only when a test says so."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app(reader)), base_url="http://127.0.0.1:8810") as client:
        yield client
