"""A gateway in a dialect of its own is a package: installed, it is there, and nothing here knows it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent / "openai_videos"
KEY = "sk-openai-videos-0123456789"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package in it, as pip installs it from its own folder."""
    folder = tmp_path_factory.mktemp("installed")
    source = shutil.copytree(PACKAGE, folder / "source")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    subprocess.run([*pip, "--target", str(folder / "target"), str(source)], check=True, capture_output=True, text=True)
    return folder / "target"


def run(installed: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(installed), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, *words], env={**os.environ, "PYTHONPATH": path, **environment}, capture_output=True, text=True, check=False
    )


def happyhorse(installed: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run(installed, "-m", "prefect_happyhorse.cli", *words)


def test_it_is_listed(installed: Path) -> None:
    """With its models, and without a problem."""
    listed = happyhorse(installed, "gateways")
    assert (listed.returncode, "openai_videos" in listed.stdout) == (0, True), listed.stderr
    models = happyhorse(installed, "models", "--gateway", "openai_videos", "--json")
    assert models.returncode == 0, models.stderr
    assert sorted((one["capability"], one["model"]) for one in map(json.loads, models.stdout.splitlines())) == [
        ("image_to_video", "sora-2"),
        ("text_to_video", "sora-2"),
    ]


def test_it_does_what_every_gateway_has_to_do(installed: Path) -> None:
    """Its data, the body of each route, and a job of each capability on the sandbox that it brings."""
    checked = happyhorse(installed, "gateways", "check", str(installed / "happyhorse_openai_videos" / "openai_videos.toml"))
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.count("submitted, polled, stored") == 2


def test_it_is_not_imported_before_it_is_spoken(installed: Path) -> None:
    """Nor is Prefect: the command line starts as fast as without it."""
    code = (
        "import sys; from prefect_happyhorse.cli.commands import COMMANDS, main; [main.get_command(None, name) for name in COMMANDS];"
        " print([name for name in sys.modules if 'openai_videos' in name or name == 'prefect'])"
    )
    assert run(installed, "-c", code).stdout == "[]\n"


def test_it_may_be_imported_first(installed: Path) -> None:
    """As its own tests do."""
    code = "import happyhorse_openai_videos as it; from prefect_happyhorse.gateways import get_gateway as get"
    code += "; print(type(get('openai_videos')) is it.OpenAIVideos)"
    done = run(installed, "-c", code)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_preview_names_the_file(installed: Path, tmp_path: Path) -> None:
    """Whose bytes are not read for it."""
    request = {"capability": "image_to_video", "model": "sora-2", "prompt": "A horse", "image": "https://example.com/horse.png"}
    (tmp_path / "request.json").write_text(json.dumps(request))
    shown = happyhorse(installed, "preview", str(tmp_path / "request.json"), "--gateway", "openai_videos")
    assert shown.returncode == 0, shown.stderr
    assert "(file: 'https://example.com/horse.png')" in shown.stdout


def test_videos_are_bought_once_collected_with_the_key_and_deleted(installed: Path, tmp_path: Path) -> None:
    """From the command line and from a program; the key stands in nothing that is kept or printed."""
    script = str(Path(__file__).with_name("buy_videos.py"))
    done = run(installed, script, str(tmp_path), OPENAI_VIDEOS_API_KEY=KEY, HAPPYHORSE_HOME=str(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    first, second, *errors = told["printed"]
    assert first == second, errors
    (charged,) = told["ledger"]
    assert (charged["capability"], charged["inputs"], charged["downloads"], charged["polls"]) == ("image_to_video", 1, 1, 1)
    assert (told["without a key"], told["with the key"]) == (401, 200)
    assert (told["deleted"]["accepted"], told["deleted"]["may_be_charged"]) == (True, True)
    assert "happyhorse jobs forget" in told["deleted"]["again"]
    assert told["charged"] == [False, False]
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in kept if path.suffix == ".mp4"]
    assert not [path for path in kept if KEY.encode() in path.read_bytes()]
    assert KEY not in done.stdout + done.stderr
