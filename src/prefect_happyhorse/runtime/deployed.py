"""Whether this process runs a deployment's flow run."""

from __future__ import annotations

import os

from prefect.context import FlowRunContext

__all__ = ["is_deployed"]


def is_deployed() -> bool:
    """Whether a worker or a served flow began this run; a worker's process says so in its environment, for tasks and subflows too."""
    if "PREFECT__FLOW_RUN_ID" in os.environ:
        return True
    flow = FlowRunContext.get()
    return flow is not None and flow.flow_run is not None and flow.flow_run.deployment_id is not None
