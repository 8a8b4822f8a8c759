"""Chains that wait suspended, on a real server, two workers and a collector, of which any is killed at any moment with all its runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.stack import Stack, fetch, nothing_left_behind

from .conftest import Recorder
from .crew import Crew, judge, see_through

STEPS = 3
"""A picture, the video that stars it, and an edit of that."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    more = {"PREFECT_WORKER_QUERY_SECONDS": "1", "HAPPYHORSE_PRIVATE_NETWORK": "true"}
    with nothing_left_behind() as processes:
        yield Stack(tmp_path_factory.mktemp("chains"), processes, job_s=5.0, **more)


def test_suspended_chains_survive_the_loss_of_workers_and_collectors(stack: Stack, full: bool, record: Recorder) -> None:
    """Every step of every chain is bought once, and every chain ends; what a lost worker left is begun anew, as an automation would."""
    if not full:
        pytest.skip("It takes ten minutes: make chaos runs it, and tests/e2e/test_deployment.py a small one.")
    chains = int(os.environ.get("CHAINS", "40"))
    kills = 10 + chains // 4
    stack.prefect("work-pool", "create", "chains", "--type", "process")
    stack.prefect("deploy", "flows/image_to_video_edit.py:image_to_video_edit", "--name", "chains", "--pool", "chains")
    deployment = fetch(f"{stack.api}/deployments/name/image-to-video-edit/chains")["id"]
    small = {"resolution": "720p", "duration": 3}
    for take in range(1, chains + 1):
        given = {"video": small, "edit": small, "take": take, "wait": "suspend"}
        fetch(f"{stack.api}/deployments/{deployment}/create_flow_run", {"parameters": given})
    crew = Crew(stack, "chains", workers=2, limit=2)
    try:
        see_through(
            crew,
            "image-to-video-edit",
            chains,
            jobs=chains * STEPS,
            kill=lambda chance: crew.kill(chance.randrange(3)),
            kills=kills,
            within_s=45.0 * chains,
        )
    finally:
        crew.end()
    verdict = judge(stack, chains * STEPS)
    record(
        f"{chains} chains of {STEPS} steps that wait suspended; {kills} SIGKILLs of workers with their runs, and of collectors",
        verdict,
        runs=chains,
    )
    assert not list(Path(stack.environment["HAPPYHORSE_STORE"]).glob("journal/waiting/*"))
