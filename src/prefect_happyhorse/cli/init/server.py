"""What `happyhorse init` makes on the Prefect server, and what is there already."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, TypeVar

from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow

from prefect_happyhorse.cli.demo import flow_file
from prefect_happyhorse.cli.doctor.server import require_api

__all__ = ["FLOWS", "NAME", "block_exists", "deploy", "deployed", "load_block", "pool_problem", "process_pools", "unreachable"]

FLOWS = ("batch", "collect", "compare", "image_to_video_edit", "story")
NAME = "process"
"""What the deployments are called, as those of `deployments/prefect.yaml`."""

_COLLECT_EVERY_S = 300

_Kind = TypeVar("_Kind", bound=Block)


async def unreachable() -> str | None:
    """Why the server cannot be used, and what to do, or None."""
    try:
        await require_api()
    except (RuntimeError, ValueError) as error:
        return str(error)
    return None


async def block_exists(kind: type[Block], name: str) -> bool:
    """Whether there is a block of that name."""
    async with get_client() as client:
        try:
            await client.read_block_document_by_name(name, kind.get_block_type_slug(), include_secrets=False)
        except ObjectNotFound:
            return False
    return True


async def load_block(kind: type[_Kind], name: str) -> _Kind | None:
    """The block of that name, or None where there is none or it cannot be read."""
    with suppress(ValueError):
        return await kind.aload(name)
    return None


async def process_pools() -> list[str]:
    """The work pools whose workers run flows as processes."""
    async with get_client() as client:
        return [pool.name for pool in await client.read_work_pools() if pool.type == "process"]


async def pool_problem(pool: str) -> str | None:
    """Why the flows cannot be deployed to a pool, and the way out."""
    async with get_client() as client:
        try:
            found = await client.read_work_pool(pool)
        except ObjectNotFound:
            return f"There is no work pool {pool!r}: prefect work-pool create {pool} --type process."
    if found.type != "process":
        return f"The work pool {pool!r} is of type {found.type}, whose runs need an image: deploy with deployments/{found.type}.yaml."
    return None


async def deployed() -> list[str]:
    """The deployments of these names that are there already."""
    found: list[str] = []
    async with get_client() as client:
        for flow in FLOWS:
            name = f"{flow.replace('_', '-')}/{NAME}"
            try:
                await client.read_deployment_by_name(name)
            except ObjectNotFound:
                continue
            found.append(name)
    return found


async def deploy(pool: str, *, credentials: str, store: str) -> list[str]:
    """Deploy every flow to a process pool; the one that collects, which buys nothing, runs every five minutes."""
    made: list[str] = []
    for name in FLOWS:
        file = flow_file(name)
        flow: Flow[..., Any] = await Flow.afrom_source(source=str(file.parent), entrypoint=f"{file.name}:{name}")
        parameters = {"store": store} | ({"credentials": credentials} if name == "batch" else {})
        collects: dict[str, Any] = {"interval": _COLLECT_EVERY_S, "concurrency_limit": 1} if name == "collect" else {}
        deployment = await flow.ato_deployment(NAME, work_pool_name=pool, parameters=parameters, tags=["happyhorse"], **collects)
        await deployment.aapply()
        made.append(f"{flow.name}/{NAME}")
    return made
