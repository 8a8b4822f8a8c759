"""Manifests in Parquet and Arrow files, and in folders as Hugging Face's tools keep them."""

from __future__ import annotations

import json
import re
import secrets
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.datasets.samples import any_request, read, requests, table, write_lines, write_table

from prefect_happyhorse.datasets import BadRow, Row, check_manifest, read_manifest
from prefect_happyhorse.datasets.arrow import _KINDS
from prefect_happyhorse.datasets.rows import OWN, REQUEST_FIELDS
from prefect_happyhorse.datasets.samples import request_json
from prefect_happyhorse.domain.errors import InvalidRequest
from prefect_happyhorse.domain.requests import GenerationRequest, MultimodalToVideo, ReferenceToVideo, TextToImage

every_form = pytest.mark.parametrize("form", ["parquet", "file", "stream"])
PROMPTS = table(capability=["text_to_image"] * 3, model=["m"] * 3, prompt=["A", "B", "C"])
MADE = [TextToImage(model="m", prompt=prompt) for prompt in "ABC"]


def test_every_field_has_a_type() -> None:
    """A field that is added to a request needs a column's type."""
    assert {*REQUEST_FIELDS, *OWN, "request", "id"} == set(_KINDS)


@every_form
def test_columns_are_fields(form: str, tmp_path: Path) -> None:
    """As of CSV, with a list for several media, and a struct, a map or single columns for options; a null is not set."""
    rows = table(
        capability=pa.array(["reference_to_video", "reference_to_video", "text_to_image"]).dictionary_encode(),
        model=pa.array(["a", "b", "c"], pa.large_string()),
        prompt=["A", "B", "C"],
        references=[["a.png", "b.png"], ["c.png"], None],
        duration=pa.array([5.0, None, None]),
        seed=pa.array([1, None, 3], pa.uint8()),
        watermark=[True, None, None],
        options=[{"steps": 3, "quality": None}, {"steps": None, "quality": "high"}, None],
        credentials=[None, "infiflow", None],
        take=[None, 2, None],
        voiceless=pa.nulls(3),
    ).rename_columns(
        ["capability", "model", "prompt", "references", "duration", "seed", "watermark", "options", "credentials", "take", "options.size"]
    )
    path = write_table(tmp_path / ("shots.parquet" if form == "parquet" else "shots.arrow"), rows, form)
    assert read(path) == [
        Row(
            row=1,
            id="1",
            request=ReferenceToVideo(
                model="a", prompt="A", references=["a.png", "b.png"], duration=5, seed=1, watermark=True, options={"steps": 3}
            ),
        ),
        Row(
            row=2,
            id="2",
            request=ReferenceToVideo(model="b", prompt="B", references=["c.png"], options={"quality": "high"}),
            credentials="infiflow",
            take=2,
        ),
        Row(row=3, id="3", request=TextToImage(model="c", prompt="C", seed=3)),
    ]


@every_form
def test_a_voice_for_each_video(form: str, tmp_path: Path) -> None:
    """A list column; a text is the voice of a single video."""
    videos = {"capability": ["multimodal_to_video"], "model": ["a"], "prompt": ["A"], "reference_videos": [["a.mp4", "b.mp4"]]}
    voices: dict[str, list[Any]] = {"list": [["a.mp3", "b.mp3"]], "text": ["a.mp3"]}
    for name, column in voices.items():
        path = write_table(tmp_path / f"{name}.{'parquet' if form == 'parquet' else 'arrow'}", pa.table({**videos, "voice": column}), form)
        (row,) = read(path)
        assert isinstance(row, Row)
        assert isinstance(row.request, MultimodalToVideo)
        assert row.request.voice == (("a.mp3", "b.mp3") if name == "list" else "a.mp3")


@every_form
def test_maps_structs_and_texts(form: str, tmp_path: Path) -> None:
    """Options may be a map, a medium a struct, and several media a text."""
    asset = {"kind": "image", "uri": "memory://a.png", "media_type": "image/png", "bytes": 1, "sha256": "00", "width": None}
    rows = table(
        capability=["multimodal_to_video"],
        model=["m"],
        prompt=["A"],
        first_frame=[asset],
        reference_videos=["a.mp4|b.mp4"],
        options=pa.array([[("steps", 3)]], pa.map_(pa.string(), pa.int64())),
    )
    made = MultimodalToVideo(model="m", prompt="A", first_frame=asset, reference_videos=["a.mp4", "b.mp4"], options={"steps": 3})
    assert requests(write_table(tmp_path / "shots.arrow", rows, form)) == [made]


@every_form
def test_a_map_that_is_empty_or_has_a_key_twice(form: str, tmp_path: Path) -> None:
    """The one sets nothing; of the other nobody knows which value was meant, and it is a problem of its own row."""
    maps: list[list[tuple[str, int]] | None] = [[("steps", 3)], [], None, [("steps", 3), ("steps", 4)]]
    four = {name: [value] * 4 for name, value in {"capability": "text_to_image", "model": "gpt-image-2", "prompt": "A"}.items()}
    file = write_table(tmp_path / "shots.arrow", table(**four, options=pa.array(maps, pa.map_(pa.string(), pa.int64()))), form)
    *good, bad = read_manifest(file)
    assert [row.request.options for row in good if isinstance(row, Row)] == [{"steps": 3}, {}, {}]
    assert isinstance(bad, BadRow)
    assert "a map must have each of its keys once (got 'steps', 'steps')" in bad.error


