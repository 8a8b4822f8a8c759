"""A release: what it asks for, and how it is published."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from .project import ROOT, pyproject
from .release import release_problems

WORKFLOWS = ROOT / ".github" / "workflows"
RELEASED = "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-11-30\n\n- A thing.\n\n## [1.2.2] - 2026-11-01\n"


def workflow(name: str) -> dict[str, Any]:
    return yaml.safe_load((WORKFLOWS / name).read_text(encoding="utf-8"))


def test_a_version_that_the_changelog_names_may_be_released() -> None:
    """Under a heading with its date; an empty [Unreleased] may stand above."""
    assert list(release_problems(RELEASED, "1.2.3", tag="v1.2.3")) == []
    assert list(release_problems(RELEASED.replace("## [Unreleased]\n\n", ""), "1.2.3")) == []


@pytest.mark.parametrize(
    ("changelog", "how", "told"),
    [
        (RELEASED.replace("[Unreleased]\n", "[Unreleased]\n\n- More.\n"), {}, "must stand under `## [1.2.3] - YYYY-MM-DD`"),
        (RELEASED.replace("1.2.3", "1.2.4"), {}, "the first release must be 1.2.3, which is __version__ of the package (got 1.2.4)"),
        ("# Changelog\n\n## [Unreleased]\n", {}, "(got none)"),
        (RELEASED.replace(" - 2026-11-30", ""), {}, "the heading must be `## [1.2.3] - YYYY-MM-DD` (got `## [1.2.3]`)"),
        (RELEASED, {"tag": "v1.2.2"}, "The tag must be v1.2.3 (got v1.2.2)"),
        (RELEASED, {"changed": "?? src/stray.py\n"}, "whatever lies in the folders is packed:\n?? src/stray.py"),
    ],
)
def test_what_is_no_release_is_told(changelog: str, how: dict[str, Any], told: str) -> None:
    """Each reason by itself, with what is asked for and what is there."""
    (problem,) = release_problems(changelog, "1.2.3", **how)
    assert told in problem


def test_ci_checks_each_python_that_is_supported() -> None:
    """By the command that everybody has."""
    (job,) = workflow("ci.yml")["jobs"].values()
    pythons = [line.rpartition(" ")[2] for line in pyproject()["project"]["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert job["strategy"]["matrix"]["python"] == pythons
    assert [step["run"].split()[:2] for step in job["steps"] if "run" in step] == [["make", "check"]]


def test_only_what_publishes_may_publish() -> None:
    """Its job runs no code of the project, and no job holds a secret."""
    build, publish = workflow("release.yml")["jobs"].values()
    assert (build["permissions"], publish["permissions"]) == ({"contents": "read"}, {"id-token": "write"})
    assert [step["uses"].partition("@")[0] for step in publish["steps"]] == ["actions/download-artifact", "pypa/gh-action-pypi-publish"]
    assert all("secrets." not in file.read_text(encoding="utf-8") for file in WORKFLOWS.iterdir())
