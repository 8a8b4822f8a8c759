"""Manifests in Parquet and Arrow files, read by pyarrow a few rows at a time; and which columns of which types a request can be made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, Literal, cast

from prefect_happyhorse.datasets.rows import OPTION, Choice, Use, refuse
from prefect_happyhorse.domain.errors import InvalidRequest

__all__ = ["pyarrow_module", "read_arrow"]

_ROWS_AT_ONCE = 256
_BUFFER_BYTES = 1024 * 1024

Kind = Literal["text", "number", "truth", "medium", "media", "voices", "options", "option", "request", "id", "words"]

_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("capability", "model", "prompt", "negative_prompt", "resolution", "aspect_ratio", "size", "credentials"), "text"),
    **dict.fromkeys(("duration", "seed", "n", "take"), "number"),
    "watermark": "truth",
    **dict.fromkeys(("image", "mask", "first_frame", "last_frame", "clip", "video", "audio"), "medium"),
    "voice": "voices",
    **dict.fromkeys(("references", "reference_videos"), "media"),
    "options": "options",
    "request": "request",
    "id": "id",
}
"""What the column of each field holds."""

_TYPES: Mapping[Kind, tuple[str, ...]] = {
    "text": ("text",),
    # A whole number that may be missing becomes a float in pandas; what is no whole number is a problem of its own row.
    "number": ("integer", "float", "text"),
    "truth": ("bool", "integer", "text"),
    "medium": ("text", "struct"),
    "media": ("list", "text"),
    "voices": ("text", "struct", "list"),
    "options": ("struct", "map"),
    "option": ("text", "integer", "float", "bool"),
    "request": ("text", "struct"),
    "id": ("text", "integer"),
    "words": ("text", "integer", "float", "bool", "date"),
}
"""The types that serve as each."""


def pyarrow_module(name: str, *, what: str) -> Any:
    """A module of pyarrow; where that is not installed, ImportError with the way out."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f"{what} needs more: pip install 'prefect-happyhorse[data]' ({error}). Nothing was sent.") from error


def read_arrow(file: Any, name: str, choice: Choice) -> Iterator[dict[str, Any] | Exception]:
    """The rows of a Parquet file, or of an Arrow file or stream, told apart by their first bytes; a null is None."""
    pyarrow = pyarrow_module("pyarrow", what="Reading Parquet and Arrow")
    head = bytes(file.read(6))
    file.seek(0)
    read = _parquet if head[:4] == b"PAR1" else _ipc_file if head == b"ARROW1" else _ipc_stream
    try:
        for batch in read(file, name, choice):
            for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
                yield from _rows(batch.slice(start, _ROWS_AT_ONCE))
    except (pyarrow.ArrowException, OSError) as error:
        # What is wrong with the bytes is an error of the system's kind too for pyarrow, but one without a number.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        why = " ".join(str(error).split()).removesuffix(".")
        raise InvalidRequest(f"{name} cannot be read, or not to its end: {why}. Nothing was sent.") from error


def _parquet(file: Any, name: str, choice: Choice) -> Iterator[Any]:
    # Not a whole row group at a time, of which some writers make but one.
    opened = import_module("pyarrow.parquet").ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES)
    chosen = _checked(opened.schema_arrow, name, choice)
    yield from opened.iter_batches(batch_size=_ROWS_AT_ONCE, columns=chosen)


def _ipc_file(file: Any, name: str, choice: Choice) -> Iterator[Any]:
    ipc = import_module("pyarrow.ipc")
    opened = ipc.open_file(file)
    chosen = [opened.schema.get_field_index(column) for column in _checked(opened.schema, name, choice)]
    reader = ipc.open_file(file, options=ipc.IpcReadOptions(included_fields=chosen))
    for position in range(reader.num_record_batches):
        yield reader.get_batch(position)


def _ipc_stream(file: Any, name: str, choice: Choice) -> Iterator[Any]:
    reader = import_module("pyarrow.ipc").open_stream(file)
    chosen = _checked(reader.schema, name, choice)
    for batch in reader:
        yield batch.select(chosen)


def _rows(batch: Any) -> Iterator[dict[str, Any] | Exception]:
    try:
        found: list[dict[str, Any]] = batch.to_pylist()
    except (ValueError, OverflowError) as error:
        if batch.num_rows == 1:
            # Such as bytes in a text that are no UTF-8.
            yield error
        else:
            for position in range(batch.num_rows):
                yield from _rows(batch.slice(position, 1))
    else:
        for row in found:
            try:
                yield {column: _cleaned(value, batch.schema.field(column).type) for column, value in row.items()}
            except ValueError as error:
                yield error


def _cleaned(value: Any, kind: Any) -> Any:
    """A value without the fields that its row does not set, and a map as a dict."""
    pyarrow = import_module("pyarrow")
    types = pyarrow.types
    if types.is_dictionary(kind):
        return _cleaned(value, kind.value_type)
    if isinstance(kind, pyarrow.BaseExtensionType):
        return _cleaned(value, kind.storage_type)
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {name: _cleaned(one, kind.field(name).type) for name, one in fields.items() if one is not None}
    if not isinstance(value, list):
        return value
    items = cast("list[Any]", value)
    if not types.is_map(kind):
        return [_cleaned(one, kind.value_type) for one in items]
    found = {name: _cleaned(one, kind.item_type) for name, one in items}
    if len(found) < len(items):
        raise ValueError(f"a map must have each of its keys once (got {', '.join(repr(name) for name, _ in items)})")
    return found


def _checked(schema: Any, name: str, choice: Choice) -> list[str]:
    """The columns that are needed, each once, unless some are missing or of a type that does not do."""
    uses, problems = choice(schema.names)
    for use in uses:
        kind = _kind(use)
        if kind is None or schema.names.count(use.column) != 1:
            continue
        got = schema.field(use.column).type
        if _type_name(got) not in (*_TYPES[kind], "null"):
            problems.append(f"column {use.column!r} must hold {' or '.join(_TYPES[kind])} for {use.field} (got {got})")
    refuse(name, problems)
    return list(dict.fromkeys(use.column for use in uses))


def _kind(use: Use) -> Kind | None:
    if not use.whole:
        return "words"
    return "option" if use.field.startswith(OPTION) else _KINDS.get(use.field)


def _type_name(kind: Any) -> str:
    """The name of a type as `_TYPES` has it."""
    pyarrow = import_module("pyarrow")
    types = pyarrow.types
    if types.is_dictionary(kind):
        return _type_name(kind.value_type)
    if isinstance(kind, pyarrow.BaseExtensionType):
        return _type_name(kind.storage_type)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return "list" if _type_name(kind.value_type) in {"text", "struct", "null"} else str(kind)
    names = {
        "null": types.is_null(kind),
        "text": types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind),
        "bool": types.is_boolean(kind),
        "integer": types.is_integer(kind),
        "float": types.is_floating(kind) or types.is_decimal(kind),
        "date": types.is_date(kind) or types.is_timestamp(kind) or types.is_time(kind),
        "struct": types.is_struct(kind),
        "map": types.is_map(kind),
    }
    return next((name for name, fits in names.items() if fits), str(kind))
