"""Both flows, deployed to a process pool of a real Prefect server, run by a real worker against a sandbox of its own process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from .stack import ROOT, Stack, fetch, nothing_left_behind, until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with nothing_left_behind() as processes:
        yield Stack(tmp_path_factory.mktemp("stack"), processes)


def test_the_blocks_are_registered(stack: Stack) -> None:
    """`prefect block register -m prefect_happyhorse` and `prefect block type ls` show both."""
    stack.prefect("block", "register", "-m", "prefect_happyhorse")
    listed = stack.prefect("block", "type", "ls")
    assert "happyhorse-gateway-credentials" in listed
    assert "happyhorse-media-store" in listed


def test_deployed_flows_run_on_a_worker(stack: Stack, tmp_path: Path) -> None:
    """Pool, deployments and runs by the commands of the README; files in the store, pictures and a table over the API."""
    manifest = tmp_path / "shots.jsonl"
    manifest.write_text(json.dumps({"capability": "text_to_image", "model": "gpt-image-2", "prompt": "A deployed horse"}))
    stack.prefect("work-pool", "create", "happyhorse", "--type", "process")
    stack.prefect("deploy", "flows/image_to_video_edit.py:image_to_video_edit", "--name", "stack", "--pool", "happyhorse")
    stack.prefect("deploy", "flows/batch.py:batch", "--name", "stack", "--pool", "happyhorse")
    small = json.dumps({"resolution": "720p", "duration": 3})
    stack.prefect("deployment", "run", "image-to-video-edit/stack", "-p", f"video={small}", "-p", f"edit={small}")
    stack.prefect("deployment", "run", "batch/stack", "-p", f"manifest={manifest}")
    stack.prefect("worker", "start", "--pool", "happyhorse", "--run-once")
    runs = fetch(f"{stack.api}/flow_runs/filter", {})
    assert [run["state"]["type"] for run in runs] == ["COMPLETED", "COMPLETED"], [run["state"] for run in runs]
    ledger = stack.ledger()
    assert sorted(entry["capability"] for entry in ledger) == ["reference_to_video", "text_to_image", "text_to_image", "video_edit"]
    artifacts = fetch(f"{stack.api}/artifacts/filter", {})
    kinds = sorted((artifact["key"] or "").partition("-")[0] for artifact in artifacts if artifact["key"])
    assert {"batch", "card", "gallery", "link"} <= set(kinds)
    # What is made by the hundred has a place in the gallery of its task run, and no card.
    assert (kinds.count("card"), kinds.count("gallery")) == (3, 2)
    gallery = next(artifact["data"] for artifact in artifacts if (artifact["key"] or "").startswith("gallery-image"))
    assert gallery.count("data:image/jpeg;base64,") == 3
    stored = Path(stack.environment["HAPPYHORSE_STORE"])
    assert len([file for file in stored.rglob("*") if file.suffix in {".png", ".mp4"}]) == 4
    assert "sesame" not in json.dumps([runs, artifacts])


def test_a_deployed_flow_without_a_store_buys_nothing(stack: Stack, tmp_path: Path) -> None:
    """A worker's process has a folder of its own, which goes when the run ends: files and journal would go with it, and be bought again."""
    manifest = tmp_path / "shots.jsonl"
    manifest.write_text(json.dumps({"capability": "text_to_image", "model": "gpt-image-2", "prompt": "A horse without a stable"}))
    bought = len(stack.ledger())
    store = stack.environment.pop("HAPPYHORSE_STORE")
    try:
        for more in ([], ["-p", f"store={stack.environment['TMPDIR']}/outputs"], ["-p", "store=./outputs"]):
            stack.prefect("deployment", "run", "batch/stack", "-p", f"manifest={manifest}", *more)
        stack.prefect("worker", "start", "--pool", "happyhorse", "--run-once")
    finally:
        stack.environment["HAPPYHORSE_STORE"] = store
    wanted = {"sort": "EXPECTED_START_TIME_DESC", "limit": 3}
    told = sorted(run["state"]["message"] for run in fetch(f"{stack.api}/flow_runs/filter", wanted) if run["state"]["type"] == "FAILED")
    assert len(told) == 3, told
    assert all("needs a store that outlives it" in one for one in told)
    for reason in ("none is named", "lies in the temporary folder", "counts from the run's own folder"):
        assert any(reason in one for one in told), told
    assert len(stack.ledger()) == bought


def test_a_chain_waits_without_a_process(stack: Stack) -> None:
    """Two chains end their processes while jobs are open; a collector, of which one is killed, resumes them; each step is bought once."""
    bought = len(stack.ledger())
    small = json.dumps({"resolution": "720p", "duration": 3})
    for take in (11, 12):
        given = [f"video={small}", f"edit={small}", f"take={take}", 'wait="suspend"']
        stack.prefect("deployment", "run", "image-to-video-edit/stack", *(word for one in given for word in ("-p", one)))

    def states() -> list[str]:
        return [run["state"]["name"] for run in stack.runs("image-to-video-edit") if run["parameters"].get("take", 1) > 10]

    with stack.background("-m", "prefect", "worker", "start", "--pool", "happyhorse"):
        until(lambda: states() == ["Suspended", "Suspended"])
        assert len(stack.ledger()) == bought + 2
        with stack.background(str(ROOT / "flows" / "collect.py"), "--follow", "1") as collector:
            until(lambda: len(stack.ledger()) > bought + 2)
            collector.kill()
        with stack.background(str(ROOT / "flows" / "collect.py"), "--follow", "1"):
            until(lambda: states() == ["Completed", "Completed"], seconds=300)
    made = stack.ledger()[bought:]
    assert sorted(entry["capability"] for entry in made) == ["reference_to_video"] * 2 + ["text_to_image"] * 2 + ["video_edit"] * 2
    assert not list(Path(stack.environment["HAPPYHORSE_STORE"]).glob("journal/waiting/*"))


@pytest.mark.parametrize("flow", ["image_to_video_edit", "batch"])
def test_the_flows_run_as_scripts(stack: Stack, tmp_path: Path, flow: str) -> None:
    """`python flows/NAME.py` prints where each file lies."""
    manifest = tmp_path / "shots.jsonl"
    manifest.write_text(json.dumps({"capability": "text_to_image", "model": "gpt-image-2", "prompt": "A scripted horse"}))
    arguments = [str(manifest)] if flow == "batch" else []
    printed = stack.python(str(ROOT / "flows" / f"{flow}.py"), *arguments, cwd=tmp_path)
    assert printed.count("file://") == (1 if flow == "batch" else 3)
