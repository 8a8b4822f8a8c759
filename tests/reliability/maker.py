"""A process that makes a batch through the engine and may be killed at any moment: `maker.py SANDBOX STORE COUNT BATCH`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.reliability.work import accounts_at, make_all, requests_of

from prefect_happyhorse.engine.storage.store import Store

if __name__ == "__main__":
    sandbox, folder, count, batch = sys.argv[1:]
    print("ready", flush=True)
    ended = asyncio.run(make_all(requests_of(int(count), batch=batch), accounts_at(sandbox), Store(url=folder)))
    sys.exit(3 if any(ended) else 0)
