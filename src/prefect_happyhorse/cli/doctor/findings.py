"""What the doctor found."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["Finding", "Level", "ok", "problem", "warning"]

Level = Literal["ok", "warning", "problem"]


class Finding(NamedTuple):
    """One line: what was looked at, how it is, and what to do."""

    level: Level
    check: str
    what: str
    advice: str = ""


def ok(check: str, what: str) -> Finding:
    """All is well."""
    return Finding("ok", check, what)


def warning(check: str, what: str, advice: str) -> Finding:
    """It works, and somebody should look."""
    return Finding("warning", check, what, advice)


def problem(check: str, what: str, advice: str) -> Finding:
    """It does not work."""
    return Finding("problem", check, what, advice)
