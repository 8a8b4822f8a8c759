"""The types of the public tasks, as people's type checkers see them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("basedpyright", reason="it comes with the development lock")

FILE = Path(__file__).with_name("calls.py")


def test_calls_have_their_types_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    """In sync and async code; each line that is wrong is refused by the rule that its comment names."""
    settings = {"include": [str(FILE)], "typeCheckingMode": "strict", "reportUnnecessaryTypeIgnoreComment": "error"}
    project = tmp_path / "pyrightconfig.json"
    project.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--project", str(project), "--pythonpath", sys.executable, "--outputjson"]
    told = subprocess.run(command, capture_output=True, text=True, check=False, cwd=FILE.parents[2])
    found = json.loads(told.stdout)
    assert found["summary"]["filesAnalyzed"] >= 1
    assert [f"{one['range']['start']['line'] + 1}: {one['message']}" for one in found["generalDiagnostics"]] == []
