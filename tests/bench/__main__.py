"""Everything that is measured: `make bench`; `python -m tests.bench --small` tries the same with little, and judges nothing.

The large batches and the chains take as long as all the rest, and are parts of their own. Each figure is measured in a process of its
own, beside a baseline in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tests.bench import schedule
from tests.bench.batches import batches
from tests.bench.chains import suspended
from tests.bench.fetches import fetching
from tests.bench.journals import bookkeeping, large_journal
from tests.bench.loads import PROVIDERS_LIMIT, beside_the_providers_own, overhead
from tests.bench.measure import LITTLE, Size
from tests.bench.report import Figure, table, write_into

FIXED_S = 5.0


def polling(size: Size, scratch: Path) -> tuple[list[Figure], str]:
    """Polls and delays, on a simulated clock."""
    figures: list[Figure] = []
    for sigma in (0.1, 0.2, 0.3, 0.5):
        durations_s = schedule.lognormal(size.simulated + 200, sigma)
        waited = schedule.one_after_another(durations_s, learn=200)
        fixed = schedule.fixed_polls(durations_s[200:], FIXED_S)
        polls = statistics.mean(waited.polls)
        late = max(waited.delays_s)
        figures.append(
            Figure(
                f"polls of a job, lognormal durations around {schedule.MEDIAN_S:g} s, sigma {sigma:g}",
                f"every {FIXED_S:g} s: {fixed:.1f} polls",
                "a third of the polls, 3 % mean delay, 15 s at most",
                f"{polls:.1f} polls, **{polls / fixed:.2f} x**, {100 * waited.mean_delay:.1f} % mean delay, {late:.1f} s at most",
                polls <= fixed / 3 and waited.mean_delay <= 0.03 and late <= 15,
            )
        )
    for jobs in (1000, 10_000, 100_000):
        waited = schedule.together(schedule.lognormal(jobs, 0.2), per_s=PROVIDERS_LIMIT, sigma=0.2)
        figures.append(
            Figure(
                f"{jobs} jobs of one account submitted together, {PROVIDERS_LIMIT:g} polls a second (simulated)",
                "the provider's limit",
                f"never above {PROVIDERS_LIMIT:g} a second, no job starved",
                f"{waited.most_in_a_second} a second at most, {statistics.mean(waited.polls):.1f} polls a job, seen"
                f" {statistics.mean(waited.delays_s):.0f} s late on average; the longest wait for a poll {waited.longest_gap_s:.0f} s",
                waited.most_in_a_second <= PROVIDERS_LIMIT and waited.longest_gap_s <= jobs / PROVIDERS_LIMIT,
            )
        )
    return figures, ""


PARTS: dict[str, Sequence[Callable[[Size, Path], tuple[list[Figure], str]]]] = {
    "figures": (bookkeeping, large_journal, polling, fetching, overhead, beside_the_providers_own),
    "batches": (batches,),
    "chains": (suspended,),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="try everything with little, and judge nothing")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part")
    parser.add_argument("--page", type=Path, help="a page with a place for the figures, which they are written into")
    arguments = parser.parse_args()
    size = LITTLE if arguments.small else Size()
    for part in arguments.part or PARTS:
        figures: list[Figure] = []
        plots: list[str] = []
        with tempfile.TemporaryDirectory() as scratch:
            for measure in PARTS[part]:
                some, drawn = measure(size, Path(scratch))
                figures += some
                plots += [drawn] if drawn else []
        if arguments.small:
            figures = [replace(figure, holds=None) for figure in figures]
        text = "\n\n".join([table(figures), *plots])
        print(text)
        if arguments.page is not None:
            write_into(arguments.page, text, part)


if __name__ == "__main__":
    main()
