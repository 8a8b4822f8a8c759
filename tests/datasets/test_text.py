"""Manifests that are text: JSON lines and CSV."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from tests.datasets.samples import read, requests, write_lines

from prefect_happyhorse.datasets import BadRow, Row, check_manifest
from prefect_happyhorse.datasets import text as text_module
from prefect_happyhorse.domain.errors import InvalidRequest
from prefect_happyhorse.domain.requests import ReferenceToVideo, TextToImage

HORSE = {"capability": "text_to_image", "model": "gpt-image-2", "prompt": "A horse"}


def test_rows_are_told_by_their_line(tmp_path: Path) -> None:
    """Empty lines count and make no row; `credentials` and `take` are the row's own."""
    path = write_lines(tmp_path / "shots.jsonl", HORSE, "", {**HORSE, "credentials": "infiflow", "take": 7})
    first, second = read(path)
    assert first == Row(row=1, id="1", request=TextToImage(model="gpt-image-2", prompt="A horse"))
    assert (second.row, second.id) == (3, "3")
    assert isinstance(second, Row)
    assert (second.credentials, second.take) == ("infiflow", 7)


def test_what_no_parser_survives_is_one_bad_row(tmp_path: Path) -> None:
    """However deep, long or odd a line is, the others are read; a line ends where a line feed stands, and nowhere else."""
    deep = json.dumps(HORSE).replace('"A horse"', "[" * 5_000 + "]" * 5_000)
    long = json.dumps(HORSE).replace('"A horse"', "9" * 5_000)
    odd = json.dumps({**HORSE, "prompt": "A\u2028horse\x85 at dusk"}, ensure_ascii=False)
    lone = '{"capability": "text_to_image", "model": "m", "prompt": "\\ud800", "\\ud801": 1}'
    lines = [json.dumps(HORSE), deep, odd, long, "[]", lone, json.dumps({**HORSE, "colour": "red"})]
    path = tmp_path / "shots.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n\xff\n")
    rows = read(path)
    assert [(row.row, isinstance(row, Row)) for row in rows] == [
        (1, True),
        (2, False),
        (3, True),
        (4, False),
        (5, False),
        (6, False),
        (7, False),
        (8, False),
    ]
    assert rows[2].request.prompt == "A\u2028horse\x85 at dusk"
    told = [row.error for row in rows if isinstance(row, BadRow)]
    assert told[2] == "ValueError: a row is a JSON object"
    assert "text_to_image.colour: Extra inputs are not permitted" in told[4]
    assert told[5].startswith("UnicodeDecodeError")


