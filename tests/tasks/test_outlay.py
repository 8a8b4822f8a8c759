"""What many requests are yet to cost: once each, without what is bought already, and honest about what nobody knows."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from prefect_happyhorse import (
    Budget,
    BudgetExceeded,
    GatewayCredentials,
    InvalidRequest,
    Outlay,
    Price,
    ReferenceToVideo,
    TextToImage,
    estimate_requests,
    generate,
)
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.sandbox import SandboxServer

pytestmark = pytest.mark.usefixtures("prefect_server")

CNY = Budget(amount="1", currency="CNY")  # pyright: ignore[reportArgumentType]


def picture(prompt: str = "A horse") -> TextToImage:
    return TextToImage(model="gpt-image-2", prompt=prompt)


def ride(reference: str = "https://example.com/to-come") -> ReferenceToVideo:
    return ReferenceToVideo(model="happyhorse-1.0-r2v", prompt="It runs", references=[reference], duration=5)


def price(model: str, amount: str, currency: str = "CNY", per: str = "output") -> Price:
    return Price.model_validate({"model": model, "per": per, "amount": amount, "currency": currency, "dated": "2026-11-01"})


@flow
async def buy(request: Any, payer: Any, store: str) -> Any:
    return await generate(request, payer, store)


@pytest.fixture
def payer(sandbox_env: SandboxServer) -> GatewayCredentials:
    prices = [price("gpt-image-2", "0.25"), price("happyhorse-1.0-r2v", "0.10", "USD", "second")]
    return GatewayCredentials.from_environment("happyhorse").model_copy(update={"prices": prices})


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "outputs")


async def test_each_currency_and_the_unknown_by_itself(payer: GatewayCredentials, store: str) -> None:
    """What is asked for twice is bought once; another take is another job; a price that nobody knows is not zero."""
    unknown = TextToImage(model="gpt-image-2-max", prompt="A horse")
    outlay = await estimate_requests(
        [
            (picture(), payer, 1),
            (picture(), payer, 1),
            (picture(), payer, 2),
            (ride("https://example.com/a.png"), payer, 1),
            (unknown, payer, 1),
        ],
        store,
    )
    assert str(outlay) == "4 yet to be bought for 0.50 CNY and 0.50 USD and 1 of unknown price; 1 bought already"
    assert (outlay.new, outlay.bought, outlay.unknown, {name: str(sum_) for name, sum_ in outlay.sums.items()}) == (
        4,
        1,
        1,
        {"CNY": "0.50", "USD": "0.50"},
    )


async def test_what_is_bought_costs_nothing_more(sandbox_env: SandboxServer, payer: GatewayCredentials, store: str) -> None:
    """A chain is followed as far as it is made: what comes of a picture that there is not yet cannot be bought."""
    chain: list[Any] = [(picture(), payer, 1), (ride(), payer, 1)]
    assert str(await estimate_requests(chain, store)) == "2 yet to be bought for 0.25 CNY and 0.50 USD; 0 bought already"
    made = await buy(picture(), payer, store)
    assert str(await estimate_requests(chain, store)) == "1 yet to be bought for 0.50 USD; 1 bought already"
    await buy(ride().model_copy(update={"references": (made,)}), payer, store)
    outlay = await estimate_requests(chain, store, budget=CNY)
    assert str(outlay) == "Nothing is yet to be bought; 2 bought already"
    await outlay.refuse()
    assert len(sandbox_env.ledger()) == 2


async def test_what_a_budget_cannot_count_is_refused(payer: GatewayCredentials, store: str, caplog: pytest.LogCaptureFixture) -> None:
    """With its reason; where as much as fits is wanted, it is only told."""
    unknown = TextToImage(model="gpt-image-2-max", prompt="A horse")
    outlay = await estimate_requests([(picture(), payer, 1), (unknown, payer, 1)], store, budget=CNY)
    with pytest.raises(BudgetExceeded, match=r"1 of it cannot be counted: .*gpt-image-2-max.*unknown.*Nothing was sent") as caught:
        await outlay.refuse()
    assert caught.value.money == "not spent"
    await outlay.refuse(over_budget="skip")
    assert "What does not fit is not bought" in caplog.text
    await (await estimate_requests([(picture(), payer, 1)], store, budget=CNY)).refuse()


async def test_a_journal_that_cannot_be_counted_is_told(sandbox_env: SandboxServer, payer: GatewayCredentials, store: str) -> None:
    """No job would be let through, so none is begun with; a price given later changes nothing, which is said, nor does more money."""
    await buy(picture(), payer.model_copy(update={"prices": []}), store)
    rich = Budget(amount="99", currency="CNY")  # pyright: ignore[reportArgumentType]
    outlay = await estimate_requests([(picture("Another"), payer, 1)], store, budget=rich)
    with pytest.raises(BudgetExceeded) as caught:
        await outlay.refuse()
    told = str(caught.value)
    assert 'costs was unknown when it was bought ("no price of gpt-image-2 at happyhorse is known"), so the budget of 99 CNY' in told
    assert caught.value.message.endswith("cannot be kept.")
    assert "Nothing was sent. What a job costs is written down when it is bought, and prices given later" in told
    assert not [wrong for wrong in ("Raise", "Give its price", "makers_list", "..", ".;") if wrong in told]
    await (await estimate_requests([(picture("Another"), payer, 1)], f"{store}-2", budget=rich)).refuse()


async def test_each_thing_that_is_wrong_has_its_remedy(payer: GatewayCredentials, store: str) -> None:
    """What only its maker's list knows, what nobody knows, and what is too little, each told what helps; and that helps."""
    cheap = payer.model_copy(update={"prices": [price("gpt-image-2", "0.25")]})
    wild = ride("https://example.com/a.png").model_copy(update={"resolution": "720p"})

    async def told(amount: str, *requests: Any, **more: Any) -> str | None:
        budget = Budget.model_validate({"amount": amount, "currency": "CNY", **more})
        try:
            await (await estimate_requests([(one, cheap, 1) for one in requests], store, budget=budget)).refuse()
        except BudgetExceeded as error:
            assert error.advice is not None
            assert ".." not in str(error)
            return error.advice
        return None

    makers = "What is known by a maker's list alone counts with `makers_list` in the budget: Budget(makers_list=True)."
    priced = "Give its price in CNY in the credentials' price list."
    raised = "Raise the budget, or leave something out."
    assert await told("9", wild) == f"Nothing was sent. {makers} Or give its price in CNY in the credentials' price list."
    assert await told("9", wild, makers_list=True) is None
    assert await told("0.10", picture()) == f"Nothing was sent. {raised}"
    unknown = TextToImage(model="gpt-image-2-max", prompt="A horse")
    assert await told("0.10", picture(), unknown) == f"Nothing was sent. {raised} {priced}"
    await buy(wild, cheap, store)
    assert await told("9", picture()) == f"Nothing was sent. {makers}"
    assert await told("9", picture(), makers_list=True) is None


