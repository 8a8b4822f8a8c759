"""Requests from a data set's columns by a template, and the rows' own ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.datasets.samples import read, requests, table, write_lines, write_table

from prefect_happyhorse.datasets import BadRow, Row, check_manifest, read_manifest
from prefect_happyhorse.datasets.ids import Ids
from prefect_happyhorse.datasets.template import Template
from prefect_happyhorse.domain.errors import InvalidRequest
from prefect_happyhorse.domain.requests import ReferenceToVideo, TextToImage

CITIES = {"capability": "text_to_image", "model": "gpt-image-2", "prompt": "A {animal} in {city}"}


@pytest.fixture(params=["jsonl", "csv", "parquet", "file"])
def animals(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Writes rows of a data set in each format; where they lie."""

    def write(*rows: dict[str, Any]) -> str:
        path = tmp_path / f"animals.{'arrow' if request.param == 'file' else request.param}"
        if request.param == "jsonl":
            return write_lines(path, *rows)
        if request.param == "csv":
            lines = [rows[0].keys(), *(("" if cell is None else str(cell) for cell in row.values()) for row in rows)]
            path.write_text("\n".join(",".join(line) for line in lines))
            return str(path)
        return write_table(path, table(**{name: [row[name] for row in rows] for name in rows[0]}), request.param)

    return write


def test_a_template_makes_requests_of_columns(animals: Any) -> None:
    """The same of every format; columns that it does not name are left alone, and a cell that is empty is not set."""
    path = animals(
        {"animal": "horse", "city": "Paris", "seed": 7, "steps": 30, "who": "infiflow", "note": "x"},
        {"animal": "foal", "city": "Rome", "seed": None, "steps": None, "who": None, "note": "y"},
    )
    more = {"seed": "{seed}", "options.steps": "{steps}", "options.quality": "high", "credentials": "{who}", "take": "2"}
    first, second = read(path, template=CITIES | more)
    assert isinstance(first, Row)
    assert first.request == TextToImage(model="gpt-image-2", prompt="A horse in Paris", seed=7, options={"steps": 30, "quality": "high"})
    assert (first.credentials, first.take) == ("infiflow", 2)
    assert isinstance(second, Row)
    assert second.request == TextToImage(model="gpt-image-2", prompt="A foal in Rome", options={"quality": "high"})
    assert (second.credentials, second.take) == (None, 2)


def test_a_text_with_a_hole_is_not_bought(animals: Any) -> None:
    """A column that is empty inside a text makes a bad row, and no prompt with nothing in its place."""
    path = animals({"animal": "horse", "city": "Paris"}, {"animal": "foal", "city": None})
    assert requests(path, template=CITIES) == [
        TextToImage(model="gpt-image-2", prompt="A horse in Paris"),
        "ValueError: the template's prompt needs the column 'city', which is empty",
    ]


def test_formats_braces_and_several_media(tmp_path: Path) -> None:
    """A column may be formatted, a brace is doubled, and media in one text stand apart by |."""
    path = write_lines(tmp_path / "a.jsonl", {"n": 7, "my.name": "a|b", "refs": ["c", "d"]})
    template = {"capability": "reference_to_video", "model": "m", "prompt": "{{{n:03d}}} {my.name!r}", "references": "{my.name}|{n}.png"}
    assert requests(path, template=template) == [
        ReferenceToVideo(model="m", prompt="{007} 'a|b'", references=["a", "b", "7.png"]),
    ]
    assert requests(path, template=template | {"references": "{refs}", "prompt": "x"}) == [
        ReferenceToVideo(model="m", prompt="x", references=["c", "d"]),
    ]
    (told,) = requests(path, template=template | {"prompt": "{refs}, {n}"})
    assert told == "ValueError: the template's prompt cannot hold the column 'refs' as a text (it is of type list)"
    (told,) = requests(path, template=template | {"prompt": "{my.name:d}"})
    assert "Unknown format code 'd'" in str(told)


