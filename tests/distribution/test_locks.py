"""The locks: exact, hashed, without an address, and in step with pyproject.toml and each other."""

from __future__ import annotations

import re

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from .project import LOCKS, ROOT, pyproject


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
    project = pyproject()["project"]
    extras = project["optional-dependencies"]
    bounds: dict[str, set[Version]] = {}
    for requirement in map(Requirement, [*project["dependencies"], *extras["media"], *extras["sandbox"], *extras["s3"], *extras["data"]]):
        if requirement.name != project["name"]:
            bounds[requirement.name] = {Version(bound.version) for bound in requirement.specifier if bound.operator == ">="}

    lowest = _pins("requirements-lowest.lock")

    assert {name: {min(lowest[name])} for name in bounds} == bounds
