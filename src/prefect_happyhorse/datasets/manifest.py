"""Reading a manifest, whatever its format, a row at a time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from io import BufferedReader
from itertools import count
from pathlib import PurePosixPath
from typing import Any, cast

from prefect_happyhorse.datasets.arrow import read_arrow
from prefect_happyhorse.datasets.files import data_files
from prefect_happyhorse.datasets.ids import Ids
from prefect_happyhorse.datasets.rows import (
    MANY,
    OPTION,
    OWN,
    REQUEST_FIELDS,
    BadRow,
    ManifestFormat,
    Record,
    Row,
    Use,
    cell_value,
    nested,
)
from prefect_happyhorse.datasets.template import Template
from prefect_happyhorse.datasets.text import read_csv, read_jsonl
from prefect_happyhorse.engine.storage.fsspec_backend import open_filesystem, translated

__all__ = ["read_manifest"]

_REQUEST = "request"
_ENDINGS: Mapping[str, ManifestFormat] = {
    ".csv": "csv",
    ".json": "jsonl",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
}


def read_manifest(
    manifest: str,
    *,
    format: ManifestFormat | None = None,
    template: Mapping[str, str] | None = None,
    id_column: str | None = None,
) -> Iterator[Row | BadRow]:
    """Read a manifest a row at a time: memory does not grow with their number. It blocks: in async code, run it in a thread.

    A row is a request in columns, one a field, or whole in a column `request`, as JSON, beside which further columns are left alone. It
    may have the columns `credentials` and `take`, and `options.NAME` for a single option. In a text several media stand apart by `|`. An
    empty cell of CSV is not set, nor is a null of Parquet or Arrow.

    Args:
        manifest: A path or an fsspec URL of a file, of a folder in which Hugging Face's `datasets` or its Hub keep a split, or of several
            files of one such by a pattern: `"shots/data/train-*.parquet"`.
        format: How it is written; by default its ending says so, and JSON lines are what has none that is known. Parquet, Arrow files and
            Arrow streams are told apart by their first bytes.
        template: For each field a text over columns such as `"A {animal} in {city}"`; one that is a column alone takes its value as it
            is. Columns that it does not name are left alone. `capability` and `model` must be among the fields.
        id_column: The column of the row's own id, a text or a whole number that no other row has; by default the id is the row's number.

    Yields:
        Each row, in order: a `Row`, or a `BadRow` where it is no request or its id is another's.

    Raises:
        InvalidRequest: When the template cannot make a request, a column is missing, unknown or of a wrong type, or the file is none of its
            format; all problems at once.
        ImportError: When the extra `data` is needed and not installed.
        OSError: When the manifest cannot be read.

    Example:
        ```python
        template = {"capability": "text_to_image", "model": "gpt-image-2", "prompt": "A {animal}"}
        requests = [row.request for row in read_manifest("animals.parquet", template=template) if isinstance(row, Row)]
        ```
    """
    return _Reading(manifest, format, None if template is None else Template(template), id_column).rows()


class _Reading:
    """A manifest and how to read it."""

    def __init__(self, manifest: str, form: ManifestFormat | None, template: Template | None, id_column: str | None) -> None:
        self._manifest = manifest
        self._format = form
        self._template = template
        self._id_column = id_column

    def rows(self) -> Iterator[Row | BadRow]:
        """See `read_manifest`."""
        with closing(Ids()) as ids:
            for number, record in self._records():
                yield self._row(number, record, ids)

    def _row(self, number: int, record: dict[str, Any] | Exception, ids: Ids) -> Row | BadRow:
        name = str(number)
        if isinstance(record, Exception):
            return BadRow.of(number, name, record)
        try:
            if self._id_column is not None:
                name = _id_of(record, self._id_column)
                if (earlier := ids.first(name, number)) != number:
                    raise ValueError(f"the id {name!r} must be of one row alone (row {earlier} has it already)")
            fields = self._fields(record)
            own = {field: fields.pop(field) for field in OWN if field in fields}
            row = Row.model_validate({"row": number, "id": name, "request": nested(fields), **own})
            # Half of a surrogate pair can stand in a text of Python's, and be written nowhere.
            row.model_dump_json()
            return row
        except (ValueError, RecursionError, OverflowError) as error:
            return BadRow.of(number, name, error)

    def _fields(self, record: Mapping[str, Any]) -> dict[str, Any]:
        if self._template is not None:
            return self._template.fill(record)
        if _REQUEST in record:
            request: Any = record[_REQUEST]
            request = json.loads(request) if isinstance(request, str) else request
            if not isinstance(request, dict):
                raise ValueError("the column 'request' must hold a JSON object")
            return {**cast("dict[str, Any]", request), **{name: record[name] for name in OWN if record.get(name) is not None}}
        return {
            name: cell_value(name, value) if isinstance(value, str) and (name in MANY or self._form == "csv") else value
            for name, value in record.items()
            # A null of JSON was written by somebody; of another format it is a cell that is not set.
            if (name != self._id_column or name in REQUEST_FIELDS) and (value is not None or self._form == "jsonl")
        }

    def _choose(self, columns: list[str]) -> tuple[list[Use], list[str]]:
        """Which columns are used, and for what; and what is wrong with them."""
        if self._template is not None:
            uses = [Use(*use) for use in self._template.uses]
        elif _REQUEST in columns:
            uses = [Use(name, name) for name in (_REQUEST, *OWN) if name in columns]
        else:
            uses = [Use(name, name) for name in columns if name != self._id_column or name in REQUEST_FIELDS]
        if self._id_column is not None:
            uses.append(Use(self._id_column, "id"))
        known = (*sorted(REQUEST_FIELDS), *OWN, f"{OPTION}NAME", _REQUEST)
        problems: list[str] = []
        for column in dict.fromkeys(use.column for use in uses):
            fields = " and ".join(dict.fromkeys(use.field for use in uses if use.column == column))
            if column not in columns:
                problems.append(f"column {column!r}, wanted for {fields}, is missing; there are {', '.join(map(repr, columns)) or 'none'}")
            elif Counter(columns)[column] > 1:
                problems.append(f"column {column!r} is there {Counter(columns)[column]} times")
        taken = {*REQUEST_FIELDS, *OWN, _REQUEST, "id"}
        if unknown := [use.column for use in uses if use.field not in taken and not use.field.startswith(OPTION)]:
            names = ", ".join(map(repr, unknown))
            problems.append(f"a column must be a field of a request (got {names}): {', '.join(known)}; a template leaves others alone")
        return uses, problems

    def _records(self) -> Iterator[Record]:
        with translated(self._manifest):
            fs, path = open_filesystem(self._manifest, {})
            self._form = self._format or _ENDINGS.get(PurePosixPath(path).suffix.lower()) or self._form_of(fs, path)
        files = data_files(fs, path, self._manifest) if self._form in {"parquet", "arrow", "huggingface"} else [path]
        numbers = count(1)
        for file in files:
            name = self._manifest if file == path else fs.unstrip_protocol(file)
            with translated(name):
                opened = fs.open(file, "rb")
            with opened:
                if self._form in {"parquet", "arrow", "huggingface"}:
                    for record in read_arrow(opened, name, self._choose):
                        yield next(numbers), record
                    continue
                with BufferedReader(opened) as lines:
                    yield from read_csv(lines, name, self._choose) if self._form == "csv" else read_jsonl(lines, name)

    def _form_of(self, fs: Any, path: str) -> ManifestFormat:
        return "huggingface" if fs.isdir(path) else "jsonl"


def _id_of(record: Mapping[str, Any], column: str) -> str:
    value = record.get(column)
    if value is None or value == "":
        raise ValueError(f"the row has no id: its column {column!r} is {'empty' if column in record else 'missing'}")
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"an id must be a text or a whole number (column {column!r} holds {value!r})")
    return str(value)
