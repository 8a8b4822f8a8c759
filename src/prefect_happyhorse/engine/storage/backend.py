"""What a store needs from a place that keeps files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Backend", "HiddenOptions"]


class HiddenOptions(Mapping[str, Any]):
    """What opens a store, keys among it, as no traceback that prints its locals shows it."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = dict(options)

    def __getitem__(self, name: str) -> Any:
        """One of them."""
        return self._options[name]

    def __iter__(self) -> Iterator[str]:
        """Their names."""
        return iter(self._options)

    def __len__(self) -> int:
        """How many they are."""
        return len(self._options)

    def __repr__(self) -> str:
        """Nothing of them."""
        return "HiddenOptions(...)"


class Backend(Protocol):
    """How one kind of place keeps files. All paths are checked, all calls block, and a file appears whole or not at all."""

    def size(self, path: str) -> int:
        """The length of a file; FileNotFoundError when there is none."""
        ...

    def read(self, path: str) -> bytes:
        """The whole of a file; FileNotFoundError when there is none."""
        ...

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """At most so many bytes of a file, from a place on; FileNotFoundError when there is none."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Write a file, in place of one that is there."""
        ...

    def create(self, path: str, data: bytes) -> bool:
        """Write a file unless one is there; of several calls at the same time exactly one returns True."""
        ...

    def delete(self, path: str) -> None:
        """Remove a file, if there is one."""
        ...

    def names(self, path: str, start: str = "") -> list[str]:
        """The names of the files directly in a folder that begin so; none when there is no such folder."""
        ...

    def folders(self, path: str) -> list[str]:
        """The names of the folders directly in a folder; none when there is no such folder."""
        ...

    def keep(self, file: Path, path: str, *, move: bool) -> None:
        """Store a finished file; FileExistsError when a different one is there."""
        ...

    def hash(self, path: str) -> str:
        """The SHA-256 of a file, in hexadecimal; FileNotFoundError when there is none."""
        ...

    def sign(self, path: str, seconds: int) -> str:
        """An address at which anybody can read a file for that many seconds."""
        ...
