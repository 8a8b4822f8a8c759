"""What is shipped: the wheel and the sdist, the locks, the entry points, and what an import costs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import prefect_happyhorse

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "prefect_happyhorse"
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-lowest.lock")


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _build(target: str, folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)], cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.iterdir()
    return built


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


def _requirements(lock: str) -> list[str]:
    """The requirements of a lock, each with its hashes on one line."""
    text = (ROOT / lock).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return [line for line in "\n".join(lines).replace("\\\n", "").splitlines() if line.strip()]


def _pins(lock: str) -> dict[str, set[Version]]:
    pins: dict[str, set[Version]] = {}
    for line in _requirements(lock):
        requirement = Requirement(line.partition("--hash")[0])
        (pin,) = requirement.specifier
        assert pin.operator == "==", line
        pins.setdefault(requirement.name, set()).add(Version(pin.version))
    return pins


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
    info = f"prefect_happyhorse-{_project()['version']}.dist-info"
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
    """The command finds each flow in the wheel, where there is no checkout around it."""
    code = f"from prefect_happyhorse.cli.demo import flow_file; print(flow_file({Path(name).stem!r}))"

    found = Path(_run_installed(installed, code).strip())

    assert found == installed / "prefect_happyhorse" / "flows" / name
    assert found.read_bytes() == (ROOT / "flows" / name).read_bytes()


def test_sdist_holds_what_a_build_and_a_test_run_need(tmp_path: Path) -> None:
    """The sdist's top level is the checkout's, less what only serves the repository."""
    version = _project()["version"]
    folders = {name for name in ("src", "flows", "tests", "docs", "deployments") if _files(ROOT / name)}
    files = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", *LOCKS}

    with tarfile.open(_build("sdist", tmp_path)) as archive:
        names = {name.removeprefix(f"prefect_happyhorse-{version}/") for name in archive.getnames()}

    # The two that the build backend adds by itself.
    assert {name.split("/", 1)[0] for name in names} - {"PKG-INFO", ".gitignore"} == folders | files


def test_version_is_told_once() -> None:
    """`__version__` is the version of pyproject.toml."""
    assert prefect_happyhorse.__version__ == _project()["version"]


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


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_names_no_address(lock: str) -> None:
    """A lock says what and by which hash, never where from: that is the machine's to know."""
    text = (ROOT / lock).read_text(encoding="utf-8")

    assert re.findall(r"://|--(?:extra-)?index-url|--find-links|--trusted-host| @ |^-e ", text, flags=re.MULTILINE) == []


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_pins_and_hashes_everything(lock: str) -> None:
    """Each requirement is one exact version with at least one sha256."""
    assert [line for line in _requirements(lock) if not re.search(r"--hash=sha256:[0-9a-f]{64}", line)] == []
    assert {"prefect", "fastapi", "pydantic", "hatchling", "av", "pillow"} <= set(_pins(lock))


def test_demo_and_tests_share_one_environment() -> None:
    """What the demo's lock pins, the tests' lock pins alike: one environment serves both, whichever came first."""
    demo, dev = _pins("requirements.lock"), _pins("requirements-dev.lock")

    assert {name: dev.get(name) for name in demo} == demo


def test_lowest_lock_is_at_the_lower_ends() -> None:
    """The lower end of each dependency is the version that `make test-lowest` runs on."""
    project = _project()
    extras = project["optional-dependencies"]
    bounds: dict[str, set[Version]] = {}
    for requirement in map(Requirement, [*project["dependencies"], *extras["media"], *extras["sandbox"], *extras["s3"]]):
        if requirement.name != project["name"]:
            bounds[requirement.name] = {Version(bound.version) for bound in requirement.specifier if bound.operator == ">="}

    lowest = _pins("requirements-lowest.lock")

    assert {name: {min(lowest[name])} for name in bounds} == bounds
