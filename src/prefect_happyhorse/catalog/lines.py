"""Where in a gateway's data a problem is: TOML's own parser keeps no places, so they are found by table headers and keys."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["line_of"]

_HEADER = re.compile(r"\s*\[")


def line_of(text: str, place: Sequence[str | int]) -> int:
    r"""The line of a place such as `("gateway", "auth")`, or of the table that it should stand in; 1 where there is none.

    Example:
        >>> line_of('[gateway]\ntitle = "Stable"\n', ("gateway", "title"))
        2
    """
    lines = text.splitlines()
    steps = list(place)
    begin = 0
    if steps[1:] and isinstance(steps[1], int):
        headers = [number for number, line in enumerate(lines) if line.strip() == f"[[{steps[0]}]]"]
        begin, steps = (headers[steps[1]] if steps[1] < len(headers) else 0), steps[2:]
    else:
        # The longest header counts: "gateway.codes" may be a table of its own, or a key of "gateway".
        for length in range(len(steps), 0, -1):
            name = ".".join(map(str, steps[:length]))
            found = [number for number, line in enumerate(lines) if line.strip() == f"[{name}]"]
            if found:
                begin, steps = found[0], steps[length:]
                break
    return 1 + _below(lines, begin, steps)


def _below(lines: Sequence[str], begin: int, steps: Sequence[str | int]) -> int:
    """The line of a key below a header, or of an entry of the array behind it."""
    at = begin
    if steps and isinstance(key := steps[0], str):
        table = _table(lines, begin)
        at = next((number for number in table if re.match(rf'\s*"?{re.escape(key)}"?\s*=', lines[number])), begin)
        if steps[1:] and isinstance(entry := steps[1], int) and at != begin:
            entries = [number for number in table if number > at and lines[number].lstrip().startswith("{")]
            at = entries[entry] if entry < len(entries) else at
    return at


def _table(lines: Sequence[str], begin: int) -> range:
    end = next((number for number in range(begin + 1, len(lines)) if _HEADER.match(lines[number])), len(lines))
    return range(begin + 1, end)
