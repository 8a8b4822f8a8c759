"""The measurements themselves work: all of them, with little. How fast something is on this machine is judged nowhere here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.bench.__main__ import PARTS
from tests.bench.report import Figure, table, write_into

ROOT = Path(__file__).parents[2]
MEASURED = {
    "figures": (
        "1 jobs of 0.5 s at once, `generate`",
        "3 jobs of 0.5 s at once, `generate`",
        "3 jobs of 0.5 s at once, `generate_many`",
        "3 jobs without Prefect",
        "3 jobs at once where 20 polls a second are answered, `generate_many`",
        "3 jobs at once where 20 polls a second are answered, the same without Prefect",
        "peak memory of 3 jobs",
        "processor time of a job at 3 jobs: worker, Prefect server",
        "polls of a job, lognormal durations around 120 s, sigma 0.2",
        "100000 jobs of one account submitted together, 20 polls a second (simulated)",
        "one download of 8 MiB to a disk, with its SHA-256",
        "4 downloads of 1 MiB at once, to a disk",
        "4 downloads of 1 MiB at once, to S3 (moto's server)",
        "a journal of 100 jobs, read and checked",
        "`happyhorse jobs list` of it, start included",
        "import",
        "100 entries, 10 open: read for the first time, which makes the index",
        "100 entries, 10 open: `happyhorse gallery` until the first jobs show",
        "100 entries, 10 open: a page of it",
        *(
            f"100 entries, 10 open{where}: {what}"
            for where in ("", ", on S3 (moto's server)")
            for what in ("`happyhorse jobs list --open`", "a budget's first check", "what `collect` begins with")
        ),
    ),
    "batches": (
        "3 jobs of 0.5 s by `batch`, 500 at once",
        "a manifest of 5 rows by `batch`, all of them stored already",
    ),
    "chains": ("3 chains of 3 jobs of 1 s in 1 runs that wait suspended, 1 SIGKILLs",),
}


@pytest.mark.skipif(
    shutil.which("curl") is None or sys.platform != "linux", reason="Measured against curl, by what Linux tells of a process"
)
@pytest.mark.parametrize("part", PARTS)
def test_everything_is_measured_and_written_down(tmp_path: Path, part: str) -> None:
    """With few and short jobs: every row has figures on both sides and no verdict, and the page has its table and plots."""
    page = tmp_path / "page.md"
    begin, end = f"<!-- {part}: begin (written by `make bench`) -->\n", f"\n<!-- {part}: end -->\n\nAfter.\n"
    page.write_text(f"# Speed\n\n{begin}old{end}")
    command = [sys.executable, "-m", "tests.bench", "--small", "--part", part, "--page", str(page)]
    # Nothing may hang on for as long as the whole suite may take.
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    text = page.read_text()
    assert text.startswith(f"# Speed\n\n{begin}| what")
    assert text.endswith(end)
    assert "\nold\n" not in text
    rows = {cells[1]: cells[2:-1] for line in text.splitlines() if len(cells := re.split(r" ?\| ?", line)) == 7}
    assert set(MEASURED[part]) <= set(rows)
    for what in MEASURED[part]:
        _, _, found, verdict = rows[what]
        assert re.search(r"\d", found), what
        assert verdict == "", what
    assert text.count("```mermaid") == (2 if part == "figures" else 0)


def test_a_row_says_whether_it_holds() -> None:
    """Also where nothing is to be reached."""
    rows = [Figure("a", "b", "1 x", "2 x", False), Figure("c", "d", "1 x", "1 x", True), Figure("e", "f", "", "3", None)]
    assert [line.split("|")[5].strip() for line in table(rows).splitlines()[2:]] == ["**misses**", "holds", ""]


def test_figures_have_a_place(tmp_path: Path) -> None:
    """A page without one is left as it was."""
    page = tmp_path / "page.md"
    page.write_text("# Speed\n")
    with pytest.raises(ValueError, match="no place for figures"):
        write_into(page, "1 x", "figures")
    assert page.read_text() == "# Speed\n"
