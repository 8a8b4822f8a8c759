"""Several gateways for one request, in flows: the first that does not certainly refuse it makes it."""

from __future__ import annotations

import asyncio
import logging
from itertools import pairwise
from typing import Any

import pytest
from prefect import flow
from pydantic import SecretStr, ValidationError

from prefect_happyhorse import (
    GatewayCredentials,
    GatewayPool,
    InvalidRequest,
    JobFailed,
    MediaAsset,
    PollRejected,
    QuotaExceeded,
    ReferenceToVideo,
    RowResult,
    SubmissionUncertain,
    check_ready,
    check_requests,
    collect_jobs,
    generate,
    generate_many,
    open_jobs,
    request_problems,
    submit,
)
from prefect_happyhorse.runtime.concurrency import save_limits
from prefect_happyhorse.sandbox import SandboxServer

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    # Prefect's client leaves connections to its own server for the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

RIDE = ReferenceToVideo(
    model="happyhorse-1.0-r2v",
    prompt="It runs",
    references=["https://example.com/a.png"],
    resolution="720p",
    aspect_ratio="16:9",
    duration=5,
)
THREE = ["infiflow", "ttapi", "uniall"]


def rides(count: int) -> list[ReferenceToVideo]:
    return [RIDE.model_copy(update={"prompt": f"It runs {number}"}) for number in range(count)]


def bought(sandbox: SandboxServer) -> list[str]:
    return [entry.gateway for entry in sandbox.ledger() if not entry.refunded]


@flow
async def make(credentials: Any, request: Any = RIDE) -> MediaAsset:
    """Make one video."""
    return await generate(request, credentials)


async def test_the_second_makes_what_the_first_has_no_balance_for(sandbox_env: SandboxServer, caplog: pytest.LogCaptureFixture) -> None:
    """The run's log says so, and the asset says who made it; the rerun in another order gives the same file and buys nothing."""
    sandbox_env.fault(at="submit", kind="quota", gateway="infiflow")
    with caplog.at_level(logging.WARNING, "prefect.flow_runs"):
        asset = await make(["infiflow", "uniall", "ttapi"])
    assert (asset.job.gateway, asset.job.model) == ("uniall", "happy-horse-720p")
    assert any(
        "infiflow (account 'sandbox') did not take the request, and certainly nothing was bought there" in line for line in caplog.messages
    )
    assert (await make(("ttapi", GatewayCredentials.from_environment("uniall")))).uri == asset.uri
    assert bought(sandbox_env) == ["uniall"]


def test_sync_flows_take_a_pool_too(sandbox_env: SandboxServer) -> None:
    """One name serves both worlds."""
    sandbox_env.fault(at="submit", kind="quota", gateway="infiflow")

    @flow
    def one() -> MediaAsset:
        return generate(RIDE, THREE)

    assert one().job.gateway == "ttapi"


async def test_after_an_uncertain_submit_the_next_is_never_charged(sandbox_env: SandboxServer) -> None:
    """Nor by a rerun."""
    sandbox_env.fault(at="submit", kind="drop_after", gateway="infiflow")
    for credentials in (THREE, ["ttapi", "infiflow"], ["ttapi"]):
        with pytest.raises(SubmissionUncertain) as caught:
            await make(credentials)
        assert caught.value.gateway == "infiflow"
    assert bought(sandbox_env) == ["infiflow"]


async def test_a_rerun_without_the_gateway_that_made_it_says_where_the_money_is(sandbox_env: SandboxServer) -> None:
    """And buys nothing."""
    await make(["ttapi"])
    with pytest.raises(PollRejected, match=r"This request was bought at ttapi \(account 'sandbox'\)"):
        await make(["infiflow", "uniall"])
    assert bought(sandbox_env) == ["ttapi"]


async def test_a_failure_is_bought_again_at_the_next_if_asked(sandbox_env: SandboxServer) -> None:
    """Else it is raised as ever."""
    sandbox_env.fault(at="submit", kind="fail_job", gateway="infiflow", times=None)
    with pytest.raises(JobFailed):
        await make(THREE)
    asset = await make(GatewayPool(credentials=THREE, after_failure=True))
    assert asset.job.gateway == "ttapi"
    sandbox_env.fault(at="submit", kind="fail_job", times=None)
    with pytest.raises(JobFailed):
        await make(GatewayPool(credentials=THREE, after_failure=True), rides(1)[0])
    assert [entry.gateway for entry in sandbox_env.ledger()] == ["infiflow", "ttapi", "infiflow", "ttapi", "uniall"]


@pytest.fixture
async def saved() -> str:
    """A pool that is saved under a name."""
    await GatewayPool(credentials=["uniall", "infiflow"], order="cheapest").save("studio-pool", overwrite=True)
    return "studio-pool"


