"""The files of a journal: how their names tell digest and revision, and how an entry is written to and read from one."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from prefect_happyhorse.domain.errors import SubmissionUncertain
from prefect_happyhorse.engine.journal.entry import JournalEntry

__all__ = [
    "INDEX",
    "LEASES",
    "dumped_entry",
    "entry_path",
    "entry_start",
    "index_path",
    "is_of_earlier_form",
    "is_prefix",
    "lease_path",
    "read_entry",
    "revision_of",
    "written_entry",
]

INDEX = "journal/index"
LEASES = "journal/leases"

_NAME = re.compile(r"([^/]+)\.([1-9][0-9]{0,8})\.json")
_PLAIN = frozenset({str, int, float, bool, type(None), datetime})
_EARLIER_FILE = re.compile(r"[0-9a-f]{64}\.json")


def entry_path(digest: str, revision: int) -> str:
    """Where a revision of an entry lies in the store."""
    return f"{entry_start(digest)}{revision}.json"


def entry_start(digest: str) -> str:
    """With what the paths of all revisions of an entry begin."""
    return f"journal/{digest[:2]}/{digest}."


def lease_path(digest: str, revision: int) -> str:
    """Where the lease of an intent is renewed."""
    return f"{LEASES}/{digest}.{revision}.json"


def index_path(part: str, *, is_open: bool = False) -> str:
    """Where a part of the index lies in the store: of the closed or the open entries whose digests have the same first character."""
    return f"{INDEX}/{part}{'.open' if is_open else ''}.json"


def is_prefix(folder: str) -> bool:
    """Whether a folder directly in the journal's folder holds entries."""
    return len(folder) <= 2


def revision_of(name: str) -> tuple[str, int] | None:
    """The digest and the revision that a file's name tells, or None where it is no entry's and no lease's."""
    found = _NAME.fullmatch(name)
    return None if found is None else (found[1], int(found[2]))


def is_of_earlier_form(name: str) -> bool:
    """Whether a file directly in the journal's folder is an entry of an unreleased version."""
    return _EARLIER_FILE.fullmatch(name) is not None


def written_entry(entry: JournalEntry) -> bytes:
    """An entry as its file holds it, with the fields that only a later version knows."""
    # With an indent, Python's own `json` takes six times as long.
    return to_json(dumped_entry(entry), indent=2) + b"\n"


def dumped_entry(entry: JournalEntry) -> dict[str, Any]:
    """An entry as it is written, in values of JSON."""
    return _with_unknown(entry, entry.model_dump(mode="json", exclude_none=True))


def _with_unknown(value: object, dumped: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_with_unknown(one, other) for one, other in zip(cast("list[object]", value), dumped, strict=True)]
    if not isinstance(value, BaseModel):
        return dumped
    for name, one in vars(value).items():
        # Nearly all of it is texts, times and numbers, for which nothing has to be called.
        if type(one) not in _PLAIN and name in dumped:
            dumped[name] = _with_unknown(one, dumped[name])
    return dumped | value.model_extra if value.model_extra else dumped


def read_entry(digest: str, revision: int, content: bytes | str, *, file: str) -> JournalEntry:
    """The entry of a file; SubmissionUncertain where it cannot be read, or is another's."""
    try:
        # A later version may know fields that this one does not: they are kept, and written back.
        entry = JournalEntry.model_validate_json(content, extra="allow")
    except (ValidationError, RecursionError) as error:
        count = f"{error.error_count()} problems" if isinstance(error, ValidationError) else "it is nested too deeply"
        problem = f"cannot be read: {count}"
    else:
        if entry.digest == digest:
            return entry.model_copy(update={"revision": revision})
        problem = f"is of another request, {entry.digest[:12]}: it was copied or renamed"
    raise SubmissionUncertain(
        f"The journal entry {file} {problem}.",
        digest=digest,
        advice=f"Mend the file; or, if you know that nothing was bought under it: happyhorse jobs forget {file.rpartition('/')[2]}",
    )
