"""All that is wrong with a manifest, in one message, before any of it is made."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.datasets.samples import write_lines

from prefect_happyhorse.datasets import ManifestCheck, Row, check_manifest
from prefect_happyhorse.domain.errors import InvalidRequest, Money

HORSE = {"capability": "text_to_image", "model": "gpt-image-2", "prompt": "A horse", "key": "a"}


def test_every_problem_is_told_with_its_row(tmp_path: Path) -> None:
    """In the order of the rows; with its id, where rows have one; nothing was sent, and the error says so."""
    path = write_lines(tmp_path / "shots.jsonl", HORSE, "{", {**HORSE, "key": "b", "n": "x"}, HORSE)
    check = check_manifest(path, id_column="key")
    assert (check.rows, check.bad_rows, check.ok) == (4, 3, False)
    told = str(check).splitlines()
    assert told[0] == f"{path}: 3 of 4 rows cannot be made. Nothing was sent."
    assert told[1].startswith("  - row 2 (2): JSONDecodeError: ")
    assert told[2].startswith("  - row 3 (b): ValidationError: request.text_to_image.n: ")
    assert told[3] == "  - row 4 (a): ValueError: the id 'a' must be of one row alone (row 1 has it already)"
    with pytest.raises(InvalidRequest) as caught:
        check.refuse()
    assert caught.value.problems == check.problems
    assert caught.value.money is Money.NOT_SPENT
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 -- our own
    # The good rows may go on where somebody says so.
    check.refuse(bad_rows=False)


def test_a_good_manifest_is_not_refused(tmp_path: Path) -> None:
    """And says how many rows it has."""
    path = write_lines(tmp_path / "shots.jsonl", HORSE)
    check = check_manifest(path, template={"capability": "text_to_image", "model": "m", "prompt": "{prompt}"})
    assert check == ManifestCheck(manifest=path, rows=1)
    assert str(check) == f"{path}: 1 rows."
    check.refuse()


def test_of_very_many_problems_the_first_are_told_and_all_counted(tmp_path: Path) -> None:
    """A message of bounded length."""
    path = write_lines(tmp_path / "shots.jsonl", *["{"] * 250)
    check = check_manifest(path)
    assert (check.bad_rows, len(check.problems)) == (250, 100)
    with pytest.raises(InvalidRequest) as caught:
        check.refuse()
    assert caught.value.problems[-1] == "and 150 more rows"
    assert check_manifest(path, shown=1).problems == check.problems[:1]


def test_the_manifest_as_a_whole_is_refused_even_where_good_rows_may_go_on(tmp_path: Path) -> None:
    """Of a file that makes no requests there are no good rows."""
    (tmp_path / "shots.csv").write_text("colour\nred\n")
    check = check_manifest(str(tmp_path / "shots.csv"))
    assert not check.ok
    with pytest.raises(InvalidRequest, match=r"shots\.csv make no requests\. Nothing was sent"):
        check.refuse(bad_rows=False)


def test_a_row_may_be_asked_for_more(tmp_path: Path) -> None:
    """For example whether its route takes it; every problem of a row in one line."""
    path = write_lines(tmp_path / "shots.jsonl", HORSE, {**HORSE, "prompt": "A foal"}, "{")

    def more(rows: Sequence[Row]) -> list[list[str]]:
        return [["too small", "too young"] if "foal" in str(row.request.prompt) else [] for row in rows]

    template = {"capability": "{capability}", "model": "{model}", "prompt": "{prompt}"}
    check = check_manifest(path, template=template, more=more)
    assert check.problems[0] == "row 2: too small; too young"
    assert (check.rows, check.bad_rows) == (3, 2)
