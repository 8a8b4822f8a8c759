"""What blocks and names given to a task stand for, and how its runs are called."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast, get_args

from prefect.tasks import TaskRunNameCallbackWithParameters
from pydantic import TypeAdapter, ValidationError

from prefect_happyhorse.blocks import GatewayCredentials, GatewayPool, MediaStore
from prefect_happyhorse.blocks.credentials import no_payer
from prefect_happyhorse.domain.errors import AuthenticationFailed, InvalidRequest, error_context
from prefect_happyhorse.domain.jobs import DEADLINE_S, Job, JobResult
from prefect_happyhorse.domain.requests import REQUEST_CLASSES, GenerationRequest
from prefect_happyhorse.domain.settings import current
from prefect_happyhorse.domain.validation import validation_problems
from prefect_happyhorse.domain.values import Labels
from prefect_happyhorse.engine.jobs.failover import Pool, pool_problem
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.submit import OnUncertain
from prefect_happyhorse.engine.journal.budget import Budget
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account
from prefect_happyhorse.runtime.concurrency import call_rate_limit
from prefect_happyhorse.runtime.deployed import is_deployed
from prefect_happyhorse.runtime.events import emit_rest
from prefect_happyhorse.runtime.log import run_logger

__all__ = [
    "Credentials",
    "Payer",
    "StoreRef",
    "account_of",
    "accounts_of",
    "argument_problems",
    "check_arguments",
    "check_payer",
    "payer_of",
    "run_name",
    "session_of",
    "store_of",
    "why_it_would_be_lost",
]

_LABELS: TypeAdapter[Labels] = TypeAdapter(Labels)

Payer = GatewayCredentials | str
"""A block, the name of a saved block, or the id of a gateway whose key stands in the environment."""

Credentials = Payer | GatewayPool | Sequence[Payer]
"""Who pays: one, or several gateways of which each request is bought at one at most. The name may be that of a saved pool too."""

StoreRef = MediaStore | str | Path | None
"""A block, the name of a saved block, a folder, an fsspec URL, or None for `HAPPYHORSE_STORE` or else the folder `outputs`."""


async def _pool_of(credentials: Credentials) -> GatewayCredentials | tuple[list[GatewayCredentials], GatewayPool | None]:
    """The block of one payer; or those of several, and the pool that names them, where there is one."""
    if isinstance(credentials, str):
        try:
            return await GatewayCredentials.find(credentials)
        except ValueError:
            if (pool := await GatewayPool.find(credentials)) is None:
                raise
            credentials = pool
    if isinstance(credentials, GatewayCredentials):
        return credentials
    pool = credentials if isinstance(credentials, GatewayPool) else None
    payers = credentials.credentials if isinstance(credentials, GatewayPool) else credentials
    blocks = [await GatewayCredentials.find(payer) if isinstance(payer, str) else payer for payer in payers]
    if problem := pool_problem([block.gateway for block in blocks]):
        raise InvalidRequest(f"{problem}. Nothing was sent.", problems=(problem,))
    return blocks, pool


async def accounts_of(credentials: Credentials) -> list[Account]:
    """The account of each who may pay."""
    found = await _pool_of(credentials)
    return [block.to_account() for block in (found[0] if isinstance(found, tuple) else [found])]


async def account_of(credentials: Credentials, job: Job | None = None) -> Account:
    """The account that credentials stand for, of a pool that which paid for the job; one that did not pay for the job is refused."""
    found = await _pool_of(credentials)
    if isinstance(found, tuple):
        gateway = None if job is None else job.gateway
        # The first is refused as any other that did not pay.
        found = next((block for block in found[0] if block.gateway == gateway), found[0][0])
    return _account(found, job)


def _account(block: GatewayCredentials, job: Job | None) -> Account:
    with error_context(job):
        try:
            account = block.to_account()
        except AuthenticationFailed as error:
            if job is None:
                raise
            raise no_payer(error, job) from error
    check_payer(account, job)
    return account


def check_payer(account: Account, job: Job | None) -> None:
    """Refuse an account that did not pay for a job."""
    if job is not None and (account.gateway, account.label) != (job.gateway, job.account):
        raise ValueError(
            f"Job {job.task_id} belongs to account {job.account!r} of {job.gateway}; these credentials are for"
            f" {account.label!r} of {account.gateway}. Nothing was sent."
        )


async def store_of(store: StoreRef) -> Store:
    """The store that a block, a name, a folder, a URL or nothing stands for."""
    block = store if isinstance(store, MediaStore) else await MediaStore.find(store)
    place = block.to_store()
    is_named = bool(store or current().store)
    if is_deployed():
        problem = why_it_would_be_lost(block.url, place, is_named=is_named)
        if problem is not None:
            raise ValueError(
                f"A deployment's run needs a store that outlives it: {problem}. Nothing was sent. Name a MediaStore block, an absolute"
                " folder or a URL such as s3://bucket/outputs in the parameter `store`, or in the worker's HAPPYHORSE_STORE."
            )
    elif not is_named:
        _tell_once(place.url)
    return place


@cache
def _tell_once(url: str) -> None:
    run_logger().info("No store is named, so results and the journal lie in %s.", url)


def why_it_would_be_lost(url: str, place: Store, *, is_named: bool) -> str | None:
    """A worker's process has a folder of its own for its code, which goes when the run ends."""
    if not is_named:
        return "none is named"
    if place.scheme == "memory":
        return f"{place.url} goes with the process"
    if place.folder is None:
        return None
    if not Path(url.removeprefix("file://").removeprefix("local://")).expanduser().is_absolute():
        return f"{url!r} counts from the run's own folder, {Path.cwd()}, which may go with it"
    temporary = Path(tempfile.gettempdir()).resolve()
    return f"{place.folder} lies in the temporary folder {temporary}" if temporary in place.folder.resolve().parents else None


