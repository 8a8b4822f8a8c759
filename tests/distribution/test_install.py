"""The set-up installs exactly the lock, whatever pip there is and whatever was released since."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from .project import ROOT

# Those of Python 3.10 and 3.11: both look beyond the lock. A pip before 23.1 does not run on Python 3.12.
OLD_PIPS = ["23.0", "23.2.1"] if sys.version_info < (3, 12) else ["23.2.1"]
NEWEST = "newest"


def make_wheel(folder: Path, name: str, version: str, *metadata: str) -> Path:
    """An empty package with the further lines of metadata."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *metadata, ""]),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"]))
    return path


@pytest.fixture(scope="module")
def pip_wheel(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Fetch a pip by its version, from the index that the set-up itself needs."""

    @cache
    def fetch(version: str) -> Path:
        folder = tmp_path_factory.mktemp("pip")
        requirement = "pip" if version == NEWEST else f"pip=={version}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.fail(f"{requirement}, with which the set-up is tested, could not be fetched from the package index: {done.stderr}")
        (wheel,) = folder.glob("pip-*.whl")
        return wheel

    return fetch


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A project whose lock holds alpha, beta and gamma, and an index folder where beta has a newer release.

    alpha requires `beta[more]`: the extras are what makes an old pip look for beta beyond the lock.
    """
    index, folder = tmp_path / "index", tmp_path / "checkout"
    index.mkdir()
    folder.mkdir()
    locked = [
        make_wheel(index, "alpha", "1.0", "Requires-Dist: beta[more]>=1"),
        make_wheel(index, "beta", "1.0", "Provides-Extra: more", "Requires-Dist: gamma; extra == 'more'"),
        make_wheel(index, "gamma", "1.0"),
    ]
    make_wheel(index, "beta", "2.0", "Provides-Extra: more", "Requires-Dist: gamma; extra == 'more'")
    lines = [f"{wheel.name.split('-')[0]}==1.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n" for wheel in locked]
    (folder / "requirements-dev.lock").write_text("".join(lines))
    # A build backend that has built already: the real one would have to be in the lock.
    project = make_wheel(folder, "project", "0.1", "Requires-Dist: alpha")
    (folder / "backend.py").write_text(
        f"""import shutil\ndef build_editable(to, *_): shutil.copy({project.name!r}, to); return {project.name!r}"""
    )
    (folder / "pyproject.toml").write_text('[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n')
    return folder


def set_up(checkout: Path, pip: Path, makefile: str) -> subprocess.CompletedProcess[str]:
    """Run `make setup` in an environment that has this pip, with the index folder as the only index."""
    environment = checkout / ".venv"
    venv.create(environment, with_pip=False)
    (packages,) = environment.glob("lib/python*/site-packages")
    with zipfile.ZipFile(pip) as archive:
        archive.extractall(packages)
    (environment / ".python-{}.{}".format(*sys.version_info)).touch()
    (checkout / "Makefile").write_text(makefile)
    # Neither this machine's index nor the `make` that runs these tests has a say.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "COVERAGE_", "MAKE", "MFLAGS"))}
    index = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(checkout.parent / "index")}
    command = ["make", f"PYTHON={sys.executable}", "VENV=.venv", "setup"]
    return subprocess.run(command, cwd=checkout, env=kept | index, capture_output=True, text=True, check=False)


def installed(checkout: Path) -> dict[str, str]:
    code = "import json; from importlib.metadata import distributions as d; print(json.dumps({one.name: one.version for one in d()}))"
    command = [str(checkout / ".venv" / "bin" / "python"), "-c", code]
    return json.loads(subprocess.run(command, cwd="/", capture_output=True, text=True, check=True).stdout)


@pytest.fixture
def makefile() -> str:
    return (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("version", [*OLD_PIPS, NEWEST])
def test_exactly_the_lock_is_installed(version: str, pip_wheel: Callable[[str], Path], checkout: Path, makefile: str) -> None:
    """The newer release is not looked at, and nothing is missing."""
    pip = pip_wheel(version)

    done = set_up(checkout, pip, makefile)

    assert done.returncode == 0, done.stderr
    assert "No broken requirements found." in done.stdout
    assert installed(checkout) == {"alpha": "1.0", "beta": "1.0", "gamma": "1.0", "project": "0.1", "pip": pip.name.split("-")[1]}


@pytest.mark.parametrize("version", OLD_PIPS)
def test_an_old_pip_needs_no_deps(version: str, pip_wheel: Callable[[str], Path], checkout: Path, makefile: str) -> None:
    """Without --no-deps the index folder above stops the set-up, so the test above does prove something."""
    done = set_up(checkout, pip_wheel(version), makefile.replace("--no-deps --require-hashes", "--require-hashes"))

    assert done.returncode != 0
    assert "In --require-hashes mode, all requirements must have their versions pinned with ==." in done.stderr
    assert "beta[more]>=1" in done.stderr


def test_an_incomplete_lock_is_told(pip_wheel: Callable[[str], Path], checkout: Path, makefile: str) -> None:
    """What --no-deps does not notice, `pip check` does."""
    lock = checkout / "requirements-dev.lock"
    lock.write_text("".join(line for line in lock.read_text().splitlines(keepends=True) if not line.startswith("beta")))

    done = set_up(checkout, pip_wheel(NEWEST), makefile)

    assert done.returncode != 0
    assert "alpha 1.0 requires beta, which is not installed." in done.stdout


def test_every_lock_is_installed_in_the_same_way(makefile: str) -> None:
    """Nothing but the recipe that is tested here installs a lock, and the image has the same."""
    dockerfile = (ROOT / "deployments" / "Dockerfile").read_text(encoding="utf-8")
    for text in (makefile, dockerfile):
        (line,) = [line for line in text.splitlines() if "--require-hashes" in line]
        assert "--no-deps --require-hashes -r " in line
        assert "pip check" in text.replace("$(PIP)", "pip")