def test_a_damaged_page_is_named(tmp_path: Path) -> None:
    """As any other file that cannot be read to its end."""
    file = write_table(tmp_path / "shots.parquet", table(capability=["text_to_image"], model=["m"], prompt=["A" * 1000]), "parquet")
    content = bytearray(Path(file).read_bytes())
    content[4:40] = b"\xff" * 36
    Path(file).write_bytes(content)
    with pytest.raises(InvalidRequest, match=r"shots\.parquet cannot be read, or not to its end: .* Nothing was sent"):
        list(read_manifest(file))


@every_form
def test_a_column_of_a_wrong_type_is_one_problem(form: str, tmp_path: Path) -> None:
    """Named with its type and what it must hold, all at once."""
    rows = table(
        capability=[1, 2],
        model=["m", "m"],
        prompt=[b"x", b"y"],
        duration=[True, False],
        references=[[1], [2]],
        colour=["red", "blue"],
        key=[0.5, 1.5],
    )
    path = write_table(tmp_path / "shots.arrow", rows, form)
    check = check_manifest(path, id_column="key")
    assert (check.rows, check.ok) == (0, False)
    # Parquet and Arrow call the items of a list by different names.
    assert [re.sub(r"\): .*|<\w+: int64>", "", problem) for problem in check.problems] == [
        "a column must be a field of a request (got 'colour'",
        "column 'capability' must hold text for capability (got int64)",
        "column 'prompt' must hold text for prompt (got binary)",
        "column 'duration' must hold integer or float or text for duration (got bool)",
        "column 'references' must hold list or text for references (got list)",
        "column 'key' must hold text or integer for id (got double)",
    ]
    template = {"capability": "text_to_image", "model": "m", "prompt": "{references} {capability}", "size": "{capability}"}
    check = check_manifest(path, template=template)
    assert [re.sub(r"<\w+: int64>", "", problem) for problem in check.problems] == [
        "column 'references' must hold text or integer or float or bool or date for prompt (got list)",
        "column 'capability' must hold text for size (got int64)",
    ]


@every_form
def test_a_wrong_value_is_one_bad_row(form: str, tmp_path: Path) -> None:
    """Bytes that are no UTF-8, a number that is not whole: the rows around it are read."""
    texts = pa.Array.from_buffers(pa.string(), 3, pa.array([b"A", b"\xff", b"C"], pa.binary()).buffers())
    rows = table(capability=["text_to_image"] * 3, model=["m"] * 3, prompt=texts, n=[1.0, 1.0, 1.5])
    first, second, third = requests(write_table(tmp_path / "shots.arrow", rows, form))
    assert first == TextToImage(model="m", prompt="A", n=1)
    assert str(second).startswith("UnicodeDecodeError")
    assert "n: Input should be a valid integer" in str(third)


@every_form
def test_what_is_no_such_file_is_refused(form: str, tmp_path: Path) -> None:
    """Also when it is cut short."""
    whole = Path(write_table(tmp_path / "whole", PROMPTS, form)).read_bytes()
    for name, content in {
        "empty": b"",
        "text": b"PAR1 is what it begins with",
        "json": b'{"a": 1}',
        "cut": whole[: len(whole) // 2],
    }.items():
        path = tmp_path / f"{name}.arrow"
        path.write_bytes(content)
        with pytest.raises(InvalidRequest, match=r"cannot be read, or not to its end: .* Nothing was sent\."):
            read(path)


def test_a_request_may_stand_whole_in_a_column(tmp_path: Path) -> None:
    """As JSON text or as an object; columns beside it are left alone, but for the row's own."""
    request = {"capability": "text_to_image", "model": "m", "prompt": "A"}
    row = {"key": "k", "request": request, "prompt": "another", "sha256": "00", "take": 3, "credentials": None}
    expected = Row(row=1, id="k", request=TextToImage(model="m", prompt="A"), take=3)
    text = {**row, "request": json.dumps(request)}
    for number, one in enumerate([row, text]):
        assert read(write_lines(tmp_path / f"{number}.jsonl", one), id_column="key") == [expected]
        path = write_table(tmp_path / f"{number}.parquet", pa.Table.from_pylist([one]), "parquet")
        assert read(path, id_column="key") == [expected]
    (bad,) = requests(write_lines(tmp_path / "bad.jsonl", {"request": "[1]"}))
    assert bad == "ValueError: the column 'request' must hold a JSON object"


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(any_request, min_size=1, max_size=3))
def test_every_request_comes_through_its_column(tmp_path: Path, made: list[GenerationRequest]) -> None:
    """Whatever is in it, exactly."""
    rows = table(request=[request_json(one) for one in made])
    assert requests(write_table(tmp_path / "shots.parquet", rows, "parquet")) == made
    assert requests(write_lines(tmp_path / "shots.jsonl", *rows.to_pylist())) == made


