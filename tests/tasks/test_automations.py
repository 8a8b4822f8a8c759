"""Every automation that is shipped, on a real server: its cause is made to happen, and somebody hears of it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner
from prefect import flow
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.settings import get_current_settings
from prefect.states import Completed

from prefect_happyhorse import (
    Budget,
    MediaStore,
    ModerationRejected,
    QuotaExceeded,
    ReferenceToVideo,
    TextToImage,
    generate,
    open_jobs,
    submit,
)
from prefect_happyhorse.cli import main
from prefect_happyhorse.runtime import events
from prefect_happyhorse.runtime.automations import notifications, result_automation, save, zombie_automation
from prefect_happyhorse.sandbox import SandboxServer

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    # Prefect's client leaves connections to its own server for the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

WITHIN_S = 180


class Heard:
    """A webhook, and what it was told."""

    def __init__(self) -> None:
        self.told: list[dict[str, str]] = []
        self._more = asyncio.Event()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r")[0])
        self.told.append(json.loads(await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()
        self._more.set()

    async def of(self, subject: str) -> str:
        """What is said under a subject, once it is."""

        async def wait() -> str:
            while not (found := [one["body"] for one in self.told if one["subject"] == subject]):
                self._more.clear()
                await self._more.wait()
            return found[0]

        return await asyncio.wait_for(wait(), WITHIN_S)


async def _remove_automations() -> None:
    async with get_client() as client:
        for automation in await client.read_automations():
            await client.delete_automation(automation.id)


@pytest.fixture
async def heard(sandbox_env: SandboxServer) -> AsyncIterator[Heard]:
    heard = Heard()
    server = await asyncio.start_server(heard.answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    block = CustomWebhookNotificationBlock(name="studio", url=url, json_data={"subject": "{{subject}}", "body": "{{body}}"})
    await block.save("studio", overwrite=True)
    async with get_client() as client:
        document = await client.read_block_document_by_name("studio", "custom-webhook")
    for automation in (*notifications(document.id), result_automation(document.id)):
        await save(automation)
    yield heard
    await _remove_automations()
    server.close()


def horse(prompt: str = "A horse") -> TextToImage:
    return TextToImage(model="gpt-image-2", prompt=prompt)


def ride(number: int) -> ReferenceToVideo:
    return ReferenceToVideo(model="happyhorse-1.1-r2v", prompt=f"It runs, {number}", references=["https://example.com/a.png"], duration=5)


async def test_a_budget_that_is_nearly_spent_is_told(
    sandbox_env: SandboxServer, heard: Heard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By its figure."""
    prices = tmp_path / "prices.toml"
    prices.write_text('[[price]]\nmodel = "gpt-image-2"\nper = "output"\namount = "0.90"\ncurrency = "CNY"\ndated = 2026-11-01\n')
    monkeypatch.setenv("HAPPYHORSE_PRICES", str(prices))
    monkeypatch.setattr(events, "_TOLD", set())

    @flow
    async def one() -> None:
        await submit(horse(), "happyhorse", budget=Budget.model_validate({"amount": "1", "currency": "CNY"}))

    await one()
    assert "80 % of 1 CNY are spent" in await heard.of("A budget is nearly spent")


async def test_a_refusal_by_the_content_rules_is_told(sandbox_env: SandboxServer, heard: Heard) -> None:
    """With its model and job."""
    sandbox_env.fault(at="submit", kind="moderation")

    @flow
    async def one() -> None:
        with pytest.raises(ModerationRejected):
            await submit(horse(), "happyhorse")

    await one()
    assert "gpt-image-2: happyhorse.job.happyhorse." in await heard.of("Refused by the content rules")


async def test_a_gateway_that_rests_is_told(sandbox_env: SandboxServer, heard: Heard) -> None:
    """With its account and for how long."""
    sandbox_env.fault(at="submit", kind="quota", times=None)

    @flow
    async def three() -> None:
        for number in range(3):
            with pytest.raises(QuotaExceeded):
                await submit(ride(number), ["infiflow", "ttapi"])

    await three()
    assert "(sandbox) failed again and again, and rests for 60.0 s" in await heard.of("A gateway rests")


