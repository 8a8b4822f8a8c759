"""The folders of this machine that all processes of a user share; nothing else computes such a folder."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from platformdirs import PlatformDirs

from prefect_happyhorse.domain.settings import current

__all__ = ["cache_folder", "state_folder"]

_DIRS = PlatformDirs("prefect-happyhorse", appauthor=False)


def state_folder() -> Path:
    """Where access tokens and spooled journal entries lie: `HAPPYHORSE_HOME`, or where the system keeps the state of applications.

    A relative `HAPPYHORSE_HOME` counts from where the process is when it is first asked for.
    """
    return _home() or _DIRS.user_state_path


def cache_folder() -> Path:
    """Where partial downloads lie: `cache` in `HAPPYHORSE_HOME`, or where the system keeps what can be made again."""
    home = _home()
    return home / "cache" if home else _DIRS.user_cache_path


def _home() -> Path | None:
    named = current().home
    return None if named is None else _absolute(named)


@lru_cache
def _absolute(named: Path) -> Path:
    # Once in a process: what was spooled before it goes elsewhere has to be found after.
    return named.expanduser().absolute()