async def session_of(credentials: Credentials, store: StoreRef | Store, job: Job | None) -> Session:
    """The session of the account that paid for a job, or of one payer, and a store; see `account_of` and `store_of`."""
    return _session(await account_of(credentials, job), store if isinstance(store, Store) else await store_of(store))


async def payer_of(credentials: Credentials, store: StoreRef | Store) -> Session | Pool:
    """The session of who pays, or the pool of those who may."""
    found = await _pool_of(credentials)
    place = store if isinstance(store, Store) else await store_of(store)
    if isinstance(found, GatewayCredentials):
        return _session(_account(found, None), place)
    blocks, pool = found
    sessions = [_session(_account(block, None), place) for block in blocks]
    how: dict[str, Any] = {} if pool is None else {"order": pool.order, "after_failure": pool.after_failure}
    return Pool(sessions, tell=run_logger().warning, on_rest=emit_rest, **how)


def _session(account: Account, store: Store) -> Session:
    return Session(account, store, rate_limit=call_rate_limit(account))


def check_arguments(request: object, credentials: object, store: object, **others: Any) -> None:
    """Refuse what Prefect hands on unchecked, every problem at once, before anything is paid for; `others` as for `argument_problems`."""
    problems = argument_problems(credentials=credentials, store=store, **others)
    if not isinstance(request, tuple(REQUEST_CLASSES.values())):
        rule = f"request must be a request such as TextToImage (got {type(request).__name__}); parse_request makes one of a dict"
        problems.insert(0, rule)
    if problems:
        raise InvalidRequest("The call has wrong arguments. Nothing was sent.", problems=tuple(problems))


def argument_problems(
    *,
    credentials: object,
    store: object,
    on_uncertain: object = "settle",
    budget: object = None,
    deadline_s: object = DEADLINE_S,
    labels: object = None,
    check: object = None,
    max_takes: object = 1,
) -> list[str]:
    """What is wrong with the arguments that the tasks have in common."""
    rules = {
        f"credentials must be a GatewayCredentials block or a name, a list of these, or a GatewayPool (got {_kind(credentials)})": _pays(
            credentials
        ),
        f"store must be a MediaStore block, a name, a folder or a URL (got {type(store).__name__})": store is None
        or isinstance(store, (str, Path, MediaStore)),
        f"on_uncertain must be 'settle', 'raise' or 'resubmit' (got {on_uncertain!r})": on_uncertain in get_args(OnUncertain),
        f"budget must be a Budget (got {budget!r}), as Budget(amount=100, currency='CNY')": budget is None or isinstance(budget, Budget),
        f"deadline_s must be a number of seconds from 0 (got {deadline_s!r})": isinstance(deadline_s, (int, float)) and deadline_s >= 0,
        f"check must be a function of an asset (got {type(check).__name__})": check is None or callable(check),
        f"max_takes must be a whole number from 1 (got {max_takes!r})": _is_count(max_takes),
        f"max_takes above 1 needs a check that says when another take is bought (got {max_takes!r})": check is not None
        or not _is_count(max_takes)
        or max_takes == 1,
    }
    return [*(problem for problem, holds in rules.items() if not holds), *_label_problems(labels)]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _pays(credentials: object) -> bool:
    if isinstance(credentials, (list, tuple)):
        return all(isinstance(one, (str, GatewayCredentials)) for one in cast("Sequence[object]", credentials))
    return isinstance(credentials, (str, GatewayCredentials, GatewayPool))


def _kind(credentials: object) -> str:
    if isinstance(credentials, (list, tuple)):
        kinds = dict.fromkeys(type(one).__name__ for one in cast("Sequence[object]", credentials))
        return f"a list of {', '.join(kinds)}"
    return type(credentials).__name__


def _label_problems(labels: object) -> list[str]:
    if labels is None:
        return []
    try:
        _LABELS.validate_python(labels)
    except ValidationError as error:
        return [f"labels: {problem}" for problem in validation_problems(error)]
    return []


def run_name(step: str, parameter: str) -> TaskRunNameCallbackWithParameters:
    """What names a run after what its request, job or result is about, as `poll text_to_image gpt-image-2 "A white horse"`."""

    def name(parameters: dict[str, Any]) -> str:
        value = cast("GenerationRequest | Job | JobResult", parameters[parameter])
        about = value.job if isinstance(value, JobResult) else value
        if not isinstance(about, (*REQUEST_CLASSES.values(), Job)):
            # The task itself says what is wrong.
            return step
        prompt = " ".join((about.prompt or "").split())
        quoted = "" if not prompt else f' "{prompt}"' if len(prompt) <= 40 else f' "{prompt[:37]}..."'
        return f"{step} {about.capability} {about.model}{quoted}"

    # Prefect looks at the parameters' names of any function; its type asks for a method that only it has.
    return cast("TaskRunNameCallbackWithParameters", name)