async def test_a_saved_pool_is_named_as_credentials_are(sandbox_env: SandboxServer, saved: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a deployment's parameter, for instance; it is found before anything is bought, and so is what it lacks."""
    await check_ready(None, saved, ["infiflow", "ttapi"])
    asset = await make(saved)
    assert asset.job.gateway == "uniall"
    await check_requests([("ride", RIDE, saved)])
    assert await request_problems(RIDE, saved) == ()
    problems = await request_problems(RIDE.model_copy(update={"duration": 60}), saved)
    assert {problem.partition(":")[0] for problem in problems[1:]} == {"uniall", "infiflow"}
    monkeypatch.delenv("INFIFLOW_API_KEY")
    with pytest.raises(InvalidRequest, match="INFIFLOW_API_KEY"):
        await check_ready(None, saved)
    with pytest.raises(ValueError, match="There is no GatewayCredentials block named 'no-such-pool'"):
        await make("no-such-pool")


async def test_many_rows_go_through_a_pool(sandbox_env: SandboxServer) -> None:
    """Each by itself; a failure is bought again if asked, and a second run finds all of them."""
    sandbox_env.fault(at="submit", kind="quota", gateway="infiflow", times=2)
    sandbox_env.fault(at="submit", kind="fail_job", gateway="infiflow", times=1)

    @flow
    async def many(credentials: Any) -> list[RowResult]:
        return await generate_many(rides(5), credentials, concurrency=1)

    rows = await many(GatewayPool(credentials=THREE, after_failure=True))
    assert [row.state for row in rows] == ["kept"] * 5
    assert [row.asset.job.gateway for row in rows if row.asset is not None] == ["ttapi", "ttapi", "ttapi", "infiflow", "infiflow"]
    assert [row.state for row in await many(["uniall", "ttapi", "infiflow"])] == ["kept"] * 5
    assert len(bought(sandbox_env)) == 5


async def test_jobs_of_a_pool_are_collected(sandbox_env: SandboxServer) -> None:
    """As those of one gateway are, with the names of the pool's payers or without any."""
    sandbox_env.fault(at="submit", kind="quota", gateway="infiflow")

    @flow
    async def leave() -> list[str]:
        return [(await submit(ride, THREE)).gateway for ride in rides(2)]

    @flow
    async def collect(credentials: list[str]) -> list[str]:
        return [row.state for row in await collect_jobs(await open_jobs(), credentials)]

    assert await leave() == ["ttapi", "infiflow"]
    assert await collect(THREE) == ["kept", "kept"]


@pytest.mark.parametrize("by_rows", [False, True])
async def test_a_pool_keeps_the_limit_of_the_account_that_makes_the_job(
    sandbox_env: SandboxServer, monkeypatch: pytest.MonkeyPatch, by_rows: bool
) -> None:
    """From its submit to its file, and never that of an account that refused it."""
    monkeypatch.setenv("INFIFLOW_ACCOUNT", f"poor {by_rows}")
    monkeypatch.setenv("TTAPI_ACCOUNT", f"rich {by_rows}")
    sandbox_env.settings(job_s=0.4)
    sandbox_env.fault(at="submit", kind="quota", gateway="infiflow", times=None)
    for gateway, label in (("infiflow", "poor"), ("ttapi", "rich")):
        await save_limits(gateway, f"{label} {by_rows}", jobs=1, calls_per_s=None)

    @flow
    async def three() -> list[Any]:
        if by_rows:
            return await generate_many(rides(3), ["infiflow", "ttapi"])
        return list(await asyncio.gather(*(generate(ride, ["infiflow", "ttapi"]) for ride in rides(3))))

    assert len(await three()) == 3
    starts = sorted(entry.charged_at for entry in sandbox_env.ledger())
    assert [entry.gateway for entry in sandbox_env.ledger()] == ["ttapi"] * 3
    assert all(later - earlier >= 0.4 for earlier, later in pairwise(starts))


@pytest.mark.parametrize(
    ("credentials", "problem"),
    [
        ([], r"A pool needs at least one gateway \(got an empty list\)"),
        (["ttapi", "infiflow", "ttapi"], r"Each gateway may stand in a pool once \(got ttapi more than once\)"),
        (
            [GatewayCredentials(gateway="ttapi", api_key=SecretStr("k"), account=name) for name in ("film", "ads")],
            r"Each gateway may stand in a pool once \(got ttapi more than once\)",
        ),
        ([["ttapi"], None], r"credentials must be .* a list of these, or a GatewayPool \(got a list of list, NoneType\)"),
        ({"ttapi"}, r"credentials must be .* a list of these, or a GatewayPool \(got set\)"),
    ],
)
async def test_what_makes_no_pool_is_refused(sandbox_env: SandboxServer, credentials: Any, problem: str) -> None:
    """By every task that buys, before anything is sent."""

    @flow
    async def one(step: Any) -> None:
        await step([RIDE] if step is generate_many else RIDE, credentials)

    for step in (submit, generate, generate_many):
        with pytest.raises(InvalidRequest, match=f"(?s){problem}"):
            await one(step)
    assert sandbox_env.ledger() == []


async def test_a_family_that_nobody_offers_is_refused(sandbox_env: SandboxServer) -> None:
    """With what there is."""
    with pytest.raises(InvalidRequest, match="No gateway offers reference_to_video with model 'unicorn-1'"):
        await make(THREE, RIDE.model_copy(update={"model": "unicorn-1"}))


@pytest.mark.parametrize("names", [[], ["ttapi", "ttapi"]])
def test_a_pool_is_checked_when_it_is_made(names: list[str]) -> None:
    """So that no wrong one is saved."""
    with pytest.raises(ValidationError, match=r"a pool once|at least one gateway"):
        GatewayPool(credentials=names)


async def test_that_a_gateway_rests_is_an_event(sandbox_env: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """For automations; within a run alone."""
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr("prefect_happyhorse.runtime.events.emit_event", lambda **event: seen.append(event))
    sandbox_env.fault(at="submit", kind="quota", times=None)

    @flow
    async def three() -> None:
        for ride in rides(3):
            with pytest.raises(QuotaExceeded):
                await submit(ride, ["infiflow", "ttapi"])

    await three()
    rests = [event for event in seen if event["event"] == "happyhorse.gateway.rests"]
    assert [(event["resource"]["happyhorse.gateway"], event["payload"]) for event in rests] == [
        ("infiflow", {"seconds": 60.0}),
        ("ttapi", {"seconds": 60.0}),
    ]
