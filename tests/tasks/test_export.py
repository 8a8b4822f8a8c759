"""The task that writes what was made as a data set."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from prefect import flow

from prefect_happyhorse import Export, TextToImage, export_assets, generate, read_manifest
from prefect_happyhorse.sandbox import SandboxServer

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    # Prefect's client leaves connections to its own server for the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

HORSE = TextToImage(model="gpt-image-2", prompt="A white horse", n=2)
FOAL = TextToImage(model="gpt-image-2", prompt="A foal")


async def test_what_a_run_made_is_written_with_its_own_ids(sandbox_env: SandboxServer, tmp_path: Path) -> None:
    """Of the jobs that are wanted alone; made again from what was written, nothing is bought."""
    target = str(tmp_path / "shots.parquet")

    @flow
    async def make() -> Export:
        horse, _ = await generate(HORSE, "happyhorse"), await generate(FOAL, "happyhorse")
        return await export_assets(target, digests=[horse.job.digest], ids={horse.job.digest: "horse"})

    done = await make()
    assert (done.rows, done.files) == (2, (f"file://{target}",))
    rows = list(read_manifest(target, id_column="id"))
    assert [(row.id, row.request) for row in rows] == [("horse", HORSE), ("horse-2", HORSE)]
    charged = len(sandbox_env.ledger())

    @flow
    async def again() -> None:
        for row in rows:
            await generate(row.request, row.credentials or "happyhorse", take=row.take)

    await again()
    assert len(sandbox_env.ledger()) == charged


def test_a_sync_flow_has_the_summary_itself(sandbox_env: SandboxServer, tmp_path: Path) -> None:
    """Everything of the journal, the files among it."""

    @flow
    def make() -> Export:
        generate(FOAL, "happyhorse")
        return export_assets(str(tmp_path / "shots.tar"))

    done = make()
    assert (done.format, done.rows, done.without_file) == ("webdataset", 1, 0)
    with tarfile.open(tmp_path / "shots-000000.tar") as tar:
        picture, row = tar.getmembers()
        content = tar.extractfile(row)
        assert content is not None
        assert json.loads(content.read())["bytes"] == picture.size


def test_what_is_left_out_is_told_in_the_log(sandbox_env: SandboxServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As an error, and the rest is written."""

    @flow
    def make() -> Export:
        (generate(FOAL, "happyhorse").path or tmp_path).unlink()
        return export_assets(str(tmp_path / "shots.tar"))

    done = make()
    assert (done.rows, done.left_out) == (0, 1)
    assert [record.levelname for record in caplog.records if "is not there any more" in record.message] == ["ERROR"]


def test_a_target_that_is_there_is_not_tried_again(sandbox_env: SandboxServer, tmp_path: Path) -> None:
    """It stays there however long one waits."""
    (tmp_path / "shots.jsonl").write_text("mine")

    @flow
    def make() -> None:
        export_assets.with_options(retry_delay_seconds=3_600)(str(tmp_path / "shots.jsonl"))

    with pytest.raises(FileExistsError, match="there is a file already"):
        make()
    assert (tmp_path / "shots.jsonl").read_text() == "mine"
