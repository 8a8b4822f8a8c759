"""What the doctor says of a store, this machine, a journal and price lists."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.cli.doctor import KEY, bad, found, only
from tests.cli.journal import bought, riding, write

from prefect_happyhorse.cli.doctor import places
from prefect_happyhorse.engine.journal.journal import Failure, Journal
from prefect_happyhorse.engine.journal.owner import LeaseOwner
from prefect_happyhorse.engine.storage.local import LocalFolder
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.sandbox import SandboxServer

pytestmark = pytest.mark.usefixtures("alone")


def test_a_store_that_cannot_be_written(one_gateway: SandboxServer, tmp_path: Path) -> None:
    """Or is none at all, or is a block where there is no server."""
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in only(found("--store", str(tmp_path / "file"), code=1), "store").what
    assert "scheme" in only(found("--store", "xyz://films", code=1), "store").what
    assert "PREFECT_API_URL" in only(found("--block", "studio", code=1), "store").what


def test_a_store_without_conditional_writes(one_gateway: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs could buy the same job in it."""

    def overwrite(folder: LocalFolder, path: str, data: bytes) -> bool:
        folder.write(path, data)
        return True

    monkeypatch.setattr(LocalFolder, "create", overwrite)
    one = only(found(code=1), "store")
    assert "wrote over a file that it was to create" in one.what


def test_no_store_is_named(one_gateway: SandboxServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Then nothing is written, and a worker's run would lose it."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("HAPPYHORSE_STORE")
    findings = found(code=0)
    assert any(one.check == "worker's folder" and "none is named" in one.what for one in findings)
    assert list((tmp_path / "here").iterdir()) == []


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """A web server of the store's folder."""
    folder = tmp_path / "outputs"
    folder.mkdir(exist_ok=True)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    web = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=web.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{web.server_port}"
    web.shutdown()
    thread.join()
    web.server_close()


@pytest.mark.parametrize(("path", "level"), [("", "ok"), ("/elsewhere", "problem")])
async def test_the_public_address(path: str, level: str, served: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is asked for a file as a provider would, which is removed; an address of this network is none for a provider."""

    async def find(*_: object) -> tuple[Store, str]:
        return Store(store.url, public_base_url=served + path), store.url

    monkeypatch.setattr(places, "_find", find)
    (one,) = [one for one in await places.check_store(None, None, call_s=20) if one.check == "public address"]
    assert (one.level, "this network alone" in one.what) == ("warning", True)
    monkeypatch.setattr(places, "is_local_host", lambda _: False)
    (one,) = [one for one in await places.check_store(None, None, call_s=20) if one.check == "public address"]
    assert one.level == level
    assert list((store.folder or Path()).glob("inputs/*")) == []


@pytest.mark.parametrize(("free_gib", "level"), [(6, "ok"), (4, "warning"), (0.4, "problem")])
def test_the_disk(free_gib: float, level: str, one_gateway: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One output may have five gibibytes."""
    usage = shutil.disk_usage("/")._replace(free=int(free_gib * 1024**3))
    monkeypatch.setattr(places.shutil, "disk_usage", lambda _: usage)
    findings = found(code=1 if level == "problem" else 0)
    assert [one.level for one in findings if one.check == "disk"] == [level]


def test_jobs_that_wait_for_their_store(one_gateway: SandboxServer, store: Store, tmp_path: Path) -> None:
    """For this one, and for others of this machine."""
    spool = Journal(store).spool
    spool.folder.mkdir(parents=True)
    (spool.folder / f"{'a' * 64}.json").write_text("{}")
    other = spool.folder.parent / "other"
    other.mkdir()
    (other / f"{'b' * 64}.json").write_text("{}")
    here, there = bad(found(code=1), "spool")
    assert ("1 paid jobs wait for the store" in here.what, "1 paid jobs wait" in there.what) == (True, True)


def test_a_home_that_cannot_be_written(one_gateway: SandboxServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A job that is paid for could be written down nowhere."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HAPPYHORSE_HOME", str(tmp_path / "file"))
    assert "cannot be written" in only(found(code=1), "spool").what


def test_the_journals_health(one_gateway: SandboxServer, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Submits that were left or are uncertain, jobs near the end of their life and beyond it, and files that cannot be read."""
    monkeypatch.setenv("INFIFLOW_API_KEY", KEY)
    now = datetime.now(timezone.utc)
    for take, ends in enumerate((timedelta(minutes=30), -timedelta(minutes=30), timedelta(hours=20)), start=1):
        entry = riding(store, take=take)
        assert entry.job is not None
        write(store, entry.model_copy(update={"job": entry.job.model_copy(update={"expires_at": now + ends})}))
    long_ago = LeaseOwner(machine="another", process=1, run="another", at=now - timedelta(hours=3))
    facts: dict[str, Any] = {"job": None, "revision": 0}
    left = riding(store, take=4).model_copy(update={**facts, "digest": "c" * 64, "state": "intent", "owner": long_ago})
    fresh = left.model_copy(update={"digest": "d" * 64, "owner": LeaseOwner(machine="another", process=1, run="another")})
    doubt = left.model_copy(update={"digest": "e" * 64, "state": "uncertain", "failure": Failure(message="time-out")})
    for entry in (left, fresh, doubt):
        assert asyncio.run(Journal(store).create(entry)) is not None
    kept_before = len(one_gateway.ledger())
    for number in range(5):
        (Path(store.url.removeprefix("file://")) / "journal" / "ff").mkdir(exist_ok=True)
        (Path(store.url.removeprefix("file://")) / "journal" / "ff" / f"ff{number:062}.1.json").write_text("{")
    told = [(one.level, one.what) for one in bad(found(code=1), "journal")]
    assert len([what for _, what in told if "cannot be read" in what]) == 4
    assert ("problem", "2 more entries cannot be read") in told
    assert any(what.startswith("1 submits were begun and left") and "cccccccccccc" in what for _, what in told)
    assert any(what.startswith("1 submits may have been accepted") and "eeeeeeeeeeee" in what for _, what in told)
    assert any(what.startswith("1 paid jobs were not collected in their life") for _, what in told)
    assert any(level == "warning" and what.startswith("1 paid jobs end within 2 hours") for level, what in told)
    assert len(told) == 8
    assert len(one_gateway.ledger()) == kept_before


def test_a_journal_of_an_earlier_form(one_gateway: SandboxServer, store: Store) -> None:
    """What was bought under it is not known."""
    folder = Path(store.url.removeprefix("file://")) / "journal"
    folder.mkdir(parents=True)
    (folder / f"{'a' * 64}.json").write_text("{}")
    assert "unreleased version" in only(found(code=1), "journal").what


def test_a_journal_that_is_in_order(one_gateway: SandboxServer, store: Store) -> None:
    """Is left as it is."""
    bought(store)
    before = {path: path.stat().st_mtime_ns for path in Path(store.url.removeprefix("file://")).rglob("*.json")}
    assert any(one.what == "all is in order: 1 entry, 1 open" for one in found(code=0))
    assert {path: path.stat().st_mtime_ns for path in Path(store.url.removeprefix("file://")).rglob("*.json")} == before


def test_old_prices(one_gateway: SandboxServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Are a warning."""
    row = '[[price]]\nmodel = "gpt-image-2"\nper = "output"\namount = "0.4"\ncurrency = "CNY"\ndated = 2026-01-02\n'
    (tmp_path / "prices.toml").write_text(row)
    monkeypatch.setenv("HAPPYHORSE_PRICES", str(tmp_path / "prices.toml"))
    assert "more than 90 days old" in only(found(code=0), "prices").what
