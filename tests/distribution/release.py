"""`python -m tests.distribution.release`: whether what lies here is a release."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import prefect_happyhorse

from .project import ROOT

__all__ = ["release_problems"]

_HEADING = re.compile(r"^## \[(.+?)\](.*)$", re.MULTILINE)


def release_problems(changelog: str, version: str, *, tag: str | None = None, changed: str = "") -> Iterator[str]:
    """Why a version cannot be released: its changelog, its tag, or files that no commit holds."""
    _, *parts = _HEADING.split(changelog)
    sections = list(zip(parts[::3], parts[1::3], parts[2::3], strict=True))
    if sections and sections[0][0] == "Unreleased":
        if sections[0][2].strip():
            yield f"CHANGELOG.md: what stands under [Unreleased] must stand under `## [{version}] - YYYY-MM-DD`"
        del sections[0]
    name, date = sections[0][:2] if sections else ("none", "")
    if name != version:
        yield f"CHANGELOG.md: the first release must be {version}, which is __version__ of the package (got {name})"
    elif re.fullmatch(r" - \d{4}-\d{2}-\d{2}", date) is None:
        yield f"CHANGELOG.md: the heading must be `## [{version}] - YYYY-MM-DD` (got `## [{name}]{date}`)"
    if tag is not None and tag != f"v{version}":
        yield f"The tag must be v{version} (got {tag})"
    if changed:
        yield f"Each file must be committed, for whatever lies in the folders is packed:\n{changed.rstrip()}"


def main() -> None:
    """Print what is wrong, and fail if anything is."""
    command = ["git", "status", "--porcelain"]
    git = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    problems = list(release_problems(changelog, prefect_happyhorse.__version__, tag=os.environ.get("TAG"), changed=git.stdout + git.stderr))
    sys.stderr.write("".join(f"  - {problem}\n" for problem in problems))
    if problems and "--dev" not in sys.argv:
        sys.exit("This is no release. `make release DEV=1` builds, checks and tries it all the same.")


if __name__ == "__main__":
    main()