async def test_a_job_near_its_end_of_life_is_told(sandbox_env: SandboxServer, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a day, while it can still be fetched, and by the command that does."""

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(hours=20)

    @flow
    async def look() -> str:
        job = await submit(ride(1), "infiflow")
        await open_jobs()
        # No quarter of its day is left, by another clock.
        monkeypatch.setattr("prefect_happyhorse.tasks.collect.datetime", Later)
        for _ in range(3):
            await open_jobs()
        return job.digest

    digest = await look()
    told = await heard.of("A paid job is about to expire")
    assert f"happyhorse jobs resume {digest}" in told
    assert f"until {(datetime.now(timezone.utc) + timedelta(days=1)).date()}" in told

    @flow
    async def other() -> None:
        await generate(horse(), "happyhorse")

    # Heard of after whatever else the three looks had led to.
    await other()
    await heard.of("A result is kept")
    assert [one["subject"] for one in heard.told].count("A paid job is about to expire") == 1


async def test_a_journal_entry_that_cannot_be_read_is_told(sandbox_env: SandboxServer, heard: Heard, tmp_path: Path) -> None:
    """By its file."""

    @flow
    async def look() -> str:
        job = await submit(horse(), "happyhorse")
        *_, entry = sorted((tmp_path / "outputs" / "journal").glob(f"{job.digest[:2]}/{job.digest}.*.json"))
        entry.write_text("{")
        await open_jobs()
        return entry.name

    name = await look()
    assert name in await heard.of("A journal entry cannot be read")


async def test_a_result_is_told_with_its_link(sandbox_env: SandboxServer, heard: Heard, tmp_path: Path) -> None:
    """Where people can read it."""
    store = MediaStore(url=str(tmp_path / "outputs"), public_base_url="https://media.example.com/out")

    @flow
    async def one() -> str:
        return (await generate(horse(), "happyhorse", store)).uri

    uri = await one()
    assert f"gpt-image-2: https://media.example.com/out/{uri.partition('/outputs/')[2]}" in await heard.of("A result is kept")


SILENT = """
import asyncio, sys
from prefect import flow
from prefect.runtime import flow_run

@flow
async def silent():
    print(flow_run.id, flush=True)
    await asyncio.sleep(3600)

asyncio.run(silent())
"""


async def test_a_run_whose_process_is_gone_is_crashed(sandbox_env: SandboxServer) -> None:
    """By the silence of its heartbeats; one that has ended is left as it is, whatever its last state is called."""
    await save(zombie_automation(10))
    try:

        @flow
        def skipped() -> Any:
            return Completed(name="Skipped")

        ended = skipped(return_state=True).state_details.flow_run_id
        environment = {**os.environ, **get_current_settings().to_environment_variables(exclude_unset=True)}
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", SILENT, stdout=subprocess.PIPE, env=environment)
        try:
            assert process.stdout is not None
            run = UUID((await asyncio.wait_for(process.stdout.readline(), WITHIN_S)).decode().strip())
            async with get_client() as client:
                while not await _heartbeats(client, run):
                    assert process.returncode is None
        finally:
            process.kill()
            await process.wait()

        async def crashed() -> str | None:
            async with get_client() as client:
                while True:
                    state = (await client.read_flow_run(run)).state
                    if state is not None and state.is_crashed():
                        return state.message

        assert "No heartbeat came for 10 s" in (await asyncio.wait_for(crashed(), WITHIN_S) or "")
        async with get_client() as client:
            # It began before the other, so that its time was up before.
            assert (state := (await client.read_flow_run(ended)).state) is not None
            assert (await _heartbeats(client, ended), state.name) == (1, "Skipped")
    finally:
        await _remove_automations()


async def _heartbeats(client: Any, run: UUID) -> int:
    wanted = {
        "event": {"name": ["prefect.flow-run.heartbeat"]},
        "resource": {"id": [f"prefect.flow-run.{run}"]},
    }
    answer = await client._client.post("/events/filter", json={"filter": wanted})
    return int(answer.json()["total"])


async def test_the_command_makes_them_all(heard: Heard) -> None:
    """Each once, by its name; results are told of only where that is asked for."""
    runner = CliRunner()
    plain = await asyncio.to_thread(runner.invoke, main, ["setup", "automations"])
    assert plain.output.splitlines() == ["happyhorse: pause on an uncertain submit", "happyhorse: crash a run that is silent"]
    notified = await asyncio.to_thread(runner.invoke, main, ["setup", "automations", "--notify", "custom-webhook/studio", "--results"])
    assert notified.output.splitlines() == [
        "happyhorse: pause on an uncertain submit",
        "happyhorse: crash a run that is silent",
        "happyhorse: notify on moderation",
        "happyhorse: notify on a budget that is nearly spent",
        "happyhorse: notify on a job near its end of life",
        "happyhorse: notify on a gateway that rests",
        "happyhorse: notify on a journal entry that cannot be read",
        "happyhorse: notify on every result",
    ]
    async with get_client() as client:
        assert sorted(one.name for one in await client.read_automations()) == sorted(notified.output.splitlines())
    assert "goes with --notify" in (await asyncio.to_thread(runner.invoke, main, ["setup", "automations", "--results"])).output
