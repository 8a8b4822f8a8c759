"""How the figures are shown: a table, a plot, and the part of a page that they are written into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_BEGIN, _END = "<!-- {part}: begin (written by `make bench`) -->", "<!-- {part}: end -->"


@dataclass(frozen=True)
class Figure:
    """One measured figure beside what it is measured against.

    Args:
        what: What was measured.
        baseline: What stands beside it in the same run.
        reach: What it is to reach, in words.
        found: What was found, in words.
        holds: Whether it reaches it; None where nothing is to be reached.
    """

    what: str
    baseline: str
    reach: str
    found: str
    holds: bool | None


def table(figures: Sequence[Figure]) -> str:
    """The figures as a Markdown table."""
    verdict = {True: "holds", False: "**misses**", None: ""}
    rows = [(one.what, one.baseline, one.reach, one.found, verdict[one.holds]) for one in figures]
    head = ("what", "beside it, in the same run", "to reach", "found", "")
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * 5, *rows))


def plot(title: str, unit: str, lines: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """Lines over the number of jobs, as a chart that Markdown viewers draw."""
    jobs = [str(count) for count, _ in next(iter(lines.values()))]
    top = max(value for line in lines.values() for _, value in line) * 1.1
    drawn = "\n".join(f"    line [{', '.join(f'{value:.2f}' for _, value in line)}]" for line in lines.values())
    return (
        f'```mermaid\nxychart-beta\n    title "{title}: {", ".join(lines)} (from the lowest line to the highest, at the right)"\n'
        f'    x-axis "jobs at once" [{", ".join(jobs)}]\n    y-axis "{unit}" 0 --> {top:.1f}\n{drawn}\n```'
    )


def write_into(page: Path, text: str, part: str) -> None:
    """Put the figures of a part where the page has its place for them."""
    begin, end = _BEGIN.format(part=part), _END.format(part=part)
    before, _, rest = page.read_text().partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{page} has no place for figures: {begin} ... {end}")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")
