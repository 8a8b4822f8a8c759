"""Lines of a file `.env`, which a shell, Compose, systemd and Prefect read alike."""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Collection, Mapping
from pathlib import Path

from prefect_happyhorse.engine.storage.local import replace_file

__all__ = ["merged", "read", "values", "write"]

_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*?)\s*$")
_MODE = 0o600


def read(file: Path) -> str:
    """What the file holds; nothing where there is none."""
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def values(text: str) -> dict[str, str]:
    r"""The variables that the text sets and that can be read.

    Example:
        >>> values("# A=0\nA=1\nexport B='3 4'\n")
        {'A': '1', 'B': '3 4'}
    """
    found = [line for line in map(_LINE.match, text.splitlines()) if line is not None]
    return {line[1]: value for line in found if (value := _value(line[2])) is not None}


def merged(text: str, values: Mapping[str, str], gone: Collection[str] = ()) -> tuple[str, list[str]]:
    r"""The text with these variables, each in its line where it had one already, and the names of those that were other before.

    Args:
        text: What the file holds.
        values: What it is to set.
        gone: What it is not to set any more.

    Example:
        >>> merged("A=1\nB=2\n", {"B": "3 4", "C": "5"})
        ("A=1\nB='3 4'\nC=5\n", ['B'])
    """
    if wrong := [name for name, value in values.items() if not value.isprintable() or set(value) & set("'\\\\")]:
        raise ValueError(
            f"{', '.join(wrong)} must hold no quote, backslash or line break, which not all read alike in .env: use --save blocks"
        )
    left = dict(values)
    changed: list[str] = []
    lines: list[str] = []
    for line in text.splitlines():
        found = _LINE.match(line)
        name = found[1] if found else ""
        if name in gone:
            changed.append(name)
            continue
        if name not in values:
            lines.append(line)
            continue
        left.pop(name, None)
        same = found is not None and _value(found[2]) == values[name]
        if not same and name not in changed:
            changed.append(name)
        lines.append(line if same else _written(name, values[name]))
    lines += [_written(name, value) for name, value in left.items()]
    return "\n".join(lines) + "\n", changed


def _written(name: str, value: str) -> str:
    return f"{name}={shlex.quote(value)}"


def _value(text: str) -> str | None:
    try:
        return "".join(shlex.split(text, comments=True))
    except ValueError:
        return None


def write(file: Path, text: str) -> bool:
    """Write the file for its owner alone, where the system knows that; whether others could read it before."""
    # A link stays one.
    target = file.resolve()
    # Windows shows a mode that says nothing of who may read.
    was_open = os.name != "nt" and target.exists() and bool(stat.S_IMODE(target.stat().st_mode) & ~_MODE)
    replace_file(target, text.encode(), mode=_MODE)
    return was_open
