"""A request's fields as format strings over the columns of a data set."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from string import Formatter
from typing import Any, NamedTuple, cast

from prefect_happyhorse.datasets.rows import MANY, OPTION, OWN, REQUEST_FIELDS, cell_value
from prefect_happyhorse.domain.errors import InvalidRequest

__all__ = ["Template"]

_FORMATTER = Formatter()
_NEEDED = ("capability", "model")
_NO_WORDS = (dict, list, bytes)
_LONG_NUMBER = re.compile(r"[0-9]{4}")


class _Part(NamedTuple):
    literal: str
    column: str | None
    spec: str
    conversion: str | None


class Template:
    """Fields of a request, and of a row, each as a format string over columns.

    Args:
        fields: For a field of the request, for `options.NAME`, `credentials` or `take` a text such as `"A {animal} in {city}"`. One that is
            a column alone, such as `"{seed}"`, takes the column's value as it is, and is not set where that is empty.

    Raises:
        InvalidRequest: When it cannot make a request; all problems at once.

    Example:
        >>> template = Template({"capability": "text_to_image", "model": "gpt-image-2", "prompt": "A {animal} in {city}"})
        >>> template.fill({"animal": "horse", "city": "Paris", "year": 1900})["prompt"]
        'A horse in Paris'
    """

    def __init__(self, fields: Mapping[str, str]) -> None:
        problems = [f"template: {name} must be given" for name in _NEEDED if name not in fields]
        self._fields: dict[str, list[_Part]] = {}
        for name, text in fields.items():
            try:
                self._fields[name] = list(_parts(name, text))
            except ValueError as error:
                problems.append(f"template: {name} {error}")
        if problems:
            raise InvalidRequest("The template makes no request. Nothing was sent.", problems=tuple(problems))

    @property
    def uses(self) -> Iterator[tuple[str, str, bool]]:
        """For each use of a column the column, the field, and whether the field is that column alone."""
        for name, parts in self._fields.items():
            for part in parts:
                if part.column is not None:
                    yield part.column, name, _is_column_alone(parts)

    @property
    def columns(self) -> frozenset[str]:
        """The columns that it names."""
        return frozenset(column for column, _, _ in self.uses)

    def fill(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The fields that it makes of a row's columns; ValueError where a column is missing, or empty inside a text."""
        filled: dict[str, Any] = {}
        for name, parts in self._fields.items():
            if missing := [part.column for part in parts if part.column is not None and part.column not in record]:
                raise ValueError(f"the template's {name} names the column {missing[0]!r}, which the row does not have")
            alone = _is_column_alone(parts)
            if name in MANY:
                _check_media(name, parts, record)
            value = record[parts[0].column or ""] if alone else "".join(_rendered(name, part, record) for part in parts)
            if value is not None and value != "":
                filled[name] = cell_value(name, value) if isinstance(value, str) else value
        return filled


def _parts(name: str, text: object) -> Iterator[_Part]:
    if name not in REQUEST_FIELDS and name not in OWN and not name.startswith(OPTION):
        raise ValueError(f"is no field of a request; known are {', '.join(sorted(REQUEST_FIELDS | set(OWN)))} and {OPTION}NAME")
    if not isinstance(text, str):
        raise ValueError(f"must be a text such as 'A {{animal}}' (got {text!r})")
    for literal, column, spec, conversion in _FORMATTER.parse(text):
        if column == "":
            raise ValueError(f"has a {{}} that names no column (got {text!r}); a brace of the text itself is doubled")
        if spec and "{" in spec:
            raise ValueError(f"must not name a column inside of another's format (got {text!r})")
        if spec and _LONG_NUMBER.search(spec):
            raise ValueError(f"must not be made longer than 999 characters by a format (got {text!r})")
        yield _Part(literal, column, spec or "", conversion)


def _is_column_alone(parts: list[_Part]) -> bool:
    return len(parts) == 1 and not parts[0].literal and not parts[0].spec and parts[0].conversion is None


def _check_media(name: str, parts: list[_Part], record: Mapping[str, Any]) -> None:
    """Refuse several media in a column that is but a part of one."""
    for position, part in enumerate(parts):
        after = "|" if position + 1 == len(parts) else parts[position + 1].literal
        is_whole = (part.literal or "|" * (position == 0)).endswith("|") and after.startswith("|")
        value = record[part.column] if part.column is not None else None
        if isinstance(value, str) and "|" in value and not is_whole:
            raise ValueError(f"the template's {name} cannot hold several media of the column {part.column!r} inside of one (got {value!r})")


def _rendered(name: str, part: _Part, record: Mapping[str, Any]) -> str:
    if part.column is None:
        return part.literal
    value: object = record[part.column]
    if value is None or value == "":
        raise ValueError(f"the template's {name} needs the column {part.column!r}, which is empty")
    if isinstance(value, _NO_WORDS):
        kind = type(cast("object", value)).__name__
        raise ValueError(f"the template's {name} cannot hold the column {part.column!r} as a text (it is of type {kind})")
    converted: Any = _FORMATTER.convert_field(value, part.conversion)  # pyright: ignore[reportArgumentType] -- None stands for no conversion
    return part.literal + format(converted, part.spec)
