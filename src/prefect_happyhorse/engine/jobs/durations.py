"""How long an account's jobs really take, kept beside the journal, so that the next ones are polled at the right times."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prefect_happyhorse.engine.jobs.schedule import DurationModel
from prefect_happyhorse.engine.storage.store import Store

__all__ = ["Durations"]

_KEPT = 100
_WRITE_EVERY_S = 30.0
_SHORTEST_S = 1.0

_log = logging.getLogger(__name__)


# JSON's readers know numbers without an end, and a single one of them would make every pause one without an end.
_Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Record(BaseModel):
    """The file of one account and route."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    durations_s: list[_Seconds] = Field(default_factory=list[_Seconds], description="The latest ones last, in seconds.")


class Durations:
    """The durations of an account's latest jobs on a route, shared by runs and machines through the store; losing some is no loss.

    Args:
        path: The path of their file below the store's folder.
        typical_s: What is believed of the first job, in seconds.
        clock: Seconds that only ever grow.
    """

    def __init__(self, path: str, *, typical_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._typical_s = typical_s
        self._clock = clock
        self._lock = threading.Lock()
        self._known: list[float] = []
        self._unwritten: list[float] = []
        self._looked = False
        self._heard = False
        self._wrote_at = float("-inf")
        self.belief = DurationModel.of((), typical_s=typical_s)

    async def look(self, store: Store) -> None:
        """Read what earlier runs have learned, once in a process."""
        with self._lock:
            # The first who comes reads; whoever comes meanwhile goes on with what is known so far.
            if self._looked:
                return
            self._looked = True
        try:
            known = await self._read(store)
        except OSError as error:
            _log.debug("%s could not be read: %s", self.path, error)
            return
        with self._lock:
            # Who wrote meanwhile has read the same, and its own jobs are known beside it.
            if not self._heard:
                self._believe([*known, *self._known])

    async def learn(self, duration_s: float, store: Store) -> None:
        """Remember how long a job took."""
        with self._lock:
            self._unwritten.append(max(duration_s, _SHORTEST_S))
            self._believe([*self._known, self._unwritten[-1]])
            if self._clock() - self._wrote_at < _WRITE_EVERY_S:
                return
            self._wrote_at = self._clock()
            known = self._known
            news, self._unwritten = self._unwritten, []
        # Others write too: of two who do so at the same moment one is not heard, which does no harm.
        try:
            others = await self._read(store)
            # Where there is nothing to be read, all that this process knows is written, and not its news alone.
            latest = [*others, *news][-_KEPT:] if others else known
            await store.write(self.path, _Record(durations_s=[round(one, 1) for one in latest]).model_dump_json().encode())
        except OSError as error:
            # What could not be read is not written over: it may hold more than is known here.
            _log.debug("%s could not be written: %s", self.path, error)
            with self._lock:
                self._unwritten = [*news, *self._unwritten][-_KEPT:]
            return
        with self._lock:
            self._heard = True
            self._believe([*latest, *self._unwritten])

    async def _read(self, store: Store) -> list[float]:
        try:
            return _Record.model_validate_json(await store.read(self.path)).durations_s
        except FileNotFoundError:
            return []
        except ValidationError as error:
            _log.debug("%s could not be understood: %s", self.path, error)
            return []

    def _believe(self, durations_s: Sequence[float]) -> None:
        self._known = list(durations_s)[-_KEPT:]
        self.belief = DurationModel.of(self._known, typical_s=self._typical_s)
