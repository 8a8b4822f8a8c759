"""A large manifest by the flow `batch`, as a user runs it: made, and asked for once more when all of it is stored."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.bench.measure import MIB, Size, peak, say
from tests.bench.report import Figure
from tests.bench.services import prefect_server, sandbox

FLOW = Path(__file__).parents[2] / "flows" / "batch.py"
_LINKS = 10_000
"""How many names one file may have on any file system."""


def batches(size: Size, scratch: Path) -> tuple[list[Figure], str]:
    """Wall time, memory, and what the Prefect server spends."""
    options = ("--job-s", str(size.job_s), "--media", "tiny", "--check-inputs", "never")
    with sandbox(*options) as url, prefect_server(scratch / "prefect") as server:

        def batch(rows: int, store: Path) -> dict[str, float]:
            manifest = scratch / f"{rows}.jsonl"
            manifest.write_text("".join(json.dumps(_row(number)) + "\n" for number in range(rows)))
            given = {"HAPPYHORSE_BASE_URL": f"{url}/happyhorse", "HAPPYHORSE_API_KEY": "bench", "HAPPYHORSE_STORE": str(store)}
            before = server.cpu_s()
            measured = peak([sys.executable, str(FLOW), str(manifest)], server.environment | given)
            found = measured | {"served_s": server.settled_cpu_s() - before}
            say(f"{rows} rows: {found}")
            return found

        made = batch(size.rows, scratch / "made")
        stored = scratch / "stored"
        batch(1, stored)
        _as_if_made(stored, size.stored)
        again = batch(size.stored, stored)
    server_ms = 1000 * made["served_s"] / size.rows
    return [
        Figure(
            f"{size.rows} jobs of {size.job_s:g} s by `batch`, 500 at once",
            f"the jobs alone: {size.rows / 500 * size.job_s:.0f} s",
            "512 MiB",
            f"{made['wall_s']:.0f} s, **{made['bytes'] / MIB:.0f} MiB**, {server_ms:.0f} ms of the Prefect server's processor a job",
            made["bytes"] <= 512 * MIB,
        ),
        Figure(
            f"a manifest of {size.stored} rows by `batch`, all of them stored already",
            "",
            "120 s, 512 MiB",
            f"**{again['wall_s']:.0f} s**, {again['bytes'] / MIB:.0f} MiB",
            again["wall_s"] <= 120 and again["bytes"] <= 512 * MIB,
        ),
    ], ""


def _row(number: int) -> Mapping[str, Any]:
    return {
        "capability": "text_to_video",
        "model": "happyhorse-1.0-t2v",
        "prompt": f"A horse runs, {number}",
        "resolution": "720p",
        "duration": 5,
    }


def _as_if_made(store: Path, rows: int) -> None:
    """What a store holds after so many such jobs, made from the first, whose bytes are shared."""
    from prefect_happyhorse import parse_request
    from prefect_happyhorse.engine.journal.digest import request_digest

    (first,) = store.glob("journal/??/*.json")
    text = first.read_text()
    entry = json.loads(text)
    job = entry["job"]
    file = Path(entry["asset"]["uri"].removeprefix("file://"))
    for number in range(1, rows):
        if number % _LINKS == 0:
            copy = file.with_name(f"copy-{number}.mp4")
            copy.write_bytes(file.read_bytes())
            file = copy
        row = _row(number)
        digest = request_digest(parse_request(row), gateway=job["gateway"], account=job["account"], take=1, fingerprints={})
        name = file.with_name(f"{digest}.mp4")
        os.link(file, name)
        changed = text.replace(entry["asset"]["uri"], name.as_uri()).replace(entry["digest"], digest)
        changed = changed.replace(job["task_id"], f"task-{number}").replace(_row(0)["prompt"], row["prompt"])
        place = store / "journal" / digest[:2] / first.name.replace(entry["digest"], digest)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(changed)
