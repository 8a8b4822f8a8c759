"""What was spent, by what jobs are or are called."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.engine.conftest import AccountMaker, Naps
from tests.engine.jobs.test_submit import ride

from prefect_happyhorse.cli.commands import main
from prefect_happyhorse.domain.errors import SubmissionUncertain
from prefect_happyhorse.engine.jobs import manage
from prefect_happyhorse.engine.jobs.poll import Poller
from prefect_happyhorse.engine.jobs.prepare import prepare
from prefect_happyhorse.engine.jobs.results import OutputStore
from prefect_happyhorse.engine.jobs.submit import Submitter
from prefect_happyhorse.engine.journal.index import Line, contents
from prefect_happyhorse.engine.journal.journal import Journal
from prefect_happyhorse.engine.journal.spend import spend
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account
from prefect_happyhorse.sandbox import SandboxServer
from prefect_happyhorse.tasks.resolve import argument_problems


async def made(store: Store, account: Account, naps: Naps, take: int, **labels: str) -> None:
    request = ride(account.gateway)
    prepared = await prepare(request, account, take=take)
    job = await Submitter(store=store, sleep=naps, labels=labels).submit(prepared)
    result = await Poller(account=account, store=store, sleep=naps).poll(job)
    asset = (await OutputStore(account=account, store=store).store_outputs(result)).asset
    assert asset.job is not None
    assert asset.job.labels == labels


async def test_every_cent_is_found_by_label(
    sandbox: SandboxServer, account: AccountMaker, store: Store, naps: Naps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Estimates, what the provider counted, and a group of those without the label; the first labels of a job are its labels."""
    payer = account(gateway="infiflow")
    await made(store, payer, naps, 1, project="film")
    await made(store, payer, naps, 2, project="film", shot="12")
    await made(store, payer, naps, 3)
    await Submitter(store=store, sleep=naps, labels={"project": "other"}).submit(await prepare(ride("infiflow"), payer, take=1))
    found = await contents(Journal(store))
    assert [(one.group, one.jobs, one.estimated, one.billed, one.difference) for one in spend(found.lines, ["project"])] == [
        ({"project": ""}, 1, "4.5 CNY", "4.5 CNY", "+0.0 CNY"),
        ({"project": "film"}, 2, "9.0 CNY", "9.0 CNY", "+0.0 CNY"),
    ]
    assert [one.group for one in spend(found.lines, ["project", "shot", "model"])] == [
        {"project": "", "shot": "", "model": "happyhorse-1.0-r2v"},
        {"project": "film", "shot": "", "model": "happyhorse-1.0-r2v"},
        {"project": "film", "shot": "12", "model": "happyhorse-1.0-r2v"},
    ]
    assert sum(one.jobs for one in spend(found.lines, ["day"])) == len(sandbox.ledger()) == 3
    shown = await asyncio.to_thread(command, store, "project", "--json")
    assert [json.loads(line)["estimated"] for line in shown.stdout.splitlines()] == ["4.5 CNY", "9.0 CNY"]
    assert (await asyncio.to_thread(command, store, " ,")).exit_code == 2
    assert "film" in (await asyncio.to_thread(command, store, "project,model")).stdout


async def test_an_adopted_job_has_the_labels_of_its_submit(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """They were written down before it was sent."""
    prepared = await prepare(ride("infiflow"), account(gateway="infiflow"))
    sandbox.fault(at="submit", kind="drop_after")
    with pytest.raises(SubmissionUncertain):
        await Submitter(store=store, labels={"project": "film"}).submit(prepared)
    entry = await Journal(store).read(prepared.digest)
    assert entry is not None
    adopted = await manage.adopt(Journal(store), entry, sandbox.ledger()[0].task_id)
    assert adopted.job is not None
    assert adopted.job.labels == {"project": "film"}


def command(store: Store, by: str, *words: str) -> Result:
    return CliRunner().invoke(main, ["spend", "--store", store.url, "--by", by, *words])


def line(**facts: Any) -> Line:
    begun = "2026-11-01T00:00:00Z"
    usual: dict[str, Any] = {"digest": "d", "revision": 1, "begun_at": begun, "state": "kept", "gateway": "g", "account": "a", "model": "m"}
    return Line(**(usual | facts))


def test_what_is_not_known_is_counted_and_never_zero() -> None:
    """An unknown price, one that was not counted in seconds, two currencies, and what was released."""
    lines = [
        line(cost=Decimal("2.5"), currency="CNY", billed=Decimal("3.5")),
        line(cost=Decimal("2.0"), currency="CNY"),
        line(cost=Decimal("1.0"), currency="USD", billed=Decimal("0.5")),
        line(),
        line(state="released", cost=Decimal(0)),
    ]
    (one,) = spend(lines, ["gateway"])
    assert one == (
        {"gateway": "g"},
        4,
        "4.5 CNY and 1.0 USD and 1 of unknown price",
        "3.5 CNY and 0.5 USD and 2 of unknown price",
        "+1.0 CNY and -0.5 USD",
        0,
    )


@pytest.mark.parametrize(
    "labels", [{"Project": "x"}, {"project": ""}, {"project": "a\nb"}, {"project": 5}, "project", {f"p{n}": "x" for n in range(21)}]
)
def test_labels_that_cannot_be_kept_are_refused(labels: Any) -> None:
    """Before anything is sent, with the rule."""
    (problem, *_) = argument_problems(credentials="infiflow", store=None, labels=labels)
    assert problem.startswith("labels")
    assert argument_problems(credentials="infiflow", store=None, labels={"project": "Der Film", "shot.no": "12"}) == []
