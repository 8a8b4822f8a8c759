"""What the tests of pools share: pools at the sandbox, and what was bought there."""

from __future__ import annotations

from typing import Any

from tests.engine.conftest import AccountMaker, Naps
from tests.engine.jobs.test_submit import ride

from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.domain.requests import ReferenceToVideo
from prefect_happyhorse.engine.jobs.failover import Pool
from prefect_happyhorse.engine.jobs.prepare import Prepared
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.shared import Shared
from prefect_happyhorse.engine.jobs.submit import SubmitPolicy, Submitted
from prefect_happyhorse.engine.journal.journal import Journal
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.sandbox import SandboxServer

RIDE = ride("infiflow")


class Pools:
    """Makes pools at the sandbox, each as a process of its own would, and submits to them."""

    def __init__(self, account: AccountMaker, store: Store, naps: Naps) -> None:
        self.account = account
        self.store = store
        self.naps = naps
        self.told: list[str] = []
        self.rested: list[tuple[str, float]] = []

    def session(self, gateway: str, **changes: Any) -> Session:
        return Session(self.account(gateway, **changes), self.store, sleep=self.naps, shared=Shared())

    def of(self, *gateways: str, accounts: dict[str, dict[str, Any]] | None = None, **how: Any) -> Pool:
        sessions = [self.session(gateway, **(accounts or {}).get(gateway, {})) for gateway in gateways]
        rest = lambda account, seconds: self.rested.append((account.gateway, seconds))  # noqa: E731 -- it is handed in
        return Pool(sessions, tell=self.told.append, on_rest=rest, **how)

    async def submit(self, pool: Pool, request: ReferenceToVideo = RIDE, *, take: int = 1, **how: Any) -> Job:
        async def one(session: Session, prepared: Prepared, policy: SubmitPolicy) -> Submitted:
            return await session.submit(prepared, policy=policy, **how)

        return (await pool.submit(await pool.prepare(request, take=take), one)).job


def bought(sandbox: SandboxServer) -> list[tuple[str, str]]:
    return [(entry.gateway, entry.model) for entry in sandbox.ledger() if not entry.refunded]


async def states(store: Store) -> dict[str, str]:
    return {entry.gateway: entry.state for entry in (await Journal(store).entries()).entries}
