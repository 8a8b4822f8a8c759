"""Whether a run can do what it is meant to, found out in its first seconds and before anything is bought."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any

from pydantic import ValidationError

from prefect_happyhorse.catalog import find_problems, resolve
from prefect_happyhorse.domain.errors import AuthenticationFailed, CatalogError, InvalidRequest
from prefect_happyhorse.domain.requests import GenerationRequest, parse_request
from prefect_happyhorse.domain.validation import validation_problems
from prefect_happyhorse.engine.inputs.preflight import inspect_media
from prefect_happyhorse.engine.jobs.failover import Pool
from prefect_happyhorse.engine.journal.budget import Budget
from prefect_happyhorse.engine.media.film import check_can_concat
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.tasks.dual import dual
from prefect_happyhorse.tasks.outlay import TO_COME, Outlay, estimate_requests
from prefect_happyhorse.tasks.resolve import Credentials, StoreRef, accounts_of, payer_of, store_of
from prefect_happyhorse.tasks.suspend import suspension_problems

__all__ = ["check_ready", "check_requests", "request_problems"]


@dual
async def check_ready(store: StoreRef, *credentials: Credentials, concat: bool = False, suspend: bool = False) -> None:
    """Refuse to start a run whose blocks are missing or whose store cannot be written, with every problem at once.

    Args:
        store: Where the journal and the results are to be kept.
        credentials: Who is to pay.
        concat: Whether the run is going to concatenate videos, which needs the extra `media`.
        suspend: Whether the run is going to be suspended, which needs a deployment and persisted results.

    Raises:
        InvalidRequest: When a block is missing or incomplete, the store cannot be written, the extra is missing, or the run cannot be
            suspended. Nothing was sent.

    Example:
        ```python
        await check_ready("studio-store", "happyhorse", "infiflow")
        ```
    """
    problems: list[str] = []
    for one in credentials:
        try:
            await accounts_of(one)
        except AuthenticationFailed as error:
            problems.append(error.message)
        except (CatalogError, ValueError, OSError) as error:
            problems.append(str(error))
    try:
        place = await store_of(store)
    except ValueError as error:
        problems.append(str(error))
    else:
        problems += await _store_problems(place)
    if concat:
        try:
            check_can_concat()
        except ImportError as error:
            problems.append(str(error))
    if suspend:
        problems += suspension_problems()
    if problems:
        raise InvalidRequest("The run cannot start as it is set up. Nothing was sent.", problems=tuple(dict.fromkeys(problems)))


async def _store_problems(store: Store) -> list[str]:
    # Created as a lease would be, since a store may take files and yet have no way to create one only once.
    path = f"journal/leases/probe-{secrets.token_hex(8)}"
    try:
        await store.create(path, b"")
        await store.delete(path)
    except (OSError, ImportError) as error:
        return [f"The store {store.url} cannot be written: {error}"]
    return []


@dual
async def check_requests(
    requests: Iterable[tuple[str, GenerationRequest | Mapping[str, Any], Credentials]],
    store: StoreRef = None,
    *,
    problems: Iterable[str] = (),
    budget: Budget | None = None,
    takes: Iterable[int] | None = None,
    to_come: str = TO_COME,
) -> Outlay:
    """Refuse requests that their routes would refuse, with every problem at once, before the first is paid for; and what no budget allows.

    What is yet to be bought of them is logged and shown as an artifact of the run.

    Args:
        requests: For each what it is called in the error, the request or its fields, and who is to pay.
        store: The store in which media may lie, and what is bought already is known.
        problems: What the caller found wrong; it is raised together with what is found here.
        budget: The most that the jobs of the store's journal may cost together; None for no limit.
        takes: The take of each; None for the first of all.
        to_come: Stands for a medium that the request before has yet to make. As any https URL it is left out of the check.

    Returns:
        What is yet to be bought.

    Raises:
        InvalidRequest: When there is any problem. Nothing was sent.
        BudgetExceeded: When what is yet to be bought can never fit into what is left of the budget. Nothing was sent.

    Example:
        ```python
        picture = TextToImage(model="gpt-image-2", prompt="A white horse")
        ride = ReferenceToVideo(model="happyhorse-1.0-r2v", prompt="It runs", references=["https://example.com/to-come"])
        await check_requests([("picture", picture, "happyhorse"), ("ride", ride, "ttapi")])
        ```
    """
    found = list(problems)
    asked = list(requests)
    for name, request, credentials in asked:
        found += [f"{name}: {problem}" for problem in await request_problems(request, credentials, store)]
    if found:
        raise InvalidRequest("The run cannot do what it is asked for. Nothing was sent.", problems=tuple(found))
    counted = [(request, credentials, take) for (_, request, credentials), take in zip(asked, takes or repeat(1), strict=False)]
    outlay = await estimate_requests(counted, store, budget=budget, to_come=to_come)
    await outlay.show()
    await outlay.refuse()
    return outlay


@dual
async def request_problems(
    request: GenerationRequest | Mapping[str, Any], credentials: Credentials, store: StoreRef = None
) -> Sequence[str]:
    """What the route of a request would refuse.

    Args:
        request: The request or its fields.
        credentials: Who is to pay.
        store: The store in which media may lie.

    Returns:
        Every problem; none when it may be sent.

    Example:
        ```python
        problems = await request_problems(TextToImage(model="gpt-image-2", prompt="A white horse"), "happyhorse")
        ```
    """
    payer = await payer_of(credentials, store)
    try:
        parsed = parse_request(dict(request)) if isinstance(request, Mapping) else request
        if isinstance(payer, Pool):
            await payer.prepare(parsed)
            return ()
        route = resolve(parsed, payer.account.gateway)
    except ValidationError as error:
        return validation_problems(error)
    except InvalidRequest as error:
        return (error.message, *error.problems)
    return (*find_problems(parsed, route), *(await inspect_media(parsed, route, payer.store)).problems)
