"""`happyhorse metrics`: how the jobs of a journal stand, as Prometheus reads it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from tests.cli.commands import run
from tests.cli.journal import bought, riding
from tests.cli.journal import run as run_jobs

from prefect_happyhorse.engine.journal.journal import Journal
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.sandbox import SandboxServer


def samples(text: str) -> dict[tuple[str, ...], float]:
    """What a scrape reads, by its name and the values of its labels."""
    families = text_string_to_metric_families(text)
    return {
        (one.name.removeprefix("happyhorse_"), *(value for _, value in sorted(one.labels.items()))): one.value
        for family in families
        for one in family.samples
    }


def test_the_journal_is_told_by_gateway(sandbox_env: SandboxServer, store: Store) -> None:
    """What is open and since when, what it costs, of how many nobody knows that, and what cannot be read; of prompts and keys nothing."""
    horse, ride = bought(store), riding(store)
    assert run_jobs("resume", ride.digest[:12]).exit_code == 0
    asyncio.run(store.write(Journal(store).path("ab" * 32, 1), b"{"))
    told = run("metrics")
    assert told.exit_code == 0
    found = samples(told.stdout)
    assert found["open_jobs", "happyhorse", "submitted"] == 1
    assert found["open_jobs", "happyhorse", "uncertain"] == found["open_jobs", "infiflow", "submitted"] == 0
    assert abs(found["oldest_open_job_timestamp_seconds", "happyhorse"] - horse.begun_at.timestamp()) < 1e-3
    assert ("oldest_open_job_timestamp_seconds", "infiflow") not in found
    assert found["estimated_cost", "CNY", "infiflow"] == found["billed_cost", "CNY", "infiflow"] == 4.5
    assert found["unpriced_jobs", "happyhorse"] == 1
    assert found["unpriced_jobs", "infiflow"] == 0
    assert ("estimated_cost", "CNY", "happyhorse") not in found
    assert found["unreadable_journal_files",] == 1
    assert "cannot be read" in told.stderr
    for secret in ("sesame", horse.request.prompt, ride.request.prompt):
        assert secret not in told.stdout


def test_an_empty_journal_has_nothing_to_worry_about(store: Store) -> None:
    """Before the first job there is no gateway, and nothing that cannot be read."""
    assert samples(run("metrics").stdout) == {("unreadable_journal_files",): 0}


def test_a_file_is_written_as_a_whole(sandbox_env: SandboxServer, store: Store, tmp_path: Path) -> None:
    """For a textfile collector, which may read it at any time."""
    bought(store)
    file = tmp_path / "happyhorse.prom"
    assert run("metrics", "--output", str(file)).stdout == ""
    assert samples(file.read_text())["open_jobs", "happyhorse", "submitted"] == 1
    assert run("metrics", "--output", str(tmp_path / "missing" / "file")).exit_code == 1
