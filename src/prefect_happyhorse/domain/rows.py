"""What became of each of many requests."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.errors import GenerationError, JobFailed, Money, is_retryable
from prefect_happyhorse.domain.jobs import Job, JobResult
from prefect_happyhorse.domain.requests import GenerationRequest
from prefect_happyhorse.domain.values import Value

__all__ = ["RowResult", "RowState"]

RowState = Literal["waiting", "submitted", "succeeded", "kept", "uncertain", "failed"]


class RowResult(Value):
    """What became of one of many requests.

    Example:
        >>> RowResult(row=7, id="7", error="JobFailed: out of paint", money="spent").state
        'failed'
    """

    row: int = Field(description="Its number, counted from 1.")
    id: str = Field(description="What it is called.")
    request: GenerationRequest | None = Field(default=None, description="What was asked for; None where that could not be read.")
    credentials: str | None = Field(default=None, description="Who pays, where it is another than for the other rows.")
    take: int = 1
    refused: int = Field(default=0, description="How many takes before this one were kept, and refused by the caller's check.")
    job: Job | None = Field(default=None, description="The job that it became.")
    result: JobResult | None = Field(default=None, description="Where the outputs lie at the provider, until they are kept.")
    asset: MediaAsset | None = Field(
        default=None,
        description="What was kept; of a row that failed, the last take that a check refused, or what there is of several outputs.",
    )
    error: str | None = Field(default=None, description="Why it failed.")
    money: Money | None = Field(default=None, description="Whether money was spent on it, where that is known.")
    retryable: bool = Field(default=False, description="Whether what failed may be tried again without buying anything twice.")

    @property
    def state(self) -> RowState:
        """How far it came."""
        if self.error is not None:
            return "uncertain" if self.job is None and self.money is Money.MAY_BE_SPENT else "failed"
        if self.asset is not None:
            return "kept"
        return "waiting" if self.job is None else "submitted" if self.result is None else "succeeded"

    def failed(self, error: Exception) -> RowResult:
        """The row once it has failed.

        Args:
            error: Why.
        """
        job = error.job if self.job is None and isinstance(error, JobFailed) else self.job
        money = error.money if isinstance(error, GenerationError) else None if job is None else Money.SPENT
        told = {"error": f"{type(error).__name__}: {error}", "money": money, "retryable": is_retryable(error)}
        return self.model_copy(update={"job": job, **told})