def test_a_bad_row_is_told_in_bounded_words(tmp_path: Path) -> None:
    """A field whose name is a megabyte long is not shown whole."""
    path = write_lines(tmp_path / "shots.jsonl", {**HORSE, "x" * 1_000_000: 1})
    (row,) = read(path)
    assert isinstance(row, BadRow)
    assert len(row.error) < 1100


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_a_line_without_end_is_not_held(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one bad row, and the next is told by its own line."""
    monkeypatch.setattr(text_module, "_MAX_LINE_BYTES", 100)
    path = tmp_path / f"shots.{ending}"
    if ending == "jsonl":
        path.write_text("\n".join([json.dumps(HORSE), json.dumps({**HORSE, "prompt": "x" * 5_000_000}), json.dumps(HORSE)]))
        expected = [(1, True), (2, False), (3, True)]
    else:
        path.write_text(f"capability,model,prompt\ntext_to_image,m,A\ntext_to_image,m,{'x' * 5_000_000}\ntext_to_image,m,B\n")
        expected = [(2, True), (3, False), (4, True)]
    tracemalloc.start()
    try:
        rows = read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000
    assert [(row.row, isinstance(row, Row)) for row in rows] == expected
    assert [row.error for row in rows if isinstance(row, BadRow)] == ["ValueError: a line must have at most 100 bytes"]


def test_csv_says_the_same_as_json(tmp_path: Path) -> None:
    """Several media stand apart by |, options have columns, an empty cell is not set; a cell may hold a line feed."""
    path = tmp_path / "shots.csv"
    path.write_text(
        "capability,model,prompt,references,duration,resolution,options.quality,options.steps,credentials,take\n"
        'text_to_image,gpt-image-2,"A horse,\nwhite",,,,high,30,,\n'
        "reference_to_video,happyhorse-1.1-r2v,@2 follows @1,https://example.com/a.png | b.png,5,720P,[,,infiflow,7\n",
        encoding="utf-8-sig",
    )
    first, second = read(path)
    assert first == Row(
        row=3, id="3", request=TextToImage(model="gpt-image-2", prompt="A horse,\nwhite", options={"quality": "high", "steps": 30})
    )
    video = ReferenceToVideo(
        model="happyhorse-1.1-r2v",
        prompt="@2 follows @1",
        references=["https://example.com/a.png", "b.png"],
        duration=5,
        resolution="720p",
        options={"quality": "["},
    )
    assert second == Row(row=4, id="4", request=video, credentials="infiflow", take=7)


def test_a_row_of_csv_that_cannot_be_read_stops_no_other(tmp_path: Path) -> None:
    """More cells than the head line has, a quote in a wrong place, bytes that are no UTF-8."""
    path = tmp_path / "shots.csv"
    rows = [b"text_to_image,m,A,B", b'text_to_image,m,"A"B', b"text_to_image,m,\xff", b"", b"text_to_image,m", b"text_to_image,m,C"]
    path.write_bytes(b"capability,model,prompt\n" + b"\n".join(rows))
    told = requests(path)
    assert told[0] == "ValueError: the row has 4 cells, and the head line 3"
    assert str(told[1]).startswith("ValueError: ',' expected after")
    assert "prompt" in str(told[2])
    assert "prompt: Field required" in str(told[3])
    assert told[4] == TextToImage(model="m", prompt="C")


@pytest.mark.parametrize(
    ("head", "problem"),
    [
        ("capability,model,prompt,colour,notes", "a column must be a field of a request (got 'colour', 'notes'):"),
        ("capability,model,prompt,prompt", "column 'prompt' is there 2 times"),
    ],
)
def test_a_head_line_that_makes_no_requests_is_one_problem(head: str, problem: str, tmp_path: Path) -> None:
    """However many rows there are."""
    path = tmp_path / "shots.csv"
    path.write_text(head + "\ntext_to_image,m,A,B,C" * 1000)
    with pytest.raises(InvalidRequest) as caught:
        read(path)
    (told,) = caught.value.problems
    assert told.startswith(problem)
    assert check_manifest(str(path)).problems == caught.value.problems


def test_an_empty_manifest_has_no_rows(tmp_path: Path) -> None:
    """And is no error."""
    for name in ("a.jsonl", "a.csv"):
        (tmp_path / name).write_text("")
        assert read(tmp_path / name) == []


def test_the_ending_says_the_format_unless_it_is_given(tmp_path: Path) -> None:
    """What has none that is known is JSON lines."""
    for name in ("shots.JSONL", "shots.ndjson", "shots.txt", "shots"):
        assert requests(write_lines(tmp_path / name, HORSE)) == [TextToImage(model="gpt-image-2", prompt="A horse")]
    (tmp_path / "shots.txt").write_text("capability,model,prompt\ntext_to_image,m,A\n")
    assert requests(tmp_path / "shots.txt", format="csv") == [TextToImage(model="m", prompt="A")]


def test_a_manifest_that_is_not_there_is_told(tmp_path: Path) -> None:
    """By the system's own error."""
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "shots.jsonl")


@pytest.mark.parametrize("take", [0, -1, True, "zero"])
def test_a_take_that_there_is_not(take: object, tmp_path: Path) -> None:
    """It would be refused at the submit, when others are bought already."""
    file = write_lines(tmp_path / "shots.jsonl", {"capability": "text_to_image", "model": "gpt-image-2", "prompt": "A", "take": take})
    (bad,) = read(file)
    assert isinstance(bad, BadRow)
    assert "take" in bad.error
