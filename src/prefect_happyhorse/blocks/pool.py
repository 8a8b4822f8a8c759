"""The block that says which gateways may stand in for each other."""

from __future__ import annotations

from typing import ClassVar

from prefect.blocks.core import Block
from pydantic import Field, HttpUrl, field_validator

from prefect_happyhorse.blocks.logos import LOGOS
from prefect_happyhorse.engine.jobs.failover import Order, pool_problem

__all__ = ["GatewayPool"]


class GatewayPool(Block):
    """Several gateways for the same requests: each is bought at one of them at most, at the first that does not certainly refuse it.

    Args:
        credentials: Who may pay, the first choice first: names of GatewayCredentials blocks, or ids of gateways whose keys are in the
            environment; each of another gateway. Names alone, since Prefect would keep the keys of blocks in a list as plain text.
        order: As given, what a request should cost at each, or how long its jobs were seen to take there.
        after_failure: Whether a job that its provider ended without a result, and may have charged, is bought again at the next.

    Example:
        Load a stored pool:
        ```python
        from prefect_happyhorse import GatewayPool

        pool = GatewayPool.load("BLOCK_NAME")
        ```
    """

    _block_type_name: ClassVar[str | None] = "HappyHorse Gateway Pool"
    _block_type_slug: ClassVar[str | None] = "happyhorse-gateway-pool"
    _logo_url: ClassVar[HttpUrl | None] = HttpUrl(f"{LOGOS}/secret.png")
    _documentation_url: ClassVar[HttpUrl | None] = HttpUrl("https://docs.prefect.io/v3/concepts/blocks")

    credentials: list[str] = Field(description="Names of GatewayCredentials blocks, or ids of gateways, the first choice first.")
    order: Order = Field(default="given", description="given, cheapest by estimate, or fastest by the durations of earlier jobs.")
    after_failure: bool = Field(
        default=False, description="Whether a job that ended without a result, and may have been charged, is bought again at the next."
    )

    @field_validator("credentials")
    @classmethod
    def _is_a_pool(cls, value: list[str]) -> list[str]:
        if problem := pool_problem(value):
            raise ValueError(problem)
        return value

    @classmethod
    async def find(cls, name: str) -> GatewayPool | None:
        """The pool of a name.

        Args:
            name: Name of a saved block.

        Returns:
            The pool, or None when there is none of that name.
        """
        try:
            return await cls.aload(name)
        except ValueError:
            return None
