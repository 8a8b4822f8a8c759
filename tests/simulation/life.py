"""Who lives in a world of the simulation, what they do, and what must be true at every step and at the end."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import httpx
from prefect.states import Completed
from pydantic import SecretStr
from tests.simulation.gateway import Charge, SimGateway, service, video
from tests.simulation.server import RUN, SimServer, SuspendedHere
from tests.simulation.world import CURRENT, Faults, World

from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.errors import GenerationError, JobExpired, JobFailed, SubmissionUncertain
from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.domain.requests import ReferenceToVideo
from prefect_happyhorse.domain.rows import RowResult
from prefect_happyhorse.engine.http.connections import Client
from prefect_happyhorse.engine.jobs import manage
from prefect_happyhorse.engine.jobs.failover import Pool, PreparedPool
from prefect_happyhorse.engine.jobs.prepare import Prepared
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.shared import Shared
from prefect_happyhorse.engine.jobs.submit import SubmitPolicy, Submitted
from prefect_happyhorse.engine.journal.index import open_entries
from prefect_happyhorse.engine.journal.journal import JournalEntry
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account
from prefect_happyhorse.tasks.rows import FindSession, Shown, Submitting, downloading, polling, run_rows
from prefect_happyhorse.tasks.suspend import resume_runs, suspend_until_done

__all__ = ["Failed", "Life"]

FAULTS_S = 4 * 3600.0
# Who hears a silence of 150 s out and looks at a list for 450 s before each of 40 tries, 300 s apart, has given up by then.
LONGEST_S = FAULTS_S + 12 * 3600.0
_ACCOUNTS = [
    Account(gateway=gateway, base_url="http://127.0.0.1:9", key=SecretStr("sesame-1234")) for gateway in ("infiflow", "ttapi", "dashscope")
]


class Failed(AssertionError):
    """A promise was broken."""


class _Connections:
    """The HTTP clients of a process of the simulation, all of which lead to its gateway."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._client = Client(lambda **_: http)

    @asynccontextmanager
    async def client(self, make: object = None) -> Any:
        yield self._client


