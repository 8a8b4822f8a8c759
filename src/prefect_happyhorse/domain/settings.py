"""What is set for a whole process: each setting's name, default, rule and documentation, and where it is read from.

Without Prefect these are environment variables alone. Once `prefect_happyhorse.settings` is imported, they are read as Prefect's own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AliasChoices,
    AliasGenerator,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails

__all__ = ["NO_PROXY", "PREFIXES", "Settings", "current", "from_environment", "read_by", "written"]

PREFIXES = ("PREFECT_INTEGRATIONS_HAPPYHORSE_", "HAPPYHORSE_")
"""What the variables of a setting begin with; the first counts where both are set."""

NO_PROXY = "none"


def _names(field: str) -> AliasChoices:
    return AliasChoices(AliasPath(field), *(f"{prefix}{field}".lower() for prefix in PREFIXES))


class Settings(BaseModel):
    """What can be set for a whole process.

    Example:
        >>> Settings(proxy="http://proxy.example.com:3128", thumbnails=False).call_timeout_s
        60.0
    """

    model_config = ConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True, alias_generator=AliasGenerator(validation_alias=_names)
    )

    store: str | None = Field(
        default=None,
        description="Where outputs and the journal go when no store is named: a folder or an fsspec URL. By default the folder `outputs`.",
    )
    home: Path | None = Field(
        default=None,
        description=(
            "The folder of this machine for access tokens, partial downloads, and jobs that a store would not take. By default where the"
            " system keeps such things."
        ),
    )
    gateways: str = Field(
        default="",
        description=(
            "Folders with gateway files of your own, separated as paths are on the system. From the environment alone: they are read before"
            " Prefect is."
        ),
    )
    call_timeout_s: float = Field(
        default=60.0,
        ge=5,
        le=70,
        description=(
            "How long a call to a gateway may take, in seconds, 5 to 70: a submit has to be over before its lease expires. A long body has"
            " more."
        ),
    )
    connect_timeout_s: float = Field(
        default=10.0, ge=1, le=60, description="How long connecting to a gateway may take, in seconds, 1 to 60."
    )
    proxy: SecretStr | None = Field(
        default=None,
        description=(
            "The http or https address of a proxy for all calls and downloads by https but to this machine, or `none`. By default the"
            " environment's `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`."
        ),
    )
    ca_bundle: Path | None = Field(
        default=None,
        description=(
            "A PEM file with certificates of authorities, such as a company's own, that count for gateways and downloads too. By default"
            " `SSL_CERT_FILE`, else the public ones alone."
        ),
    )
    thumbnails: bool = Field(
        default=True,
        description=(
            "Whether outputs are decoded: for small pictures, which cards and galleries show, and to tell videos that are black, stand"
            " still or are silent."
        ),
    )
    gallery: bool = Field(default=True, description="Whether runs make galleries.")
    gallery_url: str | None = Field(
        default=None, description="Where people find the gallery that was exported of the store: the galleries of runs link to it."
    )
    traces: bool = Field(
        default=False, description="Whether each job is traced by OpenTelemetry, in one trace from its submit to its file."
    )
    trace_prompts: bool = Field(default=False, description="Whether prompts stand in traces.")
    metrics: bool = Field(
        default=False, description="Whether submits, polls, refusals for their rate and downloads are counted for Prometheus."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] | None = Field(
        default=None, description="From which level on the package logs: `DEBUG`, `INFO`, `WARNING` or `ERROR`. By default as Prefect logs."
    )

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: Any, info: ValidationInfo) -> Any:
        return cls.model_fields[str(info.field_name)].default if value == "" else value

    @field_validator("log_level", mode="before")
    @classmethod
    def _in_any_case(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @field_validator("gallery_url")
    @classmethod
    def _leads_to_a_page(cls, value: str | None) -> str | None:
        if value is not None and not _is_address(value):
            raise ValueError("must be an http or https address such as https://example.com/gallery/index.html")
        return value

    @field_validator("proxy")
    @classmethod
    def _is_a_proxy(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and value.get_secret_value() != NO_PROXY and not _is_address(value.get_secret_value()):
            raise ValueError("must be an http or https address such as http://proxy.example.com:3128, or none")
        return value


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _told(problem: ErrorDetails) -> str:
    name = "_".join(map(str, problem["loc"])).upper()
    got = "" if name.endswith("PROXY") else f" (got {problem['input']!r})"
    return f"{name}: {problem['msg'].removeprefix('Value error, ').removeprefix('Input ')}{got}"


_VARIABLES = frozenset(f"{prefix}{field}".lower() for prefix in PREFIXES for field in Settings.model_fields)


def from_environment() -> Settings:
    """The settings of the environment alone."""
    # As Prefect has it, a variable may be written in any case.
    # This is asked many times for each job, and the names alone take a fifth of the time that all of it takes.
    return Settings.model_validate({name.lower(): os.environ.get(name, "") for name in os.environ if name.lower() in _VARIABLES})


def written(field: str) -> str:
    """A setting as the environment has it, whether it is right or not."""
    found = {name.lower(): value for name, value in os.environ.items()}
    return next((value for prefix in PREFIXES if (value := found.get(f"{prefix}{field}".lower()))), "")


_READ: list[Callable[[], Settings]] = [from_environment]


def read_by(reader: Callable[[], Settings]) -> None:
    """Read the settings otherwise from now on in this process."""
    _READ[:] = [reader]


def current() -> Settings:
    """The settings that hold now; ValueError names every variable that is wrong.

    Example:
        >>> current().thumbnails
        True
    """
    try:
        return _READ[0]()
    except ValidationError as error:
        problems = [_told(problem) for problem in error.errors(include_url=False)]
    # Raised out here: a traceback may show what is above, and a proxy's address may hold a password.
    raise ValueError(f"The settings are wrong. Nothing was sent. {'; '.join(problems)}.")
