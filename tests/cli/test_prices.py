"""What each route costs, as the command line tells it, and which prices are old."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from prefect_happyhorse.cli.commands import main

LIST = """
[[price]]
model = "gpt-image-2"
per = "output"
amount = "0.4"
currency = "CNY"
dated = 2026-01-02
"""


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["prices", *words])


def told(*words: str) -> dict[tuple[str, str, str | None], dict[str, Any]]:
    lines = [json.loads(line) for line in run(*words, "--json").stdout.splitlines()]
    return {(line["capability"], line["model"], line.get("resolution")): line for line in lines}


def test_each_route_has_its_price_and_whose_it_is() -> None:
    """The maker's for a reseller, another for another region, and how many have none."""
    shown = run("--gateway", "ttapi")
    assert "0.9 CNY per second at 720p" in " ".join(shown.stdout.split())
    assert "the maker, not your contract" in " ".join(shown.stdout.split())
    assert "2 of 2 routes have a price" in shown.stderr
    route = ("text_to_video", "happyhorse-1.1-t2v", "480p")
    assert told("--gateway", "dashscope")[route]["amount"] == "0.45"
    assert told("--gateway", "dashscope", "--region", "singapore")[route]["amount"] == "0.524594"
    assert "routes have a price; of the others none is known, which is not zero" in run("--gateway", "dashscope").stderr


def test_ones_own_list_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And grows old as every other."""
    (tmp_path / "prices.toml").write_text(LIST)
    monkeypatch.setenv("HAPPYHORSE_PRICES", str(tmp_path / "prices.toml"))
    assert told("--gateway", "happyhorse")["text_to_image", "gpt-image-2", None]["source"] == "your price list"
    checked = run("check")
    assert (checked.exit_code, "gpt-image-2, your price list in HAPPYHORSE_PRICES: " in checked.stdout) == (1, True)
    monkeypatch.setenv("HAPPYHORSE_PRICES", str(tmp_path / "none.toml"))
    assert run("--gateway", "happyhorse").exit_code == 1


def test_a_region_that_is_not_there_is_refused() -> None:
    """Before anything is shown."""
    for words in (("--region", "beijing"), ("--gateway", "dashscope", "--region", "paris"), ("--gateway", "ttapi", "--region", "beijing")):
        assert run(*words).exit_code == 2


def test_the_command_line_starts_without_prefect() -> None:
    """Which takes a second or two to import; whoever needs it imports it then."""
    looks = "import sys; from prefect_happyhorse.cli.commands import COMMANDS, main; [main.get_command(None, name) for name in COMMANDS]"
    looks += "; sys.exit('prefect' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", looks], timeout=60, check=False).returncode == 0
