"""A flow on Dask or Ray: its tasks run in processes of their own, which share nothing but the Prefect server, the store and its journal."""

from __future__ import annotations

import importlib.util
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .stack import ROOT, Stack, nothing_left_behind

pytestmark = pytest.mark.e2e

RUN = """
import json, sys

from prefect.task_runners import ThreadPoolTaskRunner

from shown import on_dask


def on(runner):
    if runner == "threads":
        return on_dask.with_options(task_runner=ThreadPoolTaskRunner())
    if runner == "ray":
        from prefect_ray import RayTaskRunner

        return on_dask.with_options(task_runner=RayTaskRunner(init_kwargs={"num_cpus": 2, "include_dashboard": False}))
    return on_dask


if __name__ == "__main__":
    runner, *prompts = sys.argv[1:]
    print(json.dumps([asset.model_dump(mode="json") for asset in on(runner)(prompts)]))
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    # Ray makes sockets below it, and the path of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray-") as short, nothing_left_behind() as processes:
        yield Stack(tmp_path_factory.mktemp("stack"), processes, RAY_TMPDIR=short)


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the flow as the documentation shows it, and a script that runs it."""
    folder = tmp_path_factory.mktemp("scripts")
    page = (ROOT / "docs" / "deployments.md").read_text(encoding="utf-8")
    (shown,) = [code for code in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL) if "DaskTaskRunner" in code]
    (folder / "shown.py").write_text(shown)
    (folder / "run.py").write_text(RUN)
    return folder


def run(stack: Stack, scripts: Path, runner: str, prompts: list[str]) -> list[dict[str, Any]]:
    """The assets that the flow gives; one of them is asked for twice at the same time."""
    printed = stack.python("run.py", runner, *prompts, prompts[0], cwd=scripts, seconds=180)
    return json.loads(printed.splitlines()[-1])


def made(assets: list[dict[str, Any]]) -> list[list[Any]]:
    """What is the same whenever it is made."""
    own = ("kind", "media_type", "width", "height", "bytes", "sha256")
    return [[asset["job"]["prompt"], asset["job"]["model"], *(asset[name] for name in own)] for asset in assets]


@pytest.mark.parametrize("runner", ["dask", "ray"])
def test_jobs_that_are_made_on_other_processes_are_bought_and_kept_once(stack: Stack, scripts: Path, runner: str, tmp_path: Path) -> None:
    """Two processes buy six jobs, and make what one process makes; run again on either, the flow gives the same and buys nothing."""
    if importlib.util.find_spec(f"prefect_{runner}") is None:
        pytest.skip(f"prefect-{runner} is not installed: it wants Linux and Python 3.11 or newer")
    prompts = [f"Horse {number} on {runner}" for number in range(6)]
    stack.environment["HAPPYHORSE_STORE"] = str(tmp_path / "elsewhere")
    expected = made(run(stack, scripts, "threads", prompts))
    stack.environment["HAPPYHORSE_STORE"] = str(tmp_path / "outputs")
    before = len(stack.ledger())
    assets = run(stack, scripts, runner, prompts)
    assert made(assets) == expected
    bought = stack.ledger()[before:]
    assert len(bought) == len({entry["digest"] for entry in bought}) == len(prompts)
    assert [entry["downloads"] for entry in bought] == [1] * len(prompts)
    kept = stack.journal()
    assert {entry["job"]["task_id"] for entry in kept} == {entry["task_id"] for entry in bought}
    assert {entry["state"] for entry in kept} == {"kept"}
    assert len({entry["owner"]["process"] for entry in kept}) > 1
    assert all(Path(asset["uri"].removeprefix("file://")).stat().st_size == asset["bytes"] for asset in assets)
    assert run(stack, scripts, runner, prompts) == assets
    assert run(stack, scripts, "threads", prompts) == assets
    assert stack.ledger()[before:] == bought
    assert {run["state"]["type"] for run in stack.runs("on-dask")} == {"COMPLETED"}
