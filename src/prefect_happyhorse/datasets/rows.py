"""The rows of a manifest as values, and where columns go in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationError

from prefect_happyhorse.domain.errors import InvalidRequest
from prefect_happyhorse.domain.requests import REQUEST_CLASSES, GenerationRequest, WholeNumber
from prefect_happyhorse.domain.validation import validation_problems
from prefect_happyhorse.domain.values import Value

__all__ = [
    "MANY",
    "OPTION",
    "OWN",
    "REQUEST_FIELDS",
    "BadRow",
    "Choice",
    "ManifestFormat",
    "Record",
    "Row",
    "Use",
    "cell_value",
    "nested",
    "refuse",
]

ManifestFormat = Literal["jsonl", "csv", "parquet", "arrow", "huggingface"]
"""How a manifest is written; the last is a folder as the package `datasets` or the Hub keeps it."""

Record = tuple[int, "dict[str, Any] | Exception"]
"""The number of a row and its columns, or why it has none."""


class Use(NamedTuple):
    """What a column is used for: a field, `id`, or a part of a field's text."""

    column: str
    field: str
    whole: bool = True


Choice = Callable[[list[str]], tuple[list[Use], list[str]]]
"""Chooses among the columns of a file, and says what is wrong with them."""

MANY = ("references", "reference_videos")
"""The fields that hold several media; in a text they stand apart by `|`."""

OWN = ("credentials", "take")
"""The columns that are the row's own and no part of its request."""

OPTION = "options."
"""What the column of a single option begins with."""

REQUEST_FIELDS = frozenset(name for kind in REQUEST_CLASSES.values() for name in kind.model_fields)
"""The fields that a request may have."""

_MAX_TOLD_CHARS = 1000


class Row(Value):
    """One row of a manifest: a request, and what is the row's own.

    Example:
        >>> Row(row=1, id="1", request={"capability": "text_to_image", "model": "gpt-image-2", "prompt": "A horse"}).take
        1
    """

    row: int = Field(description="Where it stands: the line of a text file, else the number of the row; counted from 1.")
    id: str = Field(description="The row's own id; without a column for it the number as text.")
    request: GenerationRequest
    credentials: str | None = Field(default=None, description="Who pays, where the row says so.")
    take: WholeNumber = Field(default=1, ge=1, description="Another number makes another variation of the very same request.")


class BadRow(Value):
    """A row that is no request, and why."""

    row: int = Field(description="Where it stands, as in a `Row`.")
    id: str = Field(description="The row's own id, as far as it can be told; else the number as text.")
    error: str = Field(description="What is wrong with it, every problem at once.")

    @classmethod
    def of(cls, row: int, id: str, error: Exception) -> BadRow:
        """A bad row for what was raised about it."""
        return cls(row=row, id=_utf8(id), error=_told(error))


def _told(error: Exception) -> str:
    """What was raised about a row, in one line of bounded length."""
    why = "; ".join(validation_problems(error)) if isinstance(error, ValidationError) else str(error)
    text = _utf8(f"{type(error).__name__}: {why}")
    return text if len(text) <= _MAX_TOLD_CHARS else f"{text[:_MAX_TOLD_CHARS]} ..."


def _utf8(text: str) -> str:
    # A lone surrogate, which is how a byte that is no UTF-8 was read, can neither be shown nor kept.
    return text.encode("utf-8", "backslashreplace").decode()


def cell_value(field: str, text: str) -> Any:
    """What a text means that stands for a field: several media apart by `|`, an option as the number or truth value that it is."""
    if field in MANY:
        return [part.strip() for part in text.split("|")]
    return _option(text) if field.startswith(OPTION) else text


def _option(text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, (bool, int, float)) else text


def nested(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a request, with the columns of single options where they belong."""
    request = {name: value for name, value in fields.items() if not name.startswith(OPTION)}
    if options := {name.removeprefix(OPTION): value for name, value in fields.items() if name.startswith(OPTION)}:
        given = request.get("options", {})
        if not isinstance(given, Mapping):
            raise ValueError(f"options must be a mapping of names and values (got {type(given).__name__})")
        request["options"] = {**given, **options}
    return request


def refuse(name: str, problems: Sequence[str]) -> None:
    """Refuse a manifest of which some columns do not do, unless there is no such."""
    if problems:
        raise InvalidRequest(f"The columns of {name} make no requests. Nothing was sent.", problems=tuple(problems))
