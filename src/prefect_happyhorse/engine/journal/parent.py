"""The entry of a request that several gateways may make: which of them is at it, and which were before.

`journal/pools/<first two characters>/<digest>.<revision>.json` names the child, the entry of the request at one gateway, under which it
may be bought now. As an entry's, a file is never written over, and of several who create the next revision exactly one can; none is
removed, for what a revision means to whoever submits under it must not come again.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Literal

from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from prefect_happyhorse.domain.errors import SubmissionUncertain
from prefect_happyhorse.engine.journal.files import revision_of
from prefect_happyhorse.engine.storage.store import Store

__all__ = ["Child", "Parent", "Parents"]


def _now() -> datetime:
    return datetime.now(timezone.utc)


class Child(BaseModel, frozen=True, extra="ignore"):
    """The request at one gateway and account."""

    gateway: str
    account: str
    digest: str = Field(description="Of its own entry, which is that of the request made there alone.")

    def __str__(self) -> str:
        return f"{self.gateway} (account {self.account!r})"


class Parent(BaseModel, frozen=True, extra="allow"):
    """Where a request of several gateways may be bought, and where it may have been before; what a later version adds is kept."""

    version: Literal[1] = 1
    digest: str
    current: Child
    tried: tuple[Child, ...] = Field(description="Every child that was ever the current one, this one too.")
    updated_at: AwareDatetime = Field(default_factory=_now)
    revision: int = Field(default=0, exclude=True, description="The name of its file says so.")


class Parents:
    """The parent entries of a store's journal.

    Args:
        store: Where the journal lies.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def revision(self, digest: str) -> int:
        """The latest revision of a parent; 0 when there is none."""
        known = map(revision_of, await self._store.list(_folder(digest)))
        return max((one[1] for one in known if one is not None and one[0] == digest), default=0)

    async def read(self, digest: str) -> Parent | None:
        """The parent of a digest, or None."""
        if not (revision := await self.revision(digest)):
            return None
        path = _path(digest, revision)
        try:
            found = Parent.model_validate_json(await self._store.read(path))
            if found.digest != digest:
                raise ValueError(f"it is of {found.digest[:12]}")
        except ValueError as error:
            what = f"{error.error_count()} problems" if isinstance(error, ValidationError) else error
            raise SubmissionUncertain(
                f"The journal entry {self._store.uri(path)} cannot be read: {what}.",
                digest=digest,
                advice="It says at which gateway the request was bought: mend the file, or look at each of the pool's gateways first.",
            ) from error
        return found.model_copy(update={"revision": revision})

    async def point(self, digest: str, parent: Parent | None, child: Child) -> None:
        """Make a child the current one, unless somebody else has changed the parent meanwhile: whoever goes on reads it again."""
        if parent is None:
            parent = Parent(digest=digest, current=child, tried=(child,))
        tried = tuple(dict.fromkeys((*parent.tried, child)))
        changed = parent.model_copy(update={"current": child, "tried": tried, "updated_at": _now()})
        await self._store.create(_path(digest, parent.revision + 1), (changed.model_dump_json(indent=2) + "\n").encode())


def _folder(digest: str) -> str:
    return f"journal/pools/{digest[:2]}"


def _path(digest: str, revision: int) -> str:
    return f"{_folder(digest)}/{digest}.{revision}.json"