class TestFolders:
    """Data sets that are folders."""

    def test_saved_by_datasets(self, tmp_path: Path) -> None:
        """`save_to_disk` writes Arrow streams and names them in their order; what it has cached beside them is left alone."""
        for number, name in enumerate(("data-00001-of-00002.arrow", "data-00000-of-00002.arrow", "cache-77.arrow")):
            write_table(tmp_path / name, PROMPTS.slice(number, 1), "stream")
        files = [{"filename": "data-00000-of-00002.arrow"}, {"filename": "data-00001-of-00002.arrow"}]
        (tmp_path / "state.json").write_text(json.dumps({"_data_files": files, "_split": "train"}))
        (tmp_path / "dataset_info.json").write_text("{}")
        assert requests(tmp_path) == [MADE[1], MADE[0]]
        assert [row.id for row in read(f"{tmp_path}/")] == ["1", "2"]

    def test_saved_with_splits(self, tmp_path: Path) -> None:
        """One split is read; of several one has to be named."""
        for split in ("train", "test"):
            write_table(tmp_path / split / "data-00000-of-00001.arrow", PROMPTS, "stream")
            (tmp_path / split / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
        (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
        with pytest.raises(InvalidRequest, match=rf"holds 2 splits: train, test\. Name one, as {tmp_path}/train\."):
            read(tmp_path)
        assert requests(tmp_path / "train") == MADE
        (tmp_path / "dataset_dict.json").write_text('{"splits": ["test"]}')
        assert requests(tmp_path) == MADE

    @pytest.mark.parametrize("folder", ["", "data"])
    def test_as_the_hub_has_it(self, folder: str, tmp_path: Path) -> None:
        """Parquet files by their names, there or in `data`; splits are told by them, and a pattern names one."""
        home = tmp_path / "a set [1]"
        for number in (1, 0):
            write_table(home / folder / f"train-0000{number}-of-00002.parquet", PROMPTS.slice(number, 1), "parquet")
        assert requests(home) == MADE[:2]
        (home / "README.md").write_text("# A data set")
        write_table(home / folder / "test-00000-of-00001-77aa.parquet", PROMPTS, "parquet")
        with pytest.raises(InvalidRequest, match=r"holds 2 splits: test, train\. Name one, as .*/test\*\.parquet\."):
            read(home)
        other = tmp_path / "other"
        home.rename(other)
        assert requests(other / folder / "train-*.parquet") == MADE[:2]

    def test_parts_are_no_splits(self, tmp_path: Path) -> None:
        """What other tools write in parts is one data set."""
        for number in range(3):
            write_table(tmp_path / f"part-{number}.parquet", PROMPTS.slice(number, 1), "parquet")
        assert requests(tmp_path) == MADE

    def test_what_holds_nothing_is_refused(self, tmp_path: Path) -> None:
        """A folder without such files, and a pattern that fits none."""
        (tmp_path / "shots.jsonl").write_text("")
        with pytest.raises(InvalidRequest, match="holds no data set: neither"):
            read(tmp_path)
        with pytest.raises(FileNotFoundError, match="no file fits the pattern"):
            read(tmp_path / "*.parquet")

    def test_a_file_with_other_columns_is_named(self, tmp_path: Path) -> None:
        """The file, not the folder."""
        write_table(tmp_path / "a.parquet", PROMPTS, "parquet")
        write_table(tmp_path / "b.parquet", PROMPTS.append_column("colour", [["red"] * 3]), "parquet")
        assert "b.parquet make no requests" in (check_manifest(str(tmp_path)).fault or "")


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """Of 30 MB in one row group a little is held at a time, by Python and by Arrow, and of columns that are not wanted nothing."""
    count = 100_000
    noise = [secrets.token_bytes(100_000) for _ in range(300)] + [b""] * (count - 300)
    rows = table(key=range(count), prompt=[secrets.token_hex(150) for _ in range(count)], noise=noise)
    path = write_table(tmp_path / "shots.parquet", rows, "parquet", rows_at_once=count)
    del rows, noise
    held, found = 0, 0
    before = pa.total_allocated_bytes()
    template = {"capability": "text_to_image", "model": "m", "prompt": "{prompt}"}
    tracemalloc.start()
    try:
        for row in read_manifest(path, template=template, id_column="key"):
            found += isinstance(row, Row)
            if found % 250 == 1:
                held = max(held, pa.total_allocated_bytes() - before)
            if found == 5_000:
                break
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == 5_000
    assert peak < 4 * 1024 * 1024
    assert held < 6 * 1024 * 1024, held


@pytest.mark.parametrize("name", ["shots.parquet", "shots.arrow"])
def test_without_pyarrow_the_way_out_is_said(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And text is read without it."""
    path = write_table(tmp_path / name, PROMPTS, "parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'prefect-happyhorse\[data\]'"):
        read(path)
    assert requests(write_lines(tmp_path / "a.jsonl", {"capability": "text_to_image", "model": "m", "prompt": "A"})) == MADE[:1]
