"""Where gateways of others are found: in folders that the environment names, and in packages that say so by an entry point."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

from prefect_happyhorse.domain.settings import written

__all__ = ["ENTRY_POINTS", "FOLDERS", "discovered"]

FOLDERS = "HAPPYHORSE_GATEWAYS"
"""The environment variable that names folders of gateway files, separated as the system separates paths."""

ENTRY_POINTS = "prefect_happyhorse.gateways"
"""The group of entry points; each names a package that holds gateway files."""


def discovered() -> Iterator[tuple[str, str | OSError | ImportError | ValueError]]:
    """Each file of a gateway that is none of the package's own: where it is, and its text or why there is none."""
    for name in filter(None, written("gateways").split(os.pathsep)):
        folder = Path(name).expanduser()
        try:
            found = sorted(file for file in folder.iterdir() if file.suffix == ".toml")
        except NotADirectoryError:
            found = [folder]
        except OSError as error:
            yield str(folder), error
            continue
        for file in found:
            yield str(file), _text(file)
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda one: one.name):
        try:
            inside = sorted((file for file in files(point.value).iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
        except (OSError, ImportError, ValueError) as error:
            yield f"entry point {point.name} = {point.value}", error
            continue
        for file in inside:
            yield f"{point.value}/{file.name}", _text(Path(str(file)))


def _text(file: Path) -> str | OSError | ValueError:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        return error
