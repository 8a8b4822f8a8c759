"""What is shipped: the wheel and the sdist, the entry points, and what an import costs."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest
from packaging.metadata import Metadata

import prefect_happyhorse

from .project import LOCKS, ROOT, pyproject

PACKAGE = ROOT / "src" / "prefect_happyhorse"


def _build(target: str, folder: Path, source: Path = ROOT) -> Path:
    """A wheel or an sdist; that of `make release`, where it has built one."""
    if (built := os.environ.get("DIST")) and source == ROOT:
        folder = ROOT / built
    else:
        command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
        subprocess.run(command, cwd=source, check=True, capture_output=True)
    (found,) = folder.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return found


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what an installer would unpack from the wheel, and nothing of the checkout."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            archive.extract(name, folder)
    return folder


def _run_installed(installed: Path, code: str) -> str:
    """Run code in an empty folder where the package is the wheel's; the dependencies are this environment's."""
    empty = installed.parent / "elsewhere"
    empty.mkdir(exist_ok=True)
    # The wheel's copy of the code would count as code that nothing else tests.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=empty,
        env=environment | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_holds_the_package_and_the_flows(wheel: Path) -> None:
    """Every file of the package is in the wheel, py.typed and the routes among them, and the flows; there is nothing else."""
    info = f"prefect_happyhorse-{prefect_happyhorse.__version__}.dist-info"
    package = {f"prefect_happyhorse/{name}" for name in _files(PACKAGE)}
    flows = {f"prefect_happyhorse/flows/{name}" for name in _files(ROOT / "flows")}
    metadata = {f"{info}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")}
    routes = {f"prefect_happyhorse/catalog/data/{gateway}.toml" for gateway in prefect_happyhorse.GATEWAYS}

    with zipfile.ZipFile(wheel) as archive:
        found = set(archive.namelist())

    assert found == package | flows | metadata
    assert {"prefect_happyhorse/py.typed", *routes} <= package


def test_installed_wheel_knows_every_route(installed: Path) -> None:
    """The package works from the wheel alone: it finds its routes as the checkout does."""
    code = "import prefect_happyhorse as p; print(p.__file__); print(len(p.routes()))"

    where, count = _run_installed(installed, code).splitlines()

    assert Path(where) == installed / "prefect_happyhorse" / "__init__.py"
    assert int(count) == len(prefect_happyhorse.routes())


@pytest.mark.parametrize("name", sorted(_files(ROOT / "flows")))
def test_installed_wheel_has_the_flows(installed: Path, name: str) -> None:
    """The command finds each flow in the wheel, where there is no checkout around it, and so does `python -m`."""
    code = f"from prefect_happyhorse.cli.demo import flow_file; print(flow_file({Path(name).stem!r}))"
    code += f"; from importlib.util import find_spec; print(find_spec('prefect_happyhorse.flows.{Path(name).stem}').origin)"

    found, module = map(Path, _run_installed(installed, code).splitlines())

    assert found == module == installed / "prefect_happyhorse" / "flows" / name
    assert found.read_bytes() == (ROOT / "flows" / name).read_bytes()


def test_wheel_says_what_it_is(wheel: Path) -> None:
    """Version, licence, Python, extras and addresses are in the metadata, and the README is its description."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        written = archive.read(name)
    metadata: Message = Parser().parsestr(written.decode())

    # What an index refuses, this refuses.
    assert Metadata.from_email(written, validate=True).description_content_type == "text/markdown"
    project = pyproject()["project"]
    assert metadata["Version"] == prefect_happyhorse.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == project["requires-python"]
    assert set(metadata.get_all("Provides-Extra", [])) == set(project["optional-dependencies"])
    assert dict(line.split(", ") for line in metadata.get_all("Project-URL", [])) == project["urls"]
    assert metadata.get_payload() == (ROOT / "README.md").read_text(encoding="utf-8")


def test_addresses_of_files_lead_to_files() -> None:
    """What the project's addresses name of the repository is there."""
    files = [url.partition("/blob/main/")[2] for url in pyproject()["project"]["urls"].values() if "/blob/main/" in url]

    assert {"CHANGELOG.md", "SECURITY.md"} <= set(files)
    assert [file for file in files if not (ROOT / file).is_file()] == []


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build("sdist", tmp_path_factory.mktemp("sdist"))


def test_sdist_holds_what_a_build_and_a_test_run_need(sdist: Path) -> None:
    """Whatever file the repository keeps is in the sdist too, but for what only serves the repository."""
    folders = ("src", "flows", "tests", "docs", "deployments", ".ci", ".github")
    files = {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "Makefile",
        "mkdocs.yml",
        ".pre-commit-config.yaml",
    }
    # The two that the build backend adds by itself.
    expected = files | {lock for lock in LOCKS if "/" not in lock} | {"PKG-INFO", ".gitignore"}
    expected |= {f"{folder}/{name}" for folder in folders for name in _files(ROOT / folder)}

    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}

    assert names == expected


def test_sdist_builds_the_very_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    """Byte for byte: who builds from the one has what is in the other."""
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()

    assert _build("wheel", tmp_path / "dist", source).read_bytes() == wheel.read_bytes()


def test_version_is_told_once() -> None:
    """The version that is written in the package is the one that was installed."""
    assert version("prefect-happyhorse") == prefect_happyhorse.__version__
    assert "version" not in pyproject()["project"]


def test_prefect_finds_the_collection() -> None:
    """Prefect loads the blocks by their entry point, and the command is installed."""
    (collection,) = entry_points(group="prefect.collections", name="prefect_happyhorse")
    (command,) = entry_points(group="console_scripts", name="happyhorse")

    module = collection.load()

    assert module.GatewayCredentials is prefect_happyhorse.GatewayCredentials
    assert module.MediaStore is prefect_happyhorse.MediaStore
    assert callable(command.load())


def test_import_loads_nothing_that_is_not_needed_yet() -> None:
    """Pillow, PyAV, FastAPI and Prefect's server wait until they are used."""
    heavy = {"PIL", "av", "fastapi", "uvicorn", "prefect.server"}
    code = "import sys, prefect; before = {*sys.modules}; import prefect_happyhorse; print(*{*sys.modules} - before)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())

    assert "prefect_happyhorse" in loaded
    assert loaded & heavy == set()
