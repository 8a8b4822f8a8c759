"""The settings as Prefect's integrations have them: from the environment, `.env`, `prefect.toml`, `pyproject.toml` and the profile."""

from __future__ import annotations

import logging
import os
from collections.abc import Hashable
from functools import lru_cache

from prefect.settings.base import PrefectBaseSettings, build_settings_config

from prefect_happyhorse.domain import settings

__all__ = ["HappyHorseSettings", "read"]

_WHERE = ("PREFECT_PROFILE", "PREFECT_HOME", "PREFECT_PROFILES_PATH")


class HappyHorseSettings(PrefectBaseSettings, settings.Settings):  # pyright: ignore[reportIncompatibleVariableOverride] -- of `model_config`
    """The settings of `prefect_happyhorse.domain.settings`, read as Prefect reads its own.

    In `prefect.toml` they stand in the table `integrations.happyhorse`, in `pyproject.toml` in `tool.prefect.integrations.happyhorse`.

    Example:
        >>> HappyHorseSettings().call_timeout_s
        60.0
    """

    model_config = build_settings_config(("integrations", "happyhorse"), frozen=True)


def read() -> settings.Settings:
    """The settings that hold now. The environment may change; files are read once."""
    by_environment = settings.from_environment()
    where = (*(os.environ.get(name) for name in _WHERE), _here())
    return _read(by_environment.gateways, tuple(vars(by_environment).values()), where)


def _here() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        # A worker's folder may be gone while its run goes on.
        return None


@lru_cache(maxsize=8)
def _read(gateways: str, *_where: Hashable) -> settings.Settings:
    found = HappyHorseSettings()
    if found.gateways != gateways:
        raise ValueError(
            "The setting gateways must stand in the environment, since gateways are read before Prefect is: set"
            f" {settings.PREFIXES[0]}GATEWAYS. Nothing was sent."
        )
    return found


def use() -> None:
    """Read the settings as Prefect does in this process, and log from the level that they say."""
    settings.read_by(read)
    try:
        level = settings.current().log_level
    except ValueError:
        # Whoever needs one says what is wrong; to import something is no such need.
        return
    if level is not None:
        logging.getLogger("prefect_happyhorse").setLevel(level)


use()
