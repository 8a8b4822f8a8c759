"""Whether a run can do what it is meant to, found out in its first seconds and before anything is bought."""

from __future__ import annotations

import secrets

from prefect_happyhorse.domain.errors import AuthenticationFailed, InvalidRequest
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.tasks.work import Credentials, StoreRef, account_of, store_of

__all__ = ["check_ready"]


async def check_ready(store: StoreRef, *credentials: Credentials) -> None:
    """Refuse to start a run whose blocks are missing or whose store cannot be written, with every problem at once.

    Args:
        store: Where the journal and the results are to be kept.
        credentials: Who is to pay.

    Raises:
        InvalidRequest: When a block is missing or incomplete, or the store cannot be written. Nothing was sent.

    Example:
        ```python
        await check_ready("studio-store", "happyhorse", "infiflow")
        ```
    """
    problems: list[str] = []
    for one in dict.fromkeys(credentials):
        try:
            await account_of(one)
        except AuthenticationFailed as error:
            problems.append(error.message)
        except ValueError as error:
            problems.append(str(error))
    try:
        place = await store_of(store)
    except ValueError as error:
        problems.append(str(error))
    else:
        problems += await _problems_of(place)
    if problems:
        raise InvalidRequest("The run cannot start as it is set up. Nothing was sent.", problems=tuple(problems))


async def _problems_of(store: Store) -> list[str]:
    # Claimed as a job would be, since a store may take files and yet have no way to claim one.
    path = f"journal/leases/probe-{secrets.token_hex(8)}"
    try:
        await store.create(path, b"")
        await store.delete(path)
    except (OSError, ImportError) as error:
        return [f"The store {store.url} cannot be written: {error}"]
    return []
