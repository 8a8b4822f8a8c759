"""Gateways that fail again and again rest for a while, and all processes of this machine know it."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from anyio import to_thread
from pydantic import BaseModel, Field

from prefect_happyhorse.engine.storage.local import replace_file
from prefect_happyhorse.engine.storage.machine import state_folder
from prefect_happyhorse.engine.storage.paths import safe
from prefect_happyhorse.gateways import Account

__all__ = ["is_resting", "note_failure", "note_success"]

_FAILURES = 3
_SHORTEST_S = 60.0
_LONGEST_S = 600.0

_log = logging.getLogger(__name__)


class _Record(BaseModel):
    """The file of one account."""

    failures: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    rests_until: Annotated[float, Field(allow_inf_nan=False)] = 0.0

    @property
    def left_s(self) -> float:
        """How long it rests still; a time that is further off than any rest comes of a clock that was put back."""
        left_s = self.rests_until - _now()
        return left_s if 0 < left_s <= _LONGEST_S else 0.0


def _now() -> float:
    return time.time()


async def is_resting(accounts: Iterable[Account]) -> list[bool]:
    """Whether each of some accounts rests."""
    files = [_file(account) for account in accounts]
    try:
        return await to_thread.run_sync(lambda: [_read(file).left_s > 0 for file in files])
    except OSError as error:
        _log.debug("Which gateways rest could not be read: %s", error)
        return [False for _ in files]


async def note_failure(account: Account) -> float:
    """Count an outage; how long the account rests for it from now on, in seconds: 0 where it does not, or rests already."""
    try:
        return await to_thread.run_sync(_fail, _file(account))
    except OSError as error:
        _log.debug("That %s failed could not be written down: %s", account.gateway, error)
        return 0.0


async def note_success(account: Account) -> None:
    """Count from 0 again."""
    try:
        await to_thread.run_sync(lambda: _file(account).unlink(missing_ok=True))
    except OSError as error:
        _log.debug("That %s works could not be written down: %s", account.gateway, error)


def _fail(file: Path) -> float:
    record = _read(file)
    if record.left_s > 0:
        # Whoever was on the way there when the rest began is no further outage.
        return 0.0
    # Of two who write at the same moment one is not counted, which does no harm.
    failures = record.failures + 1
    rest_s = 0.0 if failures < _FAILURES else min(_SHORTEST_S * 2.0 ** min(failures - _FAILURES, 10), _LONGEST_S)
    replace_file(file, _Record(failures=failures, rests_until=_now() + rest_s).model_dump_json().encode())
    return rest_s


def _read(file: Path) -> _Record:
    try:
        return _Record.model_validate_json(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return _Record()


def _file(account: Account) -> Path:
    address = hashlib.sha256(account.base_url.encode()).hexdigest()[:8]
    return state_folder() / "rests" / f"{safe(f'{account.gateway}.{account.label}')}.{address}.json"
