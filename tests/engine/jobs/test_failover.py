"""A request that several gateways may make is bought at one of them, whatever goes wrong, in whatever order, however often it is asked."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path

import pytest
from tests.engine.jobs.pools import RIDE, Pools, bought, states

from prefect_happyhorse.domain.errors import (
    AuthenticationFailed,
    BudgetExceeded,
    GenerationError,
    InvalidRequest,
    JobFailed,
    ModerationRejected,
    PollRejected,
    QuotaExceeded,
    RateLimited,
    SubmissionUncertain,
)
from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.domain.prices import Price
from prefect_happyhorse.engine.jobs.failover import Pool
from prefect_happyhorse.engine.jobs.manage import forget
from prefect_happyhorse.engine.jobs.prepare import Prepared
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.shared import Shared
from prefect_happyhorse.engine.jobs.submit import SubmitPolicy, Submitted
from prefect_happyhorse.engine.journal.budget import Budget
from prefect_happyhorse.engine.journal.journal import Failure, Journal
from prefect_happyhorse.engine.journal.owner import LeaseOwner
from prefect_happyhorse.engine.journal.parent import Parents
from prefect_happyhorse.sandbox import SandboxServer


async def test_the_first_that_takes_it_makes_it(sandbox: SandboxServer, pools: Pools) -> None:
    """By its own name for the model; those that refused stand in the journal as released, and each is told."""
    for gateway in ("infiflow", "ttapi"):
        sandbox.fault(at="submit", kind="quota", gateway=gateway, times=None)
    job = await pools.submit(pools.of("infiflow", "ttapi", "uniall", "happyhorse"))
    assert (job.gateway, job.model) == ("uniall", "happy-horse-720p")
    assert bought(sandbox) == [("uniall", "happy-horse-720p")]
    assert await states(pools.store) == {"infiflow": "released", "ttapi": "released", "uniall": "submitted"}
    assert [line.partition(" ")[0] for line in pools.told] == ["infiflow", "ttapi"]
    assert "certainly nothing was bought there" in pools.told[0]
    assert "the balance is used up" in pools.told[0]


@pytest.mark.parametrize(
    "gateways", [["uniall", "ttapi", "infiflow"], ["ttapi"], ["happyhorse", "ttapi"], ["chanjing", "dashscope", "ttapi"]]
)
async def test_a_rerun_goes_on_where_the_money_is(sandbox: SandboxServer, pools: Pools, gateways: list[str]) -> None:
    """In another order, with fewer gateways, with more, and under another name of the model: the digest knows nothing of that."""
    sandbox.fault(at="submit", kind="quota", gateway="infiflow")
    job = await pools.submit(pools.of("infiflow", "ttapi", "uniall"))
    assert job.gateway == "ttapi"
    again = pools.of(*gateways)
    assert await pools.submit(again) == job
    assert await pools.submit(again, RIDE.model_copy(update={"model": "happy-horse-720p", "resolution": None})) == job
    assert (await again.of(job).store_outputs(await again.of(job).poll(job))).asset.job == job
    assert await pools.submit(pools.of("uniall", "ttapi")) == job
    assert bought(sandbox) == [("ttapi", "happyhorse-1.0-r2v")]
    # Another take is another request.
    assert (await pools.submit(pools.of("uniall", "ttapi"), take=2)).gateway == "uniall"


async def test_a_rerun_without_that_gateway_says_where_the_money_is(sandbox: SandboxServer, pools: Pools) -> None:
    """And buys nothing."""
    job = await pools.submit(pools.of("ttapi", "infiflow"))
    with pytest.raises(PollRejected, match=r"bought at ttapi \(account 'default'\), which this pool does not have") as caught:
        await pools.submit(pools.of("infiflow", "uniall"))
    assert (caught.value.money, caught.value.task_id, caught.value.digest) == ("spent", job.task_id, job.digest)
    assert "Name ttapi in the pool too." in str(caught.value)
    assert len(bought(sandbox)) == 1


@pytest.mark.parametrize("kind", ["drop_after", "garbage", "no_task_id", "html"])
async def test_after_an_uncertain_submit_no_other_is_asked(sandbox: SandboxServer, pools: Pools, kind: str) -> None:
    """Whatever the order of the rerun, and without the gateway too; once the job is adopted it goes on with that."""
    sandbox.fault(at="submit", kind=kind, gateway="infiflow")
    for gateways in (["infiflow", "ttapi"], ["ttapi", "infiflow"], ["ttapi", "uniall"]):
        with pytest.raises(SubmissionUncertain) as caught:
            await pools.submit(pools.of(*gateways))
        assert caught.value.gateway == "infiflow"
        assert "happyhorse jobs adopt " in str(caught.value)
    assert {gateway for gateway, _ in bought(sandbox)} <= {"infiflow"}
    if not bought(sandbox):
        entry = await Journal(pools.store).read(caught.value.digest or "")
        assert entry is not None
        await forget(Journal(pools.store), entry)
        assert (await pools.submit(pools.of("ttapi", "infiflow"))).gateway == "ttapi"
        return
    session = pools.session("infiflow")
    entry = await session.journal.read(caught.value.digest or "")
    assert entry is not None
    await session.adopt(entry, sandbox.ledger()[0].task_id)
    assert (await pools.submit(pools.of("ttapi", "infiflow"))).gateway == "infiflow"
    assert len(bought(sandbox)) == 1


@pytest.mark.parametrize(
    ("kind", "error"),
    [("refuse", InvalidRequest), ("unauthorized", AuthenticationFailed), ("moderation", ModerationRejected)],
)
async def test_what_the_next_would_refuse_too_or_a_person_has_to_mend_is_raised(
    sandbox: SandboxServer, pools: Pools, kind: str, error: type[GenerationError]
) -> None:
    """An invalid request, refused contents, a wrong key: no other gateway is asked."""
    sandbox.fault(at="submit", kind=kind, accept=False, gateway="infiflow")
    with pytest.raises(error):
        await pools.submit(pools.of("infiflow", "ttapi"))
    assert bought(sandbox) == []
    assert await states(pools.store) == {"infiflow": "released"}


async def test_nobody_takes_it(sandbox: SandboxServer, pools: Pools) -> None:
    """Each is named; the refusal that may pass is raised, so that the step is tried again; and then all are asked from the first on."""
    sandbox.fault(at="submit", kind="throttle", gateway="infiflow", times=None)
    sandbox.fault(at="submit", kind="quota", gateway="ttapi", times=None)
    with pytest.raises(RateLimited, match=r"None of the pool's gateways took the request\. infiflow: .*; ttapi: .*used up") as caught:
        await pools.submit(pools.of("infiflow", "ttapi"))
    assert (caught.value.retryable, caught.value.money) == (True, "not spent")
    with pytest.raises(QuotaExceeded, match="the balance is used up"):
        await pools.submit(pools.of("ttapi"), take=2)
    sandbox.clear_faults()
    assert (await pools.submit(pools.of("infiflow", "ttapi"))).gateway == "infiflow"


async def test_what_was_made_alone_is_found(sandbox: SandboxServer, pools: Pools) -> None:
    """A job that the second choice made outside of any pool is not bought again at the first."""
    alone = pools.session("ttapi")
    job = (await alone.submit(await alone.prepare(RIDE))).job
    assert await pools.submit(pools.of("infiflow", "ttapi")) == job
    assert len(bought(sandbox)) == 1


async def test_a_failure_is_bought_again_only_if_asked(sandbox: SandboxServer, pools: Pools) -> None:
    """At the next gateway, of which none is left once each has failed."""
    sandbox.fault(at="submit", kind="fail_job", times=None)
    pool = pools.of("infiflow", "ttapi", after_failure=True)
    for gateway in ("infiflow", "ttapi"):
        job = await pools.submit(pool)
        assert job.gateway == gateway
        with pytest.raises(JobFailed):
            await pool.of(job).poll(job)
        with pytest.raises(JobFailed, match="ended as failed"):
            await pools.submit(pools.of("infiflow", "ttapi", "uniall"))
    with pytest.raises(JobFailed, match="ended as failed"):
        await pools.submit(pool)
    sandbox.clear_faults()
    # One more gateway is one more way.
    assert (await pools.submit(pools.of("infiflow", "ttapi", "uniall", after_failure=True))).gateway == "uniall"
    assert (pool.rounds, pools.of("ttapi", "infiflow").rounds, pools.session("ttapi").rounds) == (2, 1, 1)


async def test_resubmit_asks_where_it_is_uncertain(sandbox: SandboxServer, pools: Pools) -> None:
    """It may pay twice, as was said, and there alone; where that is refused, no other gateway gets the request."""
    sandbox.fault(at="submit", kind="drop_after", gateway="infiflow")
    with pytest.raises(SubmissionUncertain):
        await pools.submit(pools.of("infiflow", "ttapi"))
    sandbox.fault(at="submit", kind="quota", gateway="infiflow", times=3)
    with pytest.raises(QuotaExceeded):
        await pools.submit(pools.of("ttapi", "infiflow"), on_uncertain="resubmit")
    assert [gateway for gateway, _ in bought(sandbox)] == ["infiflow"]
    sandbox.clear_faults()
    assert (await pools.submit(pools.of("ttapi", "infiflow"), on_uncertain="resubmit")).gateway == "infiflow"
    assert [gateway for gateway, _ in bought(sandbox)] == ["infiflow", "infiflow"]


async def test_a_budget_holds_for_each_gateway(sandbox: SandboxServer, pools: Pools) -> None:
    """A price that passes it is refused as ever, before anything is sent."""
    dear = [Price(model="happyhorse-1.0-r2v", amount=Decimal(2), currency="CNY", per="job", dated="2026-11-01", source="mine")]  # pyright: ignore[reportArgumentType]
    pool = pools.of("infiflow", "ttapi", accounts={"infiflow": {"prices": tuple(dear)}})
    with pytest.raises(BudgetExceeded, match="would pass the budget of 1 CNY"):
        await pools.submit(pool, budget=Budget(amount=Decimal(1), currency="CNY"))
    assert bought(sandbox) == []


async def test_what_the_budget_cannot_count_is_bought_where_it_can(sandbox: SandboxServer, pools: Pools) -> None:
    """The next gateway is asked, whose price is known; nothing is bought at the first."""
    price = Price(model="happyhorse-1.0-r2v", amount=Decimal(1), currency="CNY", per="job", dated="2026-11-01", source="mine")  # pyright: ignore[reportArgumentType]
    pool = pools.of("infiflow", "ttapi", accounts={"ttapi": {"prices": (price,)}})
    budget = Budget(amount=Decimal(3), currency="CNY")
    assert (await pools.submit(pool, budget=budget)).gateway == "ttapi"
    assert [gateway for gateway, _ in bought(sandbox)] == ["ttapi"]
    assert any("infiflow" in told and "certainly nothing was bought there" in told for told in pools.told)


async def test_twenty_runs_at_once_buy_it_once(sandbox: SandboxServer, pools: Pools) -> None:
    """Each in an order of its own, while two of the gateways refuse some of them."""
    sandbox.fault(at="submit", kind="quota", gateway="infiflow", times=3)
    sandbox.fault(at="submit", kind="quota", gateway="ttapi", times=2)
    orders = [["infiflow", "ttapi", "uniall"], ["ttapi", "uniall", "infiflow"], ["uniall", "infiflow", "ttapi"], ["ttapi", "infiflow"]]
    for number in range(5):
        request = RIDE.model_copy(update={"prompt": f"It runs {number}"})
        runs = (pools.submit(pools.of(*orders[run % len(orders)]), request) for run in range(20))
        ended = await asyncio.gather(*runs, return_exceptions=True)
        jobs = {one for one in ended if isinstance(one, Job)}
        # A run without the gateway that has it is told so.
        assert [one for one in ended if not isinstance(one, (Job, PollRejected, QuotaExceeded))] == []
        assert len(jobs) == 1
    assert len(bought(sandbox)) == 5


async def test_a_run_that_lost_its_turn_sends_nothing(sandbox: SandboxServer, pools: Pools) -> None:
    """It holds the lease of its gateway when another run points the parent elsewhere, and goes along with that."""
    pool = pools.of("infiflow", "ttapi")
    prepared = await pool.prepare(RIDE)
    parents = Parents(pools.store)
    asked: list[str] = []

    async def slowly(session: Session, one: Prepared, policy: SubmitPolicy) -> Submitted:
        asked.append(one.account.gateway)
        if len(asked) == 1:
            parent = await parents.read(prepared.digest)
            await parents.point(prepared.digest, parent, prepared.candidates[1].child)
        return await session.submit(one, policy=policy)

    assert (await pool.submit(prepared, slowly)).job.gateway == "ttapi"
    assert asked == ["infiflow", "ttapi"]
    assert await states(pools.store) == {"infiflow": "released", "ttapi": "submitted"}


async def test_a_submit_under_way_elsewhere_is_waited_for(sandbox: SandboxServer, pools: Pools) -> None:
    """Of the gateway before, by a run that has not seen yet that the parent points elsewhere: it may just be sending."""
    first, second = pools.of("infiflow", "ttapi"), pools.of("infiflow", "ttapi")
    prepared = await first.prepare(RIDE)
    child = prepared.candidates[1].child
    sending, moved = asyncio.Event(), asyncio.Event()

    async def at_the_first(session: Session, one: Prepared, policy: SubmitPolicy) -> Submitted:
        async def held() -> None:
            await policy.fence()
            # It has looked, and is held up until the other has come.
            sending.set()
            await moved.wait()

        return await session.submit(one, policy=policy._replace(fence=held))

    one = asyncio.create_task(first.submit(prepared, at_the_first))
    await sending.wait()
    parents = Parents(pools.store)
    await parents.point(prepared.digest, await parents.read(prepared.digest), child)

    async def let_it_go(seconds: float) -> None:
        moved.set()
        await asyncio.sleep(0.01)

    patient = Pool([Session(each.account, pools.store, sleep=let_it_go, shared=Shared()) for each in second.sessions])
    assert await pools.submit(patient) == (await one).job
    assert bought(sandbox) == [("infiflow", "happyhorse-1.0-r2v")]


@pytest.mark.parametrize("content", [b"{", b"{}", b""])
async def test_a_parent_that_cannot_be_read_buys_nothing(sandbox: SandboxServer, pools: Pools, content: bytes) -> None:
    """Nobody knows then where the money is."""
    await pools.submit(pools.of("infiflow", "ttapi"))
    (parent,) = (pools.store.folder or Path()).glob("journal/pools/*/*.json")
    parent.write_bytes(content)
    with pytest.raises(SubmissionUncertain, match=r"cannot be read: .* problem"):
        await pools.submit(pools.of("ttapi", "uniall"))
    other = parent.with_name(f"{parent.name.partition('.')[0]}.2.json")
    other.write_text('{"digest": "x", "current": {"gateway": "a", "account": "b", "digest": "c"}, "tried": []}')
    with pytest.raises(SubmissionUncertain, match="cannot be read: it is of x"):
        await pools.submit(pools.of("ttapi", "uniall"))
    assert len(bought(sandbox)) == 1


async def test_what_a_later_version_adds_to_a_parent_is_kept(sandbox: SandboxServer, pools: Pools) -> None:
    """And does not hide where the money is."""
    job = await pools.submit(pools.of("infiflow", "ttapi"))
    (file,) = (pools.store.folder or Path()).glob("journal/pools/*/*.json")
    file.write_text(file.read_text().replace('"version": 1', '"version": 1, "mood": "good"').replace('"account"', '"since": 3, "account"'))
    assert await pools.submit(pools.of("ttapi", "infiflow")) == job
    parents = Parents(pools.store)
    digest = file.name.partition(".")[0]
    parent = await parents.read(digest)
    assert parent is not None
    await parents.point(digest, parent, parent.current)
    assert '"mood":"good"' in file.with_name(f"{digest}.2.json").read_text().replace(" ", "")


async def test_a_sandbox_is_no_place_where_the_money_is(sandbox: SandboxServer, pools: Pools) -> None:
    """What was tried on a sandbox is bought anew where it is paid for."""
    play = {name: {"label": "sandbox"} for name in ("infiflow", "ttapi")}
    await pools.submit(pools.of("infiflow", "ttapi", accounts=play))
    assert (await pools.submit(pools.of("infiflow", "ttapi"))).account == "default"


async def test_a_job_of_nobody_in_the_pool_is_refused(sandbox: SandboxServer, pools: Pools) -> None:
    """As one account refuses another's."""
    job = await pools.submit(pools.of("ttapi"))
    with pytest.raises(ValueError, match=f"Job {job.task_id} belongs to account 'default' of ttapi; the pool is of infiflow, uniall"):
        pools.of("infiflow", "uniall").of(job)


