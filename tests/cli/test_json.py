"""`--json`: every command has it, and what it prints is what `happyhorse schema` describes, with nothing beside it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
from jsonschema import Draft202012Validator
from tests.cli.commands import request_file, run
from tests.cli.journal import bought, riding
from tests.cli.test_gateways import forget as forget_gateways

from prefect_happyhorse.cli import main
from prefect_happyhorse.cli.schema import LINES, SCHEMAS
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.sandbox import SandboxServer


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@cache
def validator(command: str) -> Draft202012Validator:
    """What `happyhorse schema` says of a command."""
    schema = json.loads(run("schema", *command.split()).stdout)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def valid(command: str, printed: str) -> list[Any]:
    """The documents that were printed, each as its schema describes it."""
    documents = [json.loads(line) for line in printed.splitlines()] if command in LINES else [json.loads(printed)]
    for document in documents:
        assert [f"{error.json_path}: {error.message}" for error in validator(command).iter_errors(document)] == []
    return documents


def documents(command: str, *words: str, code: int = 0) -> list[Any]:
    """What a command prints with --json."""
    done = run(*command.split(), *words, "--json")
    assert done.exit_code == code, done.output
    return valid(command, done.stdout)


def commands(group: click.Command, *words: str) -> Iterator[tuple[str, click.Command]]:
    """Every command that can be called, by its words."""
    if isinstance(group, click.Group):
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            yield from commands(command, *words, name)
    if words and (not isinstance(group, click.Group) or group.invoke_without_command):
        yield " ".join(words), group


def test_every_command_has_the_option_and_a_schema() -> None:
    """A new command is not forgotten, and the schemas of all are printed by their names."""
    found = dict(commands(main))
    # What Prometheus reads has a format of its own.
    del found["metrics"]
    assert [name for name, command in found.items() if not any("--json" in parameter.opts for parameter in command.params)] == []
    assert found.keys() == SCHEMAS.keys() == json.loads(run("schema").stdout).keys()
    assert SCHEMAS.keys() >= LINES
    refused = run("schema", "jobs", "sell")
    assert (refused.exit_code, "must be one of demo, doctor, " in refused.stderr) == (2, True)
    assert validator("schema").is_valid(json.loads(run("schema", "models", "--json").stdout))


def test_a_document_that_differs_is_seen() -> None:
    """The schemas are no empty ones."""
    assert not validator("jobs list").is_valid({"digest": "d"})
    assert not validator("generate").is_valid({"kind": "sound"})
    assert not validator("doctor").is_valid({"level": "fine", "check": "a", "what": "b", "advice": ""})


@pytest.mark.usefixtures("alone", "one_gateway")
def test_what_only_looks(tmp_path: Path) -> None:
    """Of the catalog, the settings and this machine."""
    assert len(documents("models", "--gateway", "ttapi")) == 2
    assert documents("preview", request_file(tmp_path), "--gateway", "happyhorse")[0]["method"] == "POST"
    assert documents("preview", "--example", "text_to_image")[0]["capability"] == "text_to_image"
    assert {row["gateway"] for row in documents("prices", "--gateway", "dashscope")} == {"dashscope"}
    assert documents("prices check", code=run("prices", "check").exit_code)[0]["days"] == 90
    assert {row["setting"]: row.get("value") for row in documents("settings")}["store"] == str(tmp_path / "outputs")
    assert {row["gateway"] for row in documents("gateways")} >= {"dashscope", "ttapi"}
    assert {row["level"] for row in documents("doctor", code=run("doctor").exit_code)} >= {"ok"}


def test_a_gateways_file(tmp_path: Path) -> None:
    """Written, checked, and found wrong."""
    (written,) = documents("gateways new", "acme", "--dialect", "newapi")
    try:
        (checked,) = documents("gateways check", written["file"], code=1)
        assert (checked["gateway"], len(checked["problems"])) == ("acme", 3)
    finally:
        forget_gateways()


def test_jobs_from_their_submit_to_the_end(sandbox_env: SandboxServer, store: Store, tmp_path: Path) -> None:
    """What is bought, shown, waited for, cancelled, adopted, forgotten, summed up and written elsewhere."""
    (asset,) = documents("generate", request_file(tmp_path), "--gateway", "happyhorse", "--output", str(tmp_path / "outputs"))
    assert Path(asset["uri"].removeprefix("file://")).stat().st_size == asset["bytes"]
    entry = bought(store, take=2)
    digest = entry.digest[:12]
    assert {row["state"] for row in documents("jobs list")} == {"kept", "submitted"}
    assert documents("jobs show", digest)[0]["state"] == "submitted"
    (resumed,) = documents("jobs resume", digest)
    assert (resumed["digest"], len(resumed["assets"])) == (entry.digest, 1)
    sandbox_env.fault(at="poll", kind="fail_job")
    lost = bought(store, take=3)
    (failed,) = documents("jobs resume", lost.digest[:12], code=3)
    assert (failed["assets"], failed["failure"].partition(":")[0]) == ([], "JobFailed")
    sandbox_env.settings(job_s=600)
    assert documents("jobs cancel", riding(store).digest[:12])[0]["accepted"] is True
    sandbox_env.fault(at="submit", kind="drop_after")
    uncertain = bought(store, take=4)
    task_id = sandbox_env.ledger()[-1].task_id
    assert documents("jobs adopt", task_id, uncertain.digest[:12])[0]["job"]["task_id"] == task_id
    assert documents("jobs forget", digest, "--yes") == [{"name": digest, "digest": entry.digest}]
    damaged = tmp_path / "outputs" / "journal" / "aa" / f"{'a' * 64}.1.json"
    damaged.parent.mkdir(exist_ok=True)
    damaged.write_text("{")
    assert "moved_to" in documents("jobs forget", damaged.name, "--yes")[0]
    assert {row["model"] for row in documents("spend", "--by", "model")} >= {"gpt-image-2"}
    assert "No job has the label 'projct'. There are account, day, " in run("spend", "--by", "projct").stderr
    assert run("spend", "--by", "month").stderr.count("\n") == 1
    assert documents("export", str(tmp_path / "shots.jsonl"))[0]["rows"] == 2
    assert documents("gallery", "--export", str(tmp_path / "page"))[0]["jobs"] >= 4


@pytest.mark.usefixtures("prefect_server")
def test_what_is_made_on_a_server(sandbox_env: SandboxServer) -> None:
    """Blocks, limits and automations, by their names; and a file, where there is none."""
    given = ("--gateway", "ttapi", "--key-from-env", "TTAPI_API_KEY", "--store", "/srv/films")
    made = documents("init", *given, "--save", "blocks", "--name", "json", "--store-name", "json-films", "--limits", "--automations")[0]
    assert (made["saved"], made["blocks"], len(made["limits"]), len(made["automations"])) == ("blocks", ["json", "json-films"], 1, 1)
    assert documents("init", *given, "--save", "env", "--no-limits", "--no-automations")[0]["env_file"] == ".env"
    assert len(documents("setup limits", "--gateway", "ttapi", "--jobs", "3")[0]["limits"]) == 2
    assert len(documents("setup automations")[0]["automations"]) == 2


@pytest.mark.parametrize("command", ["sandbox", "gallery"])
def test_what_serves_says_where(command: str) -> None:
    """In one line, and then serves."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = str(one.getsockname()[1])
    serve = [sys.executable, "-u", "-m", "prefect_happyhorse.cli", command, "--port", port, "--json"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            (served,) = valid(command, running.stdout.readline())
            assert served["url"].startswith(f"http://127.0.0.1:{port}/")
        finally:
            running.send_signal(signal.SIGINT)
            rest, _ = running.communicate(timeout=60)
    assert rest == ""
