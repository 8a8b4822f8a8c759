"""Which gateway of a pool is asked, and before which others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.engine.jobs.pools import RIDE, Pools, bought, states
from tests.engine.jobs.test_submit import ride

from prefect_happyhorse.domain.errors import (
    GatewayUnavailable,
    InvalidRequest,
    SubmissionUncertain,
)
from prefect_happyhorse.domain.prices import Estimate, Price
from prefect_happyhorse.domain.requests import GenerationRequest
from prefect_happyhorse.engine.jobs import breaker
from prefect_happyhorse.gateways import Account
from prefect_happyhorse.sandbox import SandboxServer


def _prices(amount: int, currency: str = "CNY") -> dict[str, Any]:
    facts: dict[str, Any] = {"model": "happyhorse-*", "amount": amount, "currency": currency, "per": "job"}
    return {"prices": (Price(**facts, dated="2026-11-01", source="mine"),)}  # pyright: ignore[reportArgumentType]


async def test_a_gateway_that_is_not_there_is_passed_by_sooner_than_the_last(sandbox: SandboxServer, pools: Pools) -> None:
    """It is asked once more, for it may be back at once; the last one is waited for as if it were alone."""
    gone = {"infiflow": {"base_url": "http://127.0.0.1:1"}}
    assert (await pools.submit(pools.of("infiflow", "ttapi", accounts=gone))).gateway == "ttapi"
    assert len(pools.naps.taken) == 1
    with pytest.raises(GatewayUnavailable):
        await pools.submit(pools.of("infiflow", accounts=gone), take=2)
    assert len(pools.naps.taken) == 5


async def test_what_cannot_carry_the_request_is_left_out_and_told(sandbox: SandboxServer, pools: Pools) -> None:
    """A seed is nothing to Infiflow, and Chanjing has no word for @1; where nobody can, all problems are named and nothing is sent."""
    seeded = RIDE.model_copy(update={"seed": 7, "prompt": "@1 runs"})
    assert (await pools.submit(pools.of("infiflow", "chanjing", "ttapi"), seeded)).gateway == "ttapi"
    assert [
        line for line in pools.told if line.startswith("A gateway of the pool is left out, since it cannot carry the request: infiflow: ")
    ]
    assert any("chanjing: " in line for line in pools.told)
    with pytest.raises(InvalidRequest, match="No gateway of the pool can take this reference_to_video") as caught:
        await pools.submit(pools.of("infiflow", "chanjing"), seeded)
    assert {problem.partition(":")[0] for problem in caught.value.problems} == {"infiflow", "chanjing"}
    assert len(bought(sandbox)) == 1


async def test_a_medium_that_cannot_reach_one_gateway_may_reach_another(sandbox: SandboxServer, pools: Pools, tmp_path: Path) -> None:
    """A file of this machine is nothing to a gateway elsewhere that takes none inside the body."""
    from tests.engine.samples import picture

    (tmp_path / "horse.png").write_bytes(picture())
    request = RIDE.model_copy(update={"references": (str(tmp_path / "horse.png"),)})
    pool = pools.of("ttapi", "infiflow", accounts={"ttapi": {"base_url": "https://api.example.com"}})
    assert (await pools.submit(pool, request)).gateway == "infiflow"
    assert pools.told[0].startswith("ttapi (account 'default') did not take the request")


@pytest.mark.parametrize(
    ("gateways", "problem"),
    [
        ([], r"A pool needs at least one gateway \(got an empty list\)"),
        (["ttapi", "infiflow", "ttapi"], r"Each gateway may stand in a pool once \(got ttapi more than once\)"),
    ],
)
def test_what_makes_no_pool_is_refused(pools: Pools, gateways: list[str], problem: str) -> None:
    """Before anything is sent."""
    with pytest.raises(InvalidRequest, match=problem):
        pools.of(*gateways)


async def test_a_family_that_nobody_offers_is_refused(sandbox: SandboxServer, pools: Pools) -> None:
    """With what there is."""
    with pytest.raises(InvalidRequest, match="No gateway offers reference_to_video with model 'unicorn-1'"):
        await pools.submit(pools.of("ttapi"), RIDE.model_copy(update={"model": "unicorn-1"}))
    assert await states(pools.store) == {}


async def test_the_cheapest_is_asked_first(sandbox: SandboxServer, pools: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the estimates; what is unknown comes last, and what cannot be compared is left as it was given, both told."""
    prices = {"infiflow": _prices(9), "ttapi": _prices(3)}
    pool = pools.of("dashscope", "infiflow", "ttapi", accounts=prices, order="cheapest")
    estimate = Account.estimate

    def unknown_at_dashscope(account: Account, request: GenerationRequest) -> Estimate:
        return Estimate(reason="nobody says") if account.gateway == "dashscope" else estimate(account, request)

    monkeypatch.setattr(Account, "estimate", unknown_at_dashscope)
    job = await pools.submit(pool)
    assert job.gateway == "ttapi"
    assert pools.told == ["What it costs at dashscope is unknown, so it is asked last: nobody says"]
    pools.told.clear()
    mixed = {"infiflow": _prices(9), "ttapi": _prices(3, "USD")}
    pool = pools.of("infiflow", "ttapi", accounts=mixed, order="cheapest")
    assert [(await pools.submit(pool, take=take)).gateway for take in (2, 3)] == ["infiflow", "infiflow"]
    assert pools.told == ["Prices in CNY and USD cannot be compared: the pool's gateways are asked in the given order."]


