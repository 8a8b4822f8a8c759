"""Which ids there were already."""

from __future__ import annotations

import hashlib
import sqlite3

__all__ = ["Ids"]


class Ids:
    """The ids of any number of rows, each with the row that had it first, in constant memory.

    SQLite keeps what does not fit into its cache in a file that goes with it.

    Example:
        >>> ids = Ids()
        >>> ids.first("horse", 1), ids.first("foal", 2), ids.first("horse", 3)
        (1, 2, 1)
        >>> ids.close()
    """

    def __init__(self) -> None:
        # A generator may be driven by one thread after another, and so is this.
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE ids (digest BLOB PRIMARY KEY, row INTEGER) WITHOUT ROWID")
        self._database.execute("BEGIN")

    def first(self, id: str, row: int) -> int:
        """The row that has an id first: this one, unless an earlier one has it."""
        digest = hashlib.blake2b(id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if self._database.execute("INSERT OR IGNORE INTO ids VALUES (?, ?)", (digest, row)).rowcount == 1:
            return row
        (earlier,) = self._database.execute("SELECT row FROM ids WHERE digest = ?", (digest,)).fetchone()
        return int(earlier)

    def close(self) -> None:
        """Remove all that was kept."""
        self._database.close()
