"""What the journal costs, small and large, and the import."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.bench import journal
from tests.bench.gallery import gallery
from tests.bench.measure import HAPPYHORSE, MIB, USERS, Size, module, peak, say, seconds
from tests.bench.report import Figure
from tests.bench.services import journal_on_s3


def bookkeeping(size: Size, scratch: Path) -> tuple[list[Figure], str]:
    """The journal and the import."""
    folder = scratch / "many"
    journal.make_journal(folder, size.entries, open_jobs=size.entries)
    read = [module("journal", "read", folder) for _ in range(size.rounds)]
    ratio = statistics.median(one["entries_s"] / one["read_s"] for one in read)
    listed = [*HAPPYHORSE, "jobs", "--store", str(folder), "list"]
    # The first round of each compiles, and does not count.
    list_s = statistics.median([seconds(listed, USERS) for _ in range(size.rounds + 1)][1:])
    imports = [module("imports", environment=USERS) for _ in range(size.rounds + 1)][1:]
    more_s = statistics.median(one["ours_s"] for one in imports)
    entries_s = statistics.median(one["entries_s"] for one in read)
    return [
        Figure(
            f"a journal of {size.entries} jobs, read and checked",
            "reading the bytes of its files",
            "3 x",
            f"{entries_s:.2f} s, **{ratio:.1f} x**",
            ratio <= 3,
        ),
        Figure("`happyhorse jobs list` of it, start included", "", "2 s", f"**{list_s:.1f} s**", list_s <= 2),
        Figure(
            "import",
            f"`import prefect`: {statistics.median(one['prefect_s'] for one in imports):.2f} s",
            "0.2 s more",
            f"**{more_s:.2f} s** more",
            more_s <= 0.2,
        ),
    ], ""


def large_journal(size: Size, scratch: Path) -> tuple[list[Figure], str]:
    """What only open entries and sums are wanted of."""
    folder = scratch / "large"
    journal.make_journal(folder, size.many, open_jobs=size.many_open)
    what = f"{size.many} entries, {size.many_open} open"
    first = module("journal", "open", folder, environment=USERS)
    figures = [Figure(f"{what}: read for the first time, which makes the index", "", "", _found(first), None)]
    start_s = peak([*HAPPYHORSE, "--version"], USERS)["wall_s"]
    for name, measured in _looks(folder, USERS).items():
        rounds = [measured() for _ in range(size.rounds)]
        one = {"wall_s": statistics.median(one["wall_s"] for one in rounds), "bytes": max(one["bytes"] for one in rounds)}
        beside = f"its start alone: {start_s:.1f} s" if name.startswith("`happyhorse") else ""
        holds = one["wall_s"] <= 2 and one["bytes"] <= 150 * MIB
        figures.append(Figure(f"{what}: {name}", beside, "2 s, 150 MiB", _found(one), holds))
    shown = gallery(folder, USERS)
    figures += [
        Figure(
            f"{what}: `happyhorse gallery` until the first jobs show",
            f"its start alone: {start_s:.1f} s",
            "",
            f"**{shown['first_s']:.1f} s**",
            None,
        ),
        Figure(f"{what}: a page of it", "", "1 s, 250 MiB", _found(shown), shown["wall_s"] <= 1 and shown["bytes"] <= 250 * MIB),
    ]
    with journal_on_s3(folder) as server:
        for name, measured in _looks("s3://bench/outputs", USERS | server.environment).items():
            before = server.cpu_s()
            one = measured()
            beside = f"moto's own processor time: {server.cpu_s() - before:.1f} s"
            found = f"{_found(one)}, **{one['cpu_s']:.1f} s** of our own processor time"
            figures.append(Figure(f"{what}, on S3 (moto's server): {name}", beside, "5 s", found, one["wall_s"] <= 5))
            say(f"{name} on S3: {found}, {beside}")
    return figures, ""


def _found(one: Mapping[str, float]) -> str:
    return f"**{one['wall_s']:.1f} s**, {one['bytes'] / MIB:.0f} MiB"


def _looks(store: object, environment: Mapping[str, str]) -> dict[str, Callable[[], dict[str, float]]]:
    return {
        "`happyhorse jobs list --open`": lambda: peak([*HAPPYHORSE, "jobs", "--store", str(store), "list", "--open"], environment),
        "a budget's first check": lambda: module("journal", "budget", store, environment=environment),
        "what `collect` begins with": lambda: module("journal", "open", store, environment=environment),
    }
