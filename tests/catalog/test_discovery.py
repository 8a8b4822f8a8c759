"""Gateways of folders and of other packages: found by a new process, and one that is wrong keeps no other from working."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prefect_happyhorse.catalog.lines import line_of

from .test_loader import GOOD

SHOW = """
from prefect_happyhorse.catalog import GATEWAYS, routes
from prefect_happyhorse.catalog.loader import PROBLEMS
print([name for name in GATEWAYS if name in ("stable", "barn")], len(routes()) > 60)
print(*PROBLEMS, sep="\\n")
"""


def told(**environment: str) -> tuple[str, str]:
    """Which of the gateways a new process finds, and what it says of the others."""
    done = subprocess.run(
        [sys.executable, "-c", SHOW], env=os.environ | environment, capture_output=True, text=True, timeout=60, check=True
    )
    found, _, problems = done.stdout.partition("\n")
    return found, problems


def test_the_files_of_a_folder_are_gateways(tmp_path: Path) -> None:
    """Of several folders, or a file by its own name; what is wrong is told with file and line, and the others work on."""
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "stable.toml").write_text(GOOD)
    (tmp_path / "one" / "wrong.toml").write_text(GOOD.replace('gateway = "stable"', 'gateway = "wrong"').replace("max_bytes", "most_bytes"))
    (tmp_path / "one" / "none.toml").write_bytes(b"\xff")
    (tmp_path / "barn.toml").write_text(GOOD.replace('gateway = "stable"', 'gateway = "barn"'))
    folders = os.pathsep.join([str(tmp_path / "one"), str(tmp_path / "barn.toml"), str(tmp_path / "missing")])
    found, problems = told(HAPPYHORSE_GATEWAYS=folders)
    assert found == "['stable', 'barn'] True"
    assert f"{tmp_path}/one/wrong.toml: The data of a gateway is wrong:\n  line 11: limits.picture.max_bytes: Field required" in problems
    assert "one/none.toml" in problems
    assert "missing" in problems


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="The system has no named pipes.")
def test_what_is_no_file_of_a_gateway_is_left_out(tmp_path: Path) -> None:
    """However deep, odd or endless it is: each is named, and nothing else is touched by it."""
    (tmp_path / "stable.toml").write_text(GOOD)
    (tmp_path / "deep.toml").write_text(f"x = {'[' * 100_000}")
    other = GOOD.replace('gateway = "stable"', 'gateway = "odd"')
    (tmp_path / "listed.toml").write_text(other.replace('capability = "', 'response = ["a"]\ncapability = "', 1))
    (tmp_path / "table.toml").write_text(other.replace("limits = {", "limits = {a = {b = 1}, ", 1))
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "zero.toml").symlink_to("/dev/zero")
    found, problems = told(HAPPYHORSE_GATEWAYS=os.pathsep.join(["~nosuchuser/x", str(tmp_path)]))
    assert found == "['stable'] True"
    for name in ("deep", "listed", "pipe", "zero", "nosuchuser"):
        assert name in problems, name


@pytest.mark.parametrize("taken", ["infiflow", "stable"])
def test_two_files_of_one_id(tmp_path: Path, taken: str) -> None:
    """The first is kept, and the package's own comes before all."""
    for number in ("1", "2"):
        (tmp_path / f"{number}.toml").write_text(GOOD.replace('gateway = "stable"', f'gateway = "{taken}"').replace("Pony", number))
    _, problems = told(HAPPYHORSE_GATEWAYS=str(tmp_path))
    assert problems.count(f"there is already a gateway '{taken}'") == (2 if taken == "infiflow" else 1)


def test_a_package_brings_its_gateways(tmp_path: Path) -> None:
    """By an entry point that names what holds the files; one that names nothing is told."""
    (tmp_path / "stable_gateway").mkdir()
    (tmp_path / "stable_gateway" / "__init__.py").touch()
    (tmp_path / "stable_gateway" / "stable.toml").write_text(GOOD)
    made = tmp_path / "stable_gateway-1.0.dist-info"
    made.mkdir()
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: stable-gateway\nVersion: 1.0\n")
    (made / "entry_points.txt").write_text("[prefect_happyhorse.gateways]\nstable = stable_gateway\ngone = no_such_package\n")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    found, problems = told(PYTHONPATH=path)
    assert found == "['stable'] True"
    assert "entry point gone = no_such_package" in problems


def test_lines_are_found_by_headers_and_keys() -> None:
    """Of a table, a key, a table inside another, an array of tables, and an entry of an array."""
    lines = GOOD.splitlines()
    for place, text in (
        (("gateway", "auth"), 'auth = "Authorization: Bearer <key>"'),
        (("gateway", "horse"), "[gateway]"),
        (("limits", "picture", "role"), 'role = "image"'),
        (("route", 0, "model"), 'model = "pony"'),
        (("shapes", "plain", "fields", 1, "to"), '    { to = "prompt", from = "prompt", required = true },'),
    ):
        assert lines[line_of(GOOD, place) - 1] == text
    assert line_of(GOOD, ("stable",)) == 1
