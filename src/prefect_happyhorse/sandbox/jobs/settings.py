"""What can be set about a sandbox, at its start and while it runs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

__all__ = ["SandboxSettings"]

Seconds = Annotated[float, Field(ge=0)]


class SandboxSettings(BaseModel):
    """How a sandbox behaves. Frozen: a change makes a new one.

    Example:
        >>> SandboxSettings(job_s=0).model_copy(update={"fps": 24}).fps
        24
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    job_s: Seconds | tuple[Seconds, Seconds] = Field(default=2.0, description="How long a job takes, in seconds, or a range.")
    check_inputs: Literal["submit", "job", "never"] = Field(default="submit", description="When inputs are fetched and checked, if at all.")
    input_timeout_s: float = Field(default=20.0, gt=0, description="How long fetching one input may take, in seconds.")
    input_max_bytes: int = Field(default=150_000_000, gt=0, description="How many bytes of an input are read at most.")
    media: Literal["full", "tiny"] = Field(default="full", description="Pictures that show the request, or plain small ones.")
    long_side_px: int = Field(default=768, ge=64, le=4096, description="The longer side of pictures and videos, in pixels.")
    # A result has to be a valid input for the next job.
    min_short_side_px: int = Field(default=400, ge=16, le=2160, description="The shorter side is never below this, in pixels.")
    fps: int = Field(default=12, ge=1, le=60, description="Frames per second of videos.")
    result_ttl_s: Seconds = Field(default=86_400.0, description="How long the address of a result works, in seconds; a poll renews it.")
    task_ttl_s: Seconds = Field(default=86_400.0, description="How long a job can be polled, in seconds from its submit.")
    token_ttl_s: Seconds = Field(default=86_400.0, description="How long an issued access token works, in seconds.")
    policy_ttl_s: Seconds = Field(default=300.0, description="How long a policy for an upload works, in seconds.")
    upload_ttl_s: Seconds = Field(default=172_800.0, description="How long what was uploaded can be used, in seconds.")
    queries_per_s: float | None = Field(default=None, gt=0, description="How many polls an account has in a second; None is no limit.")
    list_delay_s: Seconds = Field(
        default=2.0, description="How long a job may be missing in the list of tasks, in seconds, each for its own."
    )
    bad_keys: tuple[SecretStr, ...] = Field(default=(SecretStr("bad-key"),), description="Keys that are refused.")
    good_keys: tuple[SecretStr, ...] | None = Field(default=None, description="The only keys taken; None takes all but the bad ones.")
    seed: int | None = Field(default=None, description="Seed of task ids, job durations and chances; None differs from run to run.")
    public_url: str | None = Field(default=None, description="Where clients reach the sandbox; None takes it from each request.")

    @model_validator(mode="after")
    def _range_runs_upwards(self) -> SandboxSettings:
        if isinstance(self.job_s, tuple) and self.job_s[0] > self.job_s[1]:
            raise ValueError(f"job_s must run from the least to the most (got {self.job_s[0]} and {self.job_s[1]})")
        return self

    def takes_key(self, key: str) -> bool:
        """Whether a key is let in: one of the good keys, or, without such a list, neither empty nor one of the bad ones."""
        secret = SecretStr(key)
        return key != "" and secret not in self.bad_keys and (self.good_keys is None or secret in self.good_keys)

    def changed(self, changes: dict[str, object]) -> SandboxSettings:
        """These settings with some changed, checked again."""
        return SandboxSettings.model_validate({**{name: getattr(self, name) for name in SandboxSettings.model_fields}, **changes})
