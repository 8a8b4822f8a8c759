"""A gateway that takes files, gives results to the key alone and deletes jobs, as its data says, is served so."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import httpx
import pytest
from tests.vault import VAULT, registered

from prefect_happyhorse.sandbox import SandboxServer

from .conftest import find_task_id

KEY = {"X-Vault-Key": "mine"}
FILE = ("horse.png", b"\x89PNG", "image/png")


@pytest.fixture(autouse=True)
def _vault() -> Iterator[None]:
    with registered():
        yield


@pytest.fixture
def url(sandbox: SandboxServer) -> str:
    return f"{sandbox.base_url('vault')}/videos"


def submit(client: httpx.Client, url: str, **parts: Any) -> httpx.Response:
    files = {"model": (None, "coin"), "prompt": (None, "A horse"), **parts}
    return client.post(url, headers=KEY, files=files)


def test_a_file_is_taken_where_one_belongs(sandbox: SandboxServer, client: httpx.Client, url: str) -> None:
    """It counts as an input; a text in its place, or a file in a text's, is refused and costs nothing."""
    assert submit(client, url, frame=FILE).status_code == 200
    assert [(entry.capability, entry.inputs) for entry in sandbox.ledger()] == [("image_to_video", 1)]
    refused = submit(client, url, model=(None, "medal"), frame=(None, "https://example.com/a.png"))
    assert (refused.status_code, "frame: must be a file, not a text" in refused.text) == (400, True)
    refused = submit(client, url, frame=FILE, prompt=FILE)
    assert (refused.status_code, "prompt: must be a text, not a file" in refused.text) == (400, True)
    assert len(sandbox.ledger()) == 1


def test_a_file_is_looked_into_as_any_input(sandbox: SandboxServer, client: httpx.Client, url: str) -> None:
    """What is no picture is refused."""
    sandbox.settings(check_inputs="submit")
    refused = submit(client, url, frame=FILE)
    assert (refused.status_code, "frame: it" in refused.text, sandbox.ledger()) == (400, True, [])


def test_a_result_is_for_the_key_alone(sandbox: SandboxServer, client: httpx.Client, url: str) -> None:
    """Not for another account's, nor before the job is finished; faults strike it as any download."""
    sandbox.settings(job_s=60)
    content = f"{url}/{find_task_id(submit(client, url).json())}/content"
    assert client.get(content, headers=KEY).status_code == 400
    sandbox.advance(60)
    assert client.get(content).status_code == 401
    assert client.get(content, headers={"X-Vault-Key": "yours"}).status_code == 400
    sandbox.fault(at="download", kind="http", status=503)
    assert client.get(content, headers=KEY).status_code == 503
    assert client.get(content, headers=KEY).content[4:8] == b"ftyp"
    assert sandbox.ledger()[0].downloads == 2


def test_what_is_deleted_is_gone_and_charged(sandbox: SandboxServer, client: httpx.Client, url: str) -> None:
    """A job that has begun is not taken back, and one that is not there cannot be."""
    sandbox.settings(job_s=60)
    first, second = (f"{url}/{find_task_id(submit(client, url).json())}" for _ in range(2))
    assert client.delete(first, headers=KEY).status_code == 200
    assert "task_not_exist" in client.get(first, headers=KEY).text
    assert client.delete(first, headers=KEY).status_code == 404
    sandbox.advance(30)
    assert client.delete(second, headers=KEY).status_code == 404
    assert client.get(second, headers=KEY).status_code == 200
    assert [entry.refunded for entry in sandbox.ledger()] == [False, False]


def test_a_dialect_that_nobody_emulates_is_not_served(
    sandbox: SandboxServer, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer says what is missing, and all other gateways are served."""
    monkeypatch.setattr(import_module("prefect_happyhorse.catalog.facts"), "dialect_names", lambda: frozenset({"whinny"}))
    text = VAULT.replace('"vault"', '"mute"').replace('dialect = "newapi"', 'dialect = "whinny"')
    with registered(text):
        answer = client.get(f"{sandbox.base_url('mute')}/videos/1", headers=KEY)
    assert (answer.status_code, "prefect_happyhorse.sandbox_dialects" in answer.text) == (501, True)
    assert client.get(f"{sandbox.base_url('vault')}/videos/1", headers=KEY).status_code == 400
