"""A process that makes a few pictures through the engine, all at once, when it is told to go; it prints what it got as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from pydantic import SecretStr

from prefect_happyhorse.domain.requests import TextToImage
from prefect_happyhorse.engine.jobs.poll import Poller
from prefect_happyhorse.engine.jobs.prepare import prepare
from prefect_happyhorse.engine.jobs.results import OutputStore
from prefect_happyhorse.engine.jobs.submit import OnUncertain, Submitter
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account


async def make(store: Store, account: Account, number: int, on_uncertain: OnUncertain) -> tuple[str, str, str]:
    """Task id, address and SHA-256 of a picture."""
    prepared = await prepare(TextToImage(model="gpt-image-2", prompt=f"Horse {number}"), account)
    job = await Submitter(store=store, on_uncertain=on_uncertain).submit(prepared)
    result = await Poller(account=account, store=store).poll(job)
    asset = (await OutputStore(account=account, store=store).store_outputs(result)).asset
    return job.task_id, asset.uri, asset.sha256


async def main(said: dict[str, Any]) -> None:
    """Make as many pictures as standard input says, once it says so."""
    store = Store(url=said["store"], options=said["options"], scratch=said["scratch"])
    account = Account(gateway="happyhorse", base_url=said["base_url"], key=SecretStr("sesame-1234"))
    made = await asyncio.gather(*(make(store, account, number, said["on_uncertain"]) for number in range(said["count"])))
    print(json.dumps(made))


if __name__ == "__main__":
    print("ready", flush=True)
    asyncio.run(main(json.loads(sys.stdin.readline())))
