"""How a command is run, and what it is given."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from prefect_happyhorse.cli import main


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def request_file(folder: Path, **request: object) -> str:
    path = folder / "request.json"
    path.write_text(json.dumps({"capability": "text_to_image", "model": "gpt-image-2", "prompt": "A white horse"} | request))
    return str(path)