async def test_the_fastest_is_asked_first(sandbox: SandboxServer, pools: Pools) -> None:
    """By how long its jobs were seen to take; of whom nothing is known comes last, and that is told."""
    pool = pools.of("uniall", "infiflow", "ttapi", order="fastest")
    for session, seconds in zip(pool.sessions, (None, 90.0, 30.0), strict=True):
        prepared = await session.prepare(ride(session.account.gateway))
        for _ in range(0 if seconds is None else 3):
            await session.shared.durations_of(session.account, prepared.route, pools.store).learn(seconds or 1.0, pools.store)
    assert (await pools.submit(pool)).gateway == "ttapi"
    assert pools.told == ["How long uniall takes is not learned yet, so it is asked last."]


async def test_a_gateway_that_fails_often_rests(sandbox: SandboxServer, pools: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every process of the machine: it is asked after the others, for ever longer, and is in its place again once it works."""
    now = [1000.0]
    monkeypatch.setattr(breaker, "_now", lambda: now[0])
    sandbox.fault(at="submit", kind="quota", gateway="infiflow", times=4)
    for take in (1, 2, 3):
        assert (await pools.submit(pools.of("infiflow", "ttapi"), take=take)).gateway == "ttapi"
    assert pools.rested == [("infiflow", 60.0)]
    assert pools.told[-2] == "infiflow failed again and again, and rests for 60 s."
    pools.told.clear()
    assert (await pools.submit(pools.of("infiflow", "ttapi"), take=4)).gateway == "ttapi"
    assert pools.told == ["infiflow failed often and rests: the others are asked before it."]
    now[0] += 61
    assert (await pools.submit(pools.of("infiflow", "ttapi"), take=5)).gateway == "ttapi"
    assert pools.rested == [("infiflow", 60.0), ("infiflow", 120.0)]
    # Where it is the only one it is asked all the same, and told of nobody.
    pools.told.clear()
    assert (await pools.submit(pools.of("infiflow"), take=6)).gateway == "infiflow"
    assert pools.told == []
    assert (await pools.submit(pools.of("infiflow", "ttapi"), take=7)).gateway == "infiflow"


@pytest.mark.parametrize("gateway", ["infiflow", "dashscope"])
async def test_uncertain_submits_count_once_as_outages(sandbox: SandboxServer, pools: Pools, gateway: str) -> None:
    """Also where the list of tasks was looked at in vain; who only finds one that is uncertain counts nothing."""
    sandbox.fault(at="submit", kind="drop_after", times=None)
    sandbox.fault(at="list", kind="http", times=None)
    for take in (1, 1, 2, 2, 3, 3):
        with pytest.raises(SubmissionUncertain):
            await pools.submit(pools.of(gateway), ride(gateway), take=take)
    assert pools.rested == [(gateway, 60.0)]
