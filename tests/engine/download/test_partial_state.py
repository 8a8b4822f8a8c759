"""What a partial download writes down, and when: no more than the next process needs."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from prefect_happyhorse.engine.download.part_file import Finished, Partial, open_partial
from prefect_happyhorse.engine.media.probe import MediaInfo

WHOLE = Finished("horse.mp4", "00", MediaInfo("mp4", "video", 6))


@contextmanager
def opened(folder: Path) -> Generator[Partial]:
    """As the next process finds it."""
    partial = Partial(folder, "k", checkpoint_bytes=1000)
    partial.load()
    yield partial
    partial.close()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_beginning_needs_no_state(tmp_path: Path) -> None:
    """Of bytes of which nothing is said none counts, and all of them do once it is said that they are there."""
    with opened(tmp_path) as partial:
        partial.restart(validator='"a"', total=6)
        assert names(tmp_path) == set()
        partial.append(b"horses")
        assert names(tmp_path) == {"k.part"}
    with opened(tmp_path) as partial:
        assert (partial.offset, (tmp_path / "k.part").read_bytes()) == (0, b"")
        partial.restart(validator='"a"', total=6)
        partial.append(b"horses")
        partial.checkpoint()
    with opened(tmp_path) as partial:
        assert (partial.offset, partial.validator, partial.is_whole) == (6, '"a"', True)


def test_what_was_there_counts_until_other_bytes_come(tmp_path: Path) -> None:
    """A restart drops nothing by itself; with the first new byte nothing that was said before holds any more."""
    with opened(tmp_path) as partial:
        partial.restart()
        partial.append(b"horses")
        partial.finish(WHOLE)
    with opened(tmp_path) as partial:
        partial.restart()
        assert (partial.offset, partial.finished) == (0, None)
    with opened(tmp_path) as partial:
        assert (partial.offset, partial.finished) == (6, WHOLE)
        partial.restart()
        partial.append(b"x")
    with opened(tmp_path) as partial:
        assert (partial.offset, partial.finished, (tmp_path / "k.part").read_bytes()) == (0, None, b"")


def test_one_that_cannot_be_read_is_let_go(tmp_path: Path) -> None:
    """Its lock too: the next who comes hears the same."""
    (tmp_path / "k.json").mkdir()
    for _ in range(2):
        with pytest.raises(OSError, match=r"directory|denied"):
            open_partial(lambda: tmp_path, "k", 1000)
