"""A flow on Dask: its tasks run in processes of their own, which share nothing but the Prefect server, the store and its journal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .studio import ROOT, Studio, nothing_left_behind

pytestmark = pytest.mark.e2e

PROMPTS = [f"Horse {number} on another machine" for number in range(6)]
RUN = """
import json, sys

from prefect.task_runners import ThreadPoolTaskRunner

from shown import on_dask

if __name__ == "__main__":
    runner, *prompts = sys.argv[1:]
    flow = on_dask if runner == "dask" else on_dask.with_options(task_runner=ThreadPoolTaskRunner())
    print(json.dumps([asset.model_dump(mode="json") for asset in flow(prompts)]))
"""


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    with nothing_left_behind() as processes:
        yield Studio(tmp_path_factory.mktemp("studio"), processes)


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the flow as the documentation shows it, and a script that runs it."""
    folder = tmp_path_factory.mktemp("scripts")
    page = (ROOT / "docs" / "deployments.md").read_text(encoding="utf-8")
    (shown,) = [code for code in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL) if "DaskTaskRunner" in code]
    (folder / "shown.py").write_text(shown)
    (folder / "run.py").write_text(RUN)
    return folder


def run(studio: Studio, scripts: Path, runner: str) -> list[dict[str, Any]]:
    """The assets that the flow gives; one of them is asked for twice at the same time."""
    return json.loads(studio.python("run.py", runner, *PROMPTS, PROMPTS[0], cwd=scripts, seconds=120))


def made(assets: list[dict[str, Any]]) -> list[list[Any]]:
    """What is the same whenever it is made."""
    return [[asset[name] for name in ("prompt", "model", "kind", "media_type", "width", "height", "bytes", "sha256")] for asset in assets]


def test_jobs_that_are_made_on_dask_are_bought_and_kept_once(studio: Studio, scripts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes buy six jobs, and make what one process makes; run again on either, the flow gives the same and buys nothing."""
    with monkeypatch.context() as elsewhere:
        elsewhere.setitem(studio.environment, "HAPPYHORSE_STORE", str(scripts / "outputs"))
        expected = made(run(studio, scripts, "threads"))
    before = len(studio.ledger())
    assets = run(studio, scripts, "dask")
    assert made(assets) == expected
    bought = studio.ledger()[before:]
    assert len(bought) == len({entry["digest"] for entry in bought}) == len(PROMPTS)
    assert [entry["downloads"] for entry in bought] == [1] * len(PROMPTS)
    kept = studio.journal()
    assert {entry["job"]["task_id"] for entry in kept} == {entry["task_id"] for entry in bought}
    assert {entry["state"] for entry in kept} == {"kept"}
    assert len({entry["intent"]["process"] for entry in kept}) == 2
    assert all(Path(asset["uri"].removeprefix("file://")).stat().st_size == asset["bytes"] for asset in assets)
    assert run(studio, scripts, "dask") == assets
    assert run(studio, scripts, "threads") == assets
    assert studio.ledger()[before:] == bought
    assert [run["state"]["type"] for run in studio.runs("on-dask")] == ["COMPLETED"] * 4