class Life:
    """The buyers, shards, runs that are suspended, the person and the collector of a world, and what must be true of them."""

    def __init__(self, world: World) -> None:
        self.world = world
        choices = world.choices
        self.store = Store(str(world.folder / "outputs"))
        # In some worlds every request may be made by several gateways, each in the buyer's own order.
        self.pooled = choices.pick([0, 0, 2, 3])
        # One of them lists its tasks, sooner or later; there, what is in doubt is worth more than one world in a hundred.
        self.account = _ACCOUNTS[0] if self.pooled else choices.pick([_ACCOUNTS[0], _ACCOUNTS[2], _ACCOUNTS[2]])
        lists = self.account.gateway == "dashscope"
        odd = [0.0, 0.15, 0.4] if self.pooled else [0.0, 0.15, 0.3] if lists else [0.0, 0.03, 0.15]
        self.gateway = SimGateway(world, odd=choices.pick(odd), poor=bool(self.pooled))
        self.gateway.polite = choices.pick([False, True])
        self.gateway.foreign = choices.pick([0.0, 0.0, 0.5]) if lists else 0.0
        # A list settles nothing before a quarter of an hour; where a person is always sooner, nothing is learned of it.
        self.slowness = choices.pick([1, 20, 20]) if lists else 1
        self.gateway.lag_s = choices.pick([0.0, 30.0, 1800.0])
        self.http = httpx.AsyncClient(transport=self.gateway)
        self.server = SimServer(world)
        self.gateway.handed_over = self.check_handed_over  # pyright: ignore[reportAttributeAccessIssue]
        self.machines = [world.machine(f"m{number}") for number in range(choices.pick([1, 1, 1, 2] if lists else [1, 1, 2, 3]))]
        self.requests = [
            ReferenceToVideo(
                model="happyhorse-1.0-r2v",
                prompt=f"Horse {number} runs",
                references=("https://example.com/a.png",),
                resolution="720p",
                aspect_ratio="16:9",
                duration=5,
            )
            for number in range(choices.pick([1, 2, 3] if lists else [1, 1, 2]))
        ]
        rare = choices.pick([0.004, 0.012, 0.03])
        # Few kinds at a time: where everything goes wrong at once, hardly anything is wrong enough to be told.
        kinds = [choices.pick(["pause", "kill", "fail", "lose", "power", "jump"]) for _ in range(choices.pick([0, 1, 1, 1, 2, 3]))]
        world.faults = Faults(delay=0.15, **dict.fromkeys(kinds, rare))
        self.prepared: dict[tuple[str, ...], Any] = {}
        self.allowed: Counter[str] = Counter()
        self.handed: Counter[str] = Counter()
        self.told: list[str] = []
        self.resubmits = choices.pick([False, False, True])
        self.cancels = choices.pick([False, False, True])
        self.forgets = choices.pick([False, True])
        self.unfinished = 0
        self.problems: list[Failed] = []

    # What must be true whenever a submit leaves its process.
    def check_handed_over(self, request: httpx.Request) -> None:
        digest = self.gateway.digest(request)
        latest = self.latest(digest)
        process = CURRENT.get()
        if latest is None or latest["state"] != "intent" or latest["owner"]["run"] != process.run:
            stands = "nothing" if latest is None else f"{latest['state']} of {latest['owner']['process']}"
            raise self.failed(f"a submit leaves {process} while the journal says: {stands}")
        self.handed[digest] += 1
        request.extensions["claim"] = latest["owner"]["claim"]
        self.world.note(f"hands over a submit for {digest[:6]}")

    def latest(self, digest: str) -> dict[str, Any] | None:
        """What the store truly holds of a digest."""
        folder = self.world.folder / "outputs" / "journal" / digest[:2]
        files = {int(file.name.split(".")[1]): file for file in folder.glob(f"{digest}.*.json")}
        return json.loads(files[max(files)].read_bytes()) if files else None

    def failed(self, problem: str) -> Failed:
        error = Failed(problem)
        self.problems.append(error)
        self.world.note(f"BROKEN: {problem}")
        return error

    def sessions(self, accounts: Sequence[Account]) -> list[Session]:
        shared = Shared()
        shared.connections = _Connections(self.http)  # pyright: ignore[reportAttributeAccessIssue]
        clock = lambda: self.world._now()[0]  # noqa: E731  # pyright: ignore[reportPrivateUsage]
        return [Session(account, self.store, shared=shared, clock=clock) for account in accounts]

    def session(self) -> Session:
        # Whoever looks after jobs knows all services by one address.
        return self.sessions([self.account])[0]

    def payer(self) -> Session | Pool:
        """Who pays for what a buyer wants."""
        if not self.pooled:
            return self.session()
        chosen = _ACCOUNTS[: self.pooled]
        return Pool(self.sessions(self.world.choices.pick([chosen, chosen[::-1]])), tell=self.world.note)

    async def insist(self, wanted: Callable[[Session | Pool], Awaitable[list[MediaAsset] | None]]) -> bool:
        """Do something until it gives what is wanted, whatever it is told in between."""
        payer = self.payer()
        for _ in range(40):
            try:
                assets = await wanted(payer)
            except SubmissionUncertain as error:
                self.world.note(f"is told: {error.message[:90]}")
                self.check_doubt(error)
                self.told.append(error.digest or "")
                await self.world._sleep(300.0)  # pyright: ignore[reportPrivateUsage]
            except JobFailed as error:
                self.world.note(f"is told: {error.message[:90]}")
                await self.world._sleep(120.0)  # pyright: ignore[reportPrivateUsage]
            except (GenerationError, OSError, httpx.HTTPError) as error:
                self.world.note(f"is told: {type(error).__name__}: {str(error)[:90]}")
                await self.world._sleep(20.0)  # pyright: ignore[reportPrivateUsage]
            else:
                if assets is not None:
                    self.check_files(assets)
                    return True
                await self.world._sleep(300.0)  # pyright: ignore[reportPrivateUsage]
        return False

    def check_files(self, assets: Sequence[MediaAsset]) -> None:
        """What is there is what the gateway made, whole."""
        for asset in assets:
            if asset.path is None or asset.path.read_bytes() != video():
                raise self.failed(f"{asset.path} is not what the gateway made")
            self.world.note(f"has {asset.path.name}")

    async def prepare(self, payer: Session | Pool, request: ReferenceToVideo) -> Any:
        """What every process would make of a request, made once: it needs no store and no network, so no seed decides over it.

        What is submitted of it is known again by its service and prompt.
        """
        order = (payer,) if isinstance(payer, Session) else payer.sessions
        key = (request.prompt, *(one.account.gateway for one in order))
        if key not in self.prepared:
            self.prepared[key] = await payer.prepare(request)
        prepared = self.prepared[key]
        if isinstance(prepared, PreparedPool):
            sessions = {one.account.gateway: one for one in order}
            mine = [one._replace(session=sessions[one.session.account.gateway]) for one in prepared.candidates]
            prepared = prepared._replace(candidates=tuple(mine))
        for one in [one.prepared for one in prepared.candidates] if isinstance(prepared, PreparedPool) else [prepared]:
            self.gateway.digest_of[service(one.route.submit.partition(" ")[2]) + request.prompt] = one.digest
        return prepared

    async def _submitted(self, payer: Session | Pool, request: ReferenceToVideo, on_uncertain: Any) -> Job:
        prepared = await self.prepare(payer, request)

        async def submit(session: Session, one: Prepared, policy: SubmitPolicy | None = None) -> Submitted:
            return await session.submit(one, on_uncertain=on_uncertain, policy=policy)

        return (await (payer.submit(prepared, submit) if isinstance(payer, Pool) else submit(payer, prepared))).job

    async def buyer(self, request: ReferenceToVideo, *, on_uncertain: Any) -> bool:
        """One job, waited for in its process."""

        async def buy(payer: Session | Pool) -> list[MediaAsset]:
            job = await self._submitted(payer, request, on_uncertain)
            session = payer.of(job)
            return [(await session.store_outputs(await session.poll(job, deadline_s=7200))).asset]

        return await self.insist(buy)

    async def shard(self, *, on_uncertain: Any) -> bool:
        """All requests in one task run, as `generate_many` does it; what is not kept is asked for again, as a retried task does."""

        async def buy(payer: Session | Pool) -> list[MediaAsset] | None:
            for request in self.requests:
                await self.prepare(payer, request)
            digests = {digest[:12]: digest for digest in self.gateway.digest_of.values()}
            steps = [Submitting(on_uncertain=on_uncertain, budget=None), polling(deadline_s=7200), downloading]
            shown, find = Shown("shard", "kept"), _same(payer)
            gateway = self.account.gateway
            rows = await run_rows(self.requests, steps, gateway, self.store.url, shown, concurrency=2, find_session=find)
            for row in rows:
                if row.state == "uncertain":
                    self.told += [digest for short, digest in digests.items() if short in (row.error or "")]
                if row.error is not None:
                    self.world.note(f"is told: {row.error[:90]}")
            assets = [row.asset for row in rows if row.asset is not None]
            self.check_files(assets)
            return assets if len(assets) == len(rows) else None

        return await self.insist(buy)

    async def waiting(self, *, on_uncertain: Any) -> bool:
        """A flow that submits, is suspended until its jobs have ended, and fetches what they made."""

        async def buy(payer: Session | Pool) -> list[MediaAsset]:
            jobs = [await self._submitted(payer, request, on_uncertain) for request in self.requests]
            await suspend_until_done(jobs, self.store.url)
            kept = [await payer.of(job).store_outputs(await payer.of(job).poll(job, deadline_s=7200)) for job in jobs]
            return [one.asset for one in kept]

        return await self.insist(buy)

    def check_doubt(self, error: SubmissionUncertain) -> None:
        """Nobody is told that a submit may have been accepted where none can have left."""
        faults = self.world.faults
        quiet = not (faults.kill or faults.power or faults.pause or faults.fail)
        few = sum("answer lost" in line for line in self.world.trace) <= 1
        latest = self.latest(error.digest or "")
        if latest is not None and f"by process {latest['owner']['process']} " in error.message:
            self.check_silence(latest["state"], latest["owner"]["process"])
        if quiet and few and not self.handed[error.digest or ""]:
            raise self.failed(f"doubt about {(error.digest or '')[:6]}, of which no submit ever left: {error.message}")

    def check_silence(self, state: str, pid: int) -> None:
        """Nobody takes a submit for gone whose process lives, and neither stood still nor failed to renew its lease."""
        faults = self.world.faults
        at_work = any(process.pid == pid and process.alive for process in self.world.processes)
        if state == "intent" and at_work and not (faults.pause or faults.fail or faults.lose):
            raise self.failed(f"process {pid} is at work, and taken to be gone")

    async def supervised(self, work: Callable[[], Coroutine[Any, Any, bool]]) -> bool:
        """Something that is started anew whenever its process ends too early, as a worker does."""
        for _ in range(12):
            process = self.world.process(self.world.choices.pick(self.machines))
            done = await self.world.start(process, work())
            if done is not None:
                return done
            await asyncio.sleep(self.world.choices.between(1.0, 60.0))
        return False

    async def worked(self, work: Callable[[], Coroutine[Any, Any, bool]]) -> bool:
        """A flow run that a worker begins whenever the server says so: at first, after its process was killed, and when it is resumed."""
        run = self.server.add()
        RUN.set(run)
        for _ in range(40):
            while self.server.states[run].is_paused():  # noqa: ASYNC110 -- a worker asks its server now and then
                await asyncio.sleep(15.0)
            self.server.begin(run)
            with suppress(SuspendedHere):
                process = self.world.process(self.world.choices.pick(self.machines))
                done = await self.world.start(process, work())
                if done is not None:
                    self.server.states[run] = Completed()
                    return done
            await asyncio.sleep(self.world.choices.between(1.0, 60.0))
        self.server.states[run] = Completed()
        return False

    async def person(self) -> None:
        """Look at the provider's console, adopt what stands there, and have forgotten what does not; sometimes cancel."""
        session = self.session()
        cancelled = 0
        while True:
            await self.world._sleep(self.slowness * self.world.choices.between(30.0, 200.0))  # pyright: ignore[reportPrivateUsage]
            try:
                listing = await session.journal.entries()
                if self.cancels and cancelled < 2:
                    for entry in listing.entries:
                        if entry.state == "submitted" and entry.job is not None and cancelled < 2:
                            cancelled += 1
                            await session.cancel(entry.job)
                for digest in sorted({entry.digest for entry in listing.entries} & set(self.told)):
                    entry = await session.journal.read(digest)
                    if entry is not None and entry.job is None and entry.state in {"intent", "uncertain"}:
                        await self.settle(session, entry, listing.entries)
            except (OSError, GenerationError, ValueError) as error:
                self.world.note(f"cannot: {str(error)[:90]}")

    async def settle(self, session: Session, entry: JournalEntry, entries: Sequence[JournalEntry]) -> None:
        known = {one.job.task_id for one in entries if one.job is not None}
        strays = [charge for charge in self.gateway.charges.values() if charge.digest == entry.digest and charge.task_id not in known]
        if strays:
            self.world.note(f"adopts {strays[0].task_id[:9]}")
            await session.adopt(entry, strays[0].task_id)
        elif self.forgets:
            self.world.note(f"has {entry.digest[:6]} forgotten")
            await manage.forget(session.journal, entry)
            # What the console did not show may still have been on its way.
            self.allowed[entry.digest] += 1

    async def collector(self) -> None:
        """Ask for every open job now and then, and keep what is finished."""
        session = self.session()
        while True:
            await self.world._sleep(self.world.choices.between(60.0, 400.0))  # pyright: ignore[reportPrivateUsage]
            await self.collect(session)

    async def collect(self, session: Session) -> None:
        try:
            for entry in (await open_entries(session.journal)).entries:
                if entry.job is not None or await session.settle(entry):
                    await session.resume(entry, deadline_s=self.world.loop.now)
            await resume_runs(self.store.url)
        except (OSError, GenerationError, httpx.HTTPError) as error:
            self.world.note(f"cannot: {str(error)[:90]}")

    async def live(self) -> None:
        world, choices = self.world, self.world.choices
        count = choices.pick([2, 2, 3, 5])
        buyers = [world.loop.create_task(self.one(number)) for number in range(count)]
        works = [self.person(), self.collector(), *([self.collector()] if choices.pick([False, False, True]) else [])]
        others = [world.start(world.process(self.machines[-1]), work) for work in works]
        while not all(buyer.done() for buyer in buyers):
            await asyncio.wait(buyers, timeout=30.0)
            others = [other if not other.done() else self.again(number) for number, other in enumerate(others)]
            if world.loop.now > 1_000.0 + FAULTS_S:
                # Faults stop, and whoever still wants something gets it.
                world.calm = True
            if world.loop.now > 1_000.0 + LONGEST_S:
                raise self.failed("somebody still waits after sixteen hours")
        self.unfinished = sum(not buyer.result() for buyer in buyers)
        for other in others:
            other.cancel()
        world.calm = True
        await self.world.start(world.process(self.machines[0]), self.settle_all())
        self.check_end()

    def one(self, number: int) -> Coroutine[Any, Any, bool]:
        """One of those who want something."""
        choices = self.world.choices
        on_uncertain = "resubmit" if self.resubmits and number < 2 else choices.pick(["settle", "settle", "raise"])
        kind = choices.pick(["alone", "alone", "shard", "waiting"])
        if kind == "shard":
            return self.supervised(partial(self.shard, on_uncertain=on_uncertain))
        if kind == "waiting":
            return self.worked(partial(self.waiting, on_uncertain=on_uncertain))
        return self.supervised(partial(self.buyer, choices.pick(self.requests), on_uncertain=on_uncertain))

    def again(self, number: int) -> asyncio.Task[None]:
        return self.world.start(self.world.process(self.machines[-1]), self.collector() if number else self.person())

    async def settle_all(self) -> None:
        """Nothing goes wrong any more: the person settles what is uncertain, and the collector keeps what is finished."""
        await asyncio.sleep(600.0)
        session = self.session()
        for _ in range(3):
            listing = await session.journal.entries()
            for entry in listing.entries:
                if entry.job is None and entry.state in {"intent", "uncertain"}:
                    self.forgets = False
                    await self.settle(session, entry, listing.entries)
                if entry.state in {"failed", "expired"}:
                    # A gateway that was mistaken twice, or once beside a wrong clock, is believed, until a person asks again.
                    with suppress(JobFailed, JobExpired):
                        await session.resume(entry, deadline_s=self.world.loop.now, again=True)
            await self.collect(session)
            await asyncio.sleep(200.0)

    def check_end(self) -> None:
        """Nothing was paid for twice, nothing that was paid for is lost."""
        latest: dict[str, dict[str, Any]] = {}
        for file in (self.world.folder / "outputs" / "journal").glob("??/*.json"):
            digest, revision, _ = file.name.split(".")
            if int(revision) >= latest.get(digest, {}).get("revision", 0):
                latest[digest] = json.loads(file.read_bytes()) | {"revision": int(revision)}
        by_task = {entry["job"]["task_id"]: entry for entry in latest.values() if entry.get("job")}
        claims = Counter(charge.claim for charge in self.gateway.charges.values())
        if twice := [claim for claim, count in claims.items() if count > 1]:
            raise self.failed(f"one submit was accepted {claims[twice[0]]} times")
        for digest, charges in _by_digest(self.gateway.charges.values()).items():
            allowed = 1 + self.allowed[digest] + sum(charge.cancelled for charge in charges)
            if len(charges) > allowed:
                raise self.failed(f"{digest[:6]} was bought {len(charges)} times, and {allowed} are accounted for")
        self.check_pools()
        if left := [file.name for file in (self.world.folder / "outputs" / "journal").glob("waiting/*")]:
            raise self.failed(f"all runs have ended, and {left[0]} still waits")
        if wrong := by_task.keys() & self.gateway.strangers.keys():
            raise self.failed(f"{min(wrong)[:10]}, which is somebody else's, was taken")
        spooled = {file.stem for machine in self.machines for file in machine.home.glob("spool/*/*.json")}
        for charge in self.gateway.charges.values():
            self.check_kept(charge, by_task.get(charge.task_id), spooled)

    def check_kept(self, charge: Charge, entry: dict[str, Any] | None, spooled: set[str]) -> None:
        """A job that was accepted stands somewhere, as what it is, and its file is there."""
        logged = any(charge.task_id in line for line in self.world.log)
        # Of an answer that never came nobody knows the id; then the entry says so, or a person, a list or a resubmit settled it.
        unknown = charge.by.killed or not charge.heard
        if entry is None and not logged and charge.digest not in spooled and not unknown:
            raise self.failed(f"{charge.task_id[:9]}, bought by {charge.by}, stands nowhere")
        if entry is not None and entry["request"]["prompt"] != charge.prompt:
            raise self.failed(f"{charge.task_id[:9]} was taken for another request's")
        if entry is not None and entry["state"] != "kept" and not charge.cancelled and entry["state"] != "forgotten":
            raise self.failed(f"{charge.task_id[:9]} is finished and not kept, but {entry['state']}")

    def check_pools(self) -> None:
        """What several gateways may make is bought at one of them, unless somebody asked for more."""
        asked: dict[str, set[str]] = {}
        for key, digest in self.gateway.digest_of.items():
            asked.setdefault(key[key.index("Horse") :], set()).add(digest)
        for prompt, digests in asked.items():
            charges = [charge for charge in self.gateway.charges.values() if charge.digest in digests]
            allowed = 1 + sum(self.allowed[digest] for digest in digests) + sum(charge.cancelled for charge in charges)
            if len(charges) > allowed:
                raise self.failed(f"{prompt!r} was bought {len(charges)} times, and {allowed} are accounted for")


def _same(payer: Session | Pool) -> Callable[[Store], Awaitable[FindSession]]:
    """One payer for every row."""

    async def find(row: RowResult) -> Session | Pool:
        return payer

    async def at(store: Store) -> FindSession:
        return find

    return at


def _by_digest(charges: Any) -> dict[str, list[Charge]]:
    found: dict[str, list[Charge]] = {}
    for charge in charges:
        found.setdefault(charge.digest, []).append(charge)
    return found
