"""Where a step of a run says what it does."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any, TypeAlias

from prefect.logging import get_logger, get_run_logger
from prefect.logging.loggers import PrefectLogAdapter

from prefect_happyhorse.domain.settings import current
from prefect_happyhorse.runtime.cancellation import flow_run_id

__all__ = ["Log", "run_logger"]


# As a string, since Python 3.10's LoggerAdapter takes no parameter when it runs.
Log: TypeAlias = "logging.Logger | logging.LoggerAdapter[Any]"


def run_logger() -> Log:
    """The flow run's logger; without a flow run, as in a notebook, one that Prefect prints."""
    if flow_run_id() is None:
        # What sets up Prefect's log; a script that asks for a task alone has not imported it.
        import_module("prefect.main")
    # What a task's own logger takes outside of a flow run Prefect drops with a warning.
    found = get_logger("happyhorse") if flow_run_id() is None else get_run_logger()
    if (level := current().log_level) is None:
        return found
    logger, extra = (found.logger, found.extra) if isinstance(found, logging.LoggerAdapter) else (found, None)
    # A child: the run's own logger is its flow's too.
    ours = logger.getChild("happyhorse")
    ours.setLevel(level)
    return PrefectLogAdapter(ours, extra)
