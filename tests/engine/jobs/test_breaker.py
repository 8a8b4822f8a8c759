"""A gateway that fails again and again rests, and nothing about that can fail a job."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from prefect_happyhorse.engine.jobs import breaker
from prefect_happyhorse.engine.jobs.breaker import is_resting, note_failure, note_success
from prefect_happyhorse.gateways import Account

ONE = Account(gateway="ttapi", base_url="https://api.ttapi.io", key=SecretStr("sesame-1234"))
OTHERS = [
    Account(gateway="ttapi", base_url="https://proxy.example"),
    Account(gateway="ttapi", base_url="https://api.ttapi.io", label="film"),
    Account(gateway="infiflow", base_url="https://api.ttapi.io"),
]


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[float]:
    """The time of a machine whose folder is empty."""
    monkeypatch.setenv("HAPPYHORSE_HOME", str(tmp_path / "home"))
    time = [1_000_000.0]
    monkeypatch.setattr(breaker, "_now", lambda: time[0])
    return time


async def test_each_rest_is_longer_up_to_ten_minutes(now: list[float], tmp_path: Path) -> None:
    """From the third failure in a row on; whoever was on the way there when a rest began does not make it longer."""
    rests: list[float] = []
    for _ in range(8):
        rests.append(await note_failure(ONE))
        assert await note_failure(ONE) == 0.0 or not rests[-1]
        now[0] += 601.0
    assert rests == [0.0, 60.0, 120.0, 240.0, 480.0, 600.0, 600.0, 600.0]
    assert "sesame" not in "".join(file.read_text() for file in (tmp_path / "home" / "rests").iterdir())


async def test_another_account_or_address_does_not_rest_with_it(now: list[float]) -> None:
    """It may work."""
    for _ in range(3):
        await note_failure(ONE)
    assert await is_resting([ONE, *OTHERS]) == [True, False, False, False]
    await note_success(ONE)
    await note_success(ONE)
    assert await is_resting([ONE]) == [False]
    assert [await note_failure(ONE) for _ in range(3)] == [0.0, 0.0, 60.0]


async def test_a_clock_that_is_put_back_lets_nobody_rest_for_days(now: list[float]) -> None:
    """A rest that ends later than any rest could is none."""
    for _ in range(3):
        await note_failure(ONE)
    now[0] -= 86_400.0
    assert await is_resting([ONE]) == [False]


@pytest.mark.parametrize("content", ["", "{", '{"failures": -1}', '{"failures": 1e999}', '{"rests_until": NaN}'])
async def test_a_file_that_is_spoilt_is_none(now: list[float], tmp_path: Path, content: str) -> None:
    """Counting begins anew."""
    await note_failure(ONE)
    (file,) = (tmp_path / "home" / "rests").iterdir()
    file.write_text(content)
    assert await is_resting([ONE]) == [False]
    assert [await note_failure(ONE) for _ in range(3)] == [0.0, 0.0, 60.0]


async def test_a_folder_that_cannot_be_used_is_none(now: list[float], tmp_path: Path) -> None:
    """Then nobody rests, and nothing fails for it."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "rests").write_text("in the way")
    assert [await note_failure(ONE) for _ in range(4)] == [0.0] * 4
    assert await is_resting([ONE, *OTHERS]) == [False] * 4
    await note_success(ONE)
