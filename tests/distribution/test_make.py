"""The commands that everybody uses: what `make` shows, and what CI runs of it."""

from __future__ import annotations

import re
import subprocess

from .project import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
# Folders of tests that `make unit` leaves out: they start servers, processes, browsers, builds or the type checker.
NOT_UNIT = {
    "artifacts",
    "bench",
    "cli",
    "deployments",
    "distribution",
    "docs",
    "e2e",
    "flows",
    "gallery",
    "packages",
    "reliability",
    "simulation",
    "tasks",
    "typing",
}


def _variable(name: str) -> list[str]:
    command = ["make", "--silent", "--file=-", "print"]
    rule = f"include Makefile\nprint: ; @echo $({name})\n"
    return subprocess.run(command, cwd=ROOT, input=rule, capture_output=True, text=True, check=True).stdout.split()


def test_help_shows_every_target() -> None:
    """Whatever can be called is shown, with what it does."""
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", MAKEFILE, re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    assert phony is not None

    command = ["make", "--silent", "help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert {line.split()[0] for line in shown.splitlines()} == targets == set(phony[1].split())
    assert all(len(line.split()) > 2 for line in shown.splitlines())


def test_every_folder_of_tests_is_in_the_unit_tests_or_left_out() -> None:
    """A new room is not forgotten: it is named either in the Makefile or here."""
    folders = {path.name for path in (ROOT / "tests").iterdir() if any(path.rglob("test_*.py"))}
    unit = {name.removeprefix("tests/") for name in _variable("UNIT") if name.startswith("tests/")}

    assert folders - unit - NOT_UNIT == set()
    assert unit & NOT_UNIT == set()


def test_ci_calls_the_readmes_own_test_command() -> None:
    """What a reader is told to run is what CI runs, and the hooks run what `make lint` runs."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")

    assert re.search(r"^make test\b", readme, re.MULTILINE)
    assert {"make lint", "make types", "make test"} <= set(ci)
    assert all(f".venv/bin/{tool}" in hooks for tool in ("ruff check", "ruff format", "lint-imports"))
