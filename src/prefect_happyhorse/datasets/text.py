"""Manifests that are text: JSON lines and CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from io import BufferedReader
from itertools import zip_longest
from typing import Any, cast

from prefect_happyhorse.datasets.rows import Choice, Record, refuse
from prefect_happyhorse.domain.errors import InvalidRequest
from prefect_happyhorse.engine.storage.fsspec_backend import translated

__all__ = ["read_csv", "read_jsonl"]

_MAX_LINE_BYTES = 64 * 1024 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class _Lines:
    """The lines of a file, of bounded length, as bytes; one that is too long raises ValueError, and the next goes on after it."""

    def __init__(self, file: BufferedReader, name: str) -> None:
        self._file = file
        self._name = name
        self.number = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> bytes:
        # Not at every end of a line that Unicode knows: JSON may hold some of them inside a text.
        line = self._read()
        if not line:
            raise StopIteration
        self.number += 1
        if self.number == 1:
            # A spreadsheet puts a byte order mark in front of its CSV.
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if len(line) > _MAX_LINE_BYTES:
            while line and not line.endswith(b"\n"):
                line = self._read()
            raise ValueError(f"a line must have at most {_MAX_LINE_BYTES:,} bytes")
        return line

    def _read(self) -> bytes:
        with translated(self._name):
            return self._file.readline(_MAX_LINE_BYTES + 1)


def read_jsonl(file: BufferedReader, name: str) -> Iterator[Record]:
    """The lines of a file that hold anything, each as a JSON object or as what was raised instead."""
    lines = _Lines(file, name)
    while True:
        try:
            line = next(lines)
            data = json.loads(line.decode()) if line.strip() else None
            if line.strip() and not isinstance(data, dict):
                raise ValueError("a row is a JSON object")
        except StopIteration:
            return
        except (ValueError, RecursionError) as error:
            yield lines.number, error
        else:
            if data is not None:
                yield lines.number, cast("dict[str, Any]", data)


def read_csv(file: BufferedReader, name: str, choice: Choice) -> Iterator[Record]:
    """The rows below a head line, each with its cells, an empty one as None, or what was raised instead."""
    lines = _Lines(file, name)
    # What is no UTF-8 is a problem of its own row.
    texts = map(_decoded, lines)
    reader = csv.reader(texts, strict=True)
    try:
        head: list[str] = next(reader, cast("list[str]", []))
    except (ValueError, csv.Error) as error:
        raise InvalidRequest(f"{name} has no head line that can be read: {error}. Nothing was sent.") from error
    _, problems = choice([column for column in head if column])
    refuse(name, problems)
    while True:
        try:
            cells = next(reader)
            if len(cells) > len(head):
                raise ValueError(f"the row has {len(cells)} cells, and the head line {len(head)}")
        except StopIteration:
            return
        except csv.Error as error:
            yield lines.number, ValueError(str(error))
        except ValueError as error:
            yield lines.number, error
        else:
            if cells:
                yield lines.number, {column: cell or None for column, cell in zip_longest(head, cells) if column}


def _decoded(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape")
