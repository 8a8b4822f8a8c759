"""Where gateways and dialects of others are found: in folders that the environment names, and in packages that say so by an entry point."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from prefect_happyhorse.domain.errors import CatalogError
from prefect_happyhorse.domain.settings import written

__all__ = ["DIALECTS", "ENTRY_POINTS", "FOLDERS", "SANDBOX_DIALECTS", "dialect_class", "dialect_names", "discovered"]

FOLDERS = "HAPPYHORSE_GATEWAYS"
"""The environment variable that names folders of gateway files, separated as the system separates paths."""

ENTRY_POINTS = "prefect_happyhorse.gateways"
"""The group of entry points; each names a package that holds gateway files."""

DIALECTS = "prefect_happyhorse.dialects"
"""The group of entry points that name the class of a wire protocol, a `prefect_happyhorse.gateways.Gateway`."""

SANDBOX_DIALECTS = "prefect_happyhorse.sandbox_dialects"
"""The group of entry points that name the class which emulates one, a `prefect_happyhorse.sandbox.dialects.base.Dialect`."""

_Class = TypeVar("_Class")

_MOST_BYTES = 4_000_000


def discovered() -> Iterator[tuple[str, str | OSError | ImportError | ValueError]]:
    """Each file of a gateway that is none of the package's own: where it is, and its text or why there is none."""
    for name in filter(None, written("gateways").split(os.pathsep)):
        folder = Path(name)
        try:
            folder = folder.expanduser()
            found = sorted(file for file in folder.iterdir() if file.suffix == ".toml")
        except NotADirectoryError:
            found = [folder]
        except RuntimeError as error:
            yield name, ValueError(str(error))
            continue
        except OSError as error:
            yield name, error
            continue
        for file in found:
            yield str(file), _text(file)
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda one: one.name):
        try:
            inside = sorted(file for folder in _folders(point.value) for file in folder.iterdir() if file.suffix == ".toml")
        except (OSError, ImportError, ValueError) as error:
            yield f"entry point {point.name} = {point.value}", error
            continue
        for file in inside:
            yield f"{point.value}/{file.name}", _text(file)


def _folders(package: str) -> list[Path]:
    """Where a package's files are. It is not imported: what it imports may be this very module, and costs every start its time."""
    name, *inner = package.split(".")
    spec = find_spec(name)
    places = () if spec is None else spec.submodule_search_locations or ()
    if folders := [folder for place in places if (folder := Path(place, *inner)).is_dir()]:
        return folders
    raise ModuleNotFoundError(f"there is no package {package!r}")


def dialect_names(group: str = DIALECTS) -> frozenset[str]:
    """The dialects that packages bring; none of them is imported for that."""
    return frozenset(point.name for point in entry_points(group=group))


def dialect_class(name: str, kind: type[_Class], group: str = DIALECTS) -> type[_Class]:
    """The class that a package brings for a dialect, imported now; CatalogError when it cannot be used."""
    points = {point.value: point for point in entry_points(group=group, name=name)}
    if len(points) != 1:
        found = f"{len(points)} packages bring it: {', '.join(sorted(points))}" if points else "no package brings it"
        raise CatalogError(f"The dialect {name!r} must have one entry point {group} ({found}).")
    [(value, point)] = points.items()
    try:
        found = point.load()
    except (Exception, SystemExit) as error:  # A stranger's module may raise anything.
        raise CatalogError(f"The dialect {name!r} cannot be used: entry point {group}: {value}: {type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise CatalogError(f"The dialect {name!r} cannot be used: entry point {group}: {value} must be a subclass of {kind.__qualname__}.")
    return found


def _text(file: Path) -> str | OSError | ValueError:
    try:
        # A pipe would be waited for, and a device has no end.
        if not file.is_file() or file.stat().st_size > _MOST_BYTES:
            return ValueError(f"it must be a file of at most {_MOST_BYTES:,} bytes")
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        return error
