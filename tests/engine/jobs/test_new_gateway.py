"""A new gateway in a known dialect is one data file: nothing else has to know it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engine.conftest import Naps

from prefect_happyhorse.blocks import GatewayCredentials
from prefect_happyhorse.catalog import GATEWAYS, GatewayFacts, loader, register, routes
from prefect_happyhorse.domain.requests import TextToVideo
from prefect_happyhorse.engine.jobs.poll import Poller
from prefect_happyhorse.engine.jobs.prepare import prepare
from prefect_happyhorse.engine.jobs.results import OutputStore
from prefect_happyhorse.engine.jobs.submit import Submitter
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.sandbox import SandboxServer

PEGASUS = """
[gateway]
gateway = "pegasus"
title = "Pegasus"
dialect = "dashscope"
source = "Its document"
dated = 2026-11-20
auth = "X-Pegasus-Key: <key>"
submit_headers = { X-DashScope-Async = "enable" }
typical_s = { image = 1.0, video = 2.0 }
codes = { InvalidApiKey = "authentication" }

[shapes.flight]
submit = "POST /flights"
poll = "GET /flights/{task_id}"
fields = [
    { to = "model", from = "model", required = true },
    { to = "input.prompt", from = "prompt", required = true },
    { to = "parameters.duration", from = "duration", type = "integer", minimum = 2, maximum = 9 },
]

[[route]]
capability = "text_to_video"
model = "pegasus-1"
title = "Pegasus 1"
shape = "flight"
source = "Chapter 1"
"""


@pytest.fixture
def pegasus(tmp_path: Path) -> Iterator[GatewayFacts]:
    file = tmp_path / "pegasus.toml"
    file.write_text(PEGASUS, encoding="utf-8")
    yield register(file)
    del loader._TEXTS["pegasus"], loader._LOADED["pegasus"]


async def test_a_registered_gateway_makes_a_whole_job(
    pegasus: GatewayFacts, sandbox: SandboxServer, store: Store, naps: Naps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials from the environment, submit, poll and download, on a sandbox that was running before it was registered."""
    monkeypatch.setenv("PEGASUS_API_KEY", "sesame-1234")
    monkeypatch.setenv("PEGASUS_BASE_URL", sandbox.base_url("pegasus"))
    account = GatewayCredentials.from_environment("pegasus").to_account()
    request = TextToVideo(model="pegasus-1", prompt="A winged horse", duration=2)
    job = await Submitter(store=store, sleep=naps).submit(await prepare(request, account))
    result = await Poller(account=account, store=store, sleep=naps).poll(job)
    asset = (await OutputStore(account=account, store=store).store_outputs(result)).asset
    (charged,) = sandbox.ledger()
    assert (job.gateway, charged.gateway, charged.model) == ("pegasus", "pegasus", "pegasus-1")
    assert (asset.kind, Path(asset.uri.removeprefix("file://")).stat().st_size > 0) == ("video", True)


def test_a_registered_gateway_is_offered_everywhere(pegasus: GatewayFacts) -> None:
    """Among the gateways, the routes and the choices of the block's form."""
    assert "pegasus" in GATEWAYS
    assert [route.model for route in routes("pegasus")] == ["pegasus-1"]
    assert "pegasus" in GatewayCredentials.model_json_schema()["properties"]["gateway"]["enum"]