def test_a_column_that_is_missing_is_one_problem(animals: Any, request: pytest.FixtureRequest) -> None:
    """It is named before anything is bought: of the whole file where that says its columns, else of each row."""
    path = animals({"animal": "horse", "town": "Paris"}, {"animal": "foal", "town": "Rome"})
    check = check_manifest(path, template=CITIES, id_column="key")
    if path.endswith("jsonl"):
        assert (check.rows, check.bad_rows) == (2, 2)
        assert "the row has no id: its column 'key' is missing" in check.problems[0]
        told = "ValueError: the template's prompt names the column 'city', which the row does not have"
        assert requests(path, template=CITIES) == [told, told]
    else:
        assert check.problems == (
            "column 'city', wanted for prompt, is missing; there are 'animal', 'town'",
            "column 'key', wanted for id, is missing; there are 'animal', 'town'",
        )


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ({"model": "m", "prompt": "x"}, "capability must be given"),
        ({**CITIES, "colour": "red"}, "colour is no field of a request"),
        ({**CITIES, "prompt": "A {animal"}, "prompt expected '}'"),
        ({**CITIES, "prompt": "A {}"}, "prompt has a {} that names no column (got 'A {}')"),
        ({**CITIES, "prompt": "{a:{b}}"}, "prompt must not name a column inside of another's format"),
        ({**CITIES, "prompt": "{a:>9999}"}, "prompt must not be made longer than 999 characters by a format"),
        ({**CITIES, "seed": 7}, "seed must be a text such as"),
    ],
)
def test_a_template_that_makes_no_request_is_refused_at_once(template: dict[str, Any], problem: str) -> None:
    """Before the manifest is opened; `check_manifest` tells it as any other problem."""
    with pytest.raises(InvalidRequest, match=r"The template makes no request\. Nothing was sent\.") as caught:
        read_manifest("nowhere.csv", template=template)
    (told,) = caught.value.problems
    assert problem in told
    assert check_manifest("nowhere.csv", template=template).problems == (told,)


def test_the_rows_own_id(animals: Any) -> None:
    """A text or a whole number; one that is there twice is a problem that names both rows, and so is none."""
    path = animals({"animal": "a", "city": "b", "id": 1}, {"animal": "c", "city": "d", "id": None}, {"animal": "e", "city": "f", "id": 1})
    rows = read(path, template=CITIES, id_column="id")
    first, last = ("2", "4") if path.endswith("csv") else ("1", "3")
    assert rows[0].id == "1"
    assert [(row.id, row.error) for row in rows[1:]] == [
        (str(int(first) + 1), "ValueError: the row has no id: its column 'id' is empty"),
        ("1", f"ValueError: the id '1' must be of one row alone (row {first} has it already)"),
    ]
    assert str(rows[2].row) == last


def test_the_id_is_no_field_of_the_request_unless_it_is_one(tmp_path: Path) -> None:
    """Without a template its column is left out of the request, but where it is a field."""
    path = write_lines(tmp_path / "a.jsonl", {"capability": "text_to_image", "model": "m", "prompt": "A", "key": "k"})
    assert [row.id for row in read(path, id_column="key")] == ["k"]
    (row,) = read(path, id_column="prompt")
    assert "key: Extra inputs" in row.error
    path = write_lines(tmp_path / "b.jsonl", {"capability": "text_to_image", "model": "m", "prompt": "A"}, {"prompt": True})
    good, bad = read(path, id_column="prompt")
    assert (good.id, good.request.prompt) == ("A", "A")
    assert bad.error == "ValueError: an id must be a text or a whole number (column 'prompt' holds True)"


def test_an_id_that_cannot_be_shown_is_told_all_the_same(tmp_path: Path) -> None:
    """Half of a surrogate pair, which JSON can write, is no text."""
    horse = {"capability": "text_to_image", "model": "m", "prompt": "A"}
    path = write_lines(tmp_path / "a.jsonl", {**horse, "key": "a\ud800"}, {**horse, "key": "b", "size": "\ud800"})
    first, second = read(path, id_column="key")
    assert isinstance(first, BadRow)
    assert isinstance(second, BadRow)
    assert (first.id, second.id) == ("a\\ud800", "b")
    assert "surrogates not allowed" in second.error


def test_ids_are_told_apart_exactly() -> None:
    """Whatever is in them."""
    ids = Ids()
    names = ["a", "A", "", "a\x00", "\ud800", "é", "e\u0301"]
    assert [ids.first(name, row) for row, name in enumerate(names)] == list(range(len(names)))
    assert [ids.first(name, 99) for name in names] == list(range(len(names)))
    ids.close()


def test_a_cell_inside_of_a_medium_names_no_other() -> None:
    """It is no way to name a further one, such as a file of the worker's."""
    template = Template({"capability": "reference_to_video", "model": "m", "references": "https://example.com/{pic}|b.png"})
    assert template.fill({"pic": "a.png"})["references"] == ["https://example.com/a.png", "b.png"]
    with pytest.raises(ValueError, match="cannot hold several media of the column 'pic' inside of one"):
        template.fill({"pic": "a.png|/etc/horse.png"})