async def test_a_job_that_was_uncertain_for_another_run_meanwhile(sandbox: SandboxServer, pools: Pools) -> None:
    """A run that was refused at a gateway does not pass by what another run left there since."""
    pool = pools.of("infiflow", "ttapi")
    prepared = await pool.prepare(RIDE)
    journal = Journal(pools.store)

    async def one(session: Session, each: Prepared, policy: SubmitPolicy) -> Submitted:
        try:
            return await session.submit(each, policy=policy)
        except QuotaExceeded:
            released = await journal.read(each.digest)
            assert released is not None
            intent = await journal.acquire(released.becoming("intent"), released)
            assert intent is not None
            await journal.give_up(intent, Failure(message="nobody knows"))
            raise

    sandbox.fault(at="submit", kind="quota", gateway="infiflow")
    with pytest.raises(SubmissionUncertain, match="nobody knows"):
        await pool.submit(prepared, one)
    assert bought(sandbox) == []


async def test_an_intent_that_is_taken_back_buys_nothing_beside_what_is_bought(sandbox: SandboxServer, pools: Pools) -> None:
    """Where the parent points somebody may be about to see that it has lost the parent, and elsewhere the request may be bought already."""
    job = await pools.submit(pools.of("ttapi"))
    journal, parents = Journal(pools.store), Parents(pools.store)
    entry = await journal.read(job.digest)
    assert entry is not None
    released: list[None] = []

    async def release(seconds: float) -> None:
        if not released:
            released.append(await journal.release(intent, None))

    pools.naps = release  # pyright: ignore[reportAttributeAccessIssue]
    pool = pools.of("infiflow", "ttapi")
    prepared = await pool.prepare(RIDE)
    child = prepared.candidates[0].child
    await parents.point(prepared.digest, await parents.read(prepared.digest), child)
    facts = {"digest": child.digest, "gateway": child.gateway, "state": "intent", "job": None, "owner": LeaseOwner(), "revision": 0}
    acquired = await journal.acquire(entry.model_copy(update=facts))
    assert acquired is not None
    intent = acquired
    with intent.owner.submitting():
        assert await pools.submit(pool) == job
    assert bought(sandbox) == [("ttapi", RIDE.model)]