async def test_a_damaged_entry_is_the_submit_s_to_tell(payer: GatewayCredentials, store: str) -> None:
    """Nothing is bought under it."""
    await buy(picture(), payer, store)
    (entry,) = (Store(store).folder or Path()).glob("journal/??/*.json")
    entry.write_text("{")
    for index in (Store(store).folder or Path()).glob("journal/index/*"):
        index.unlink()
    assert (await estimate_requests([(picture(), payer, 1)], store)).bought == 1


async def test_what_cannot_be_made_is_not_counted(payer: GatewayCredentials, store: str) -> None:
    """Every problem is told, and the others are counted; at a pool each gateway may have it already."""
    async with Outlay(store) as outlay:
        assert await outlay.add({"capability": "text_to_image", "model": "gpt-image-2"}, payer) == ("text_to_image.prompt: Field required",)
        assert list(await outlay.add(ride().model_copy(update={"duration": 99}), payer)) == [
            "duration must be between 3 and 15 seconds (got 99); the limit is DashScope's, and happyhorse.pics names none"
        ]
        assert await outlay.add({"capability": "text_to_image", "model": "gpt-image-2", "prompt": "A horse"}, "happyhorse") == ()
        assert await outlay.add(ride("https://example.com/a.png"), ["happyhorse", "uniall"]) == ()
    assert (outlay.new, outlay.bought) == (2, 0)
    with pytest.raises(InvalidRequest):
        await estimate_requests([(ride().model_copy(update={"duration": 99}), payer, 1)], store)


async def test_memory_does_not_grow_with_the_rows(payer: GatewayCredentials, store: str) -> None:
    """A manifest may have any number of them."""
    async with Outlay(store, budget=CNY) as outlay:
        await outlay.add(picture(), payer)
        tracemalloc.start()
        try:
            held: list[int] = []
            for start in (0, 400):
                for number in range(start, start + 400):
                    await outlay.add(picture(f"A horse, {number}"), payer)
                gc.collect()
                ours = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*prefect_happyhorse*")])
                held.append(sum(one.size for one in ours.statistics("filename")))
        finally:
            tracemalloc.stop()
    assert outlay.new == 801
    # The digests alone, were they held, are more than 40 kB.
    assert held[1] - held[0] < 25_000
