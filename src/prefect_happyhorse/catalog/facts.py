"""What holds for every route of a gateway."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator, model_validator

from prefect_happyhorse.catalog.discovery import DIALECTS, dialect_names
from prefect_happyhorse.domain.values import AssetKind, Value

__all__ = ["ABOUT_A_JOB", "CALL", "CodeMeaning", "DialectName", "GatewayFacts", "Region", "ResponsePaths"]

CodeMeaning = Literal["invalid", "authentication", "moderation", "quota", "rate_limit", "not_found", "unavailable", "internal"]
"""What a provider's error code says. All but `internal` mean that no work was started."""

DialectName = Literal["dashscope", "newapi", "chanjing"]
"""A wire protocol, for which there is code here; packages bring more, by entry points."""

CALL = r"^(GET|POST) /\S*$"
"""Method and path of a call."""

ABOUT_A_JOB = r"^(GET|POST) /\S*\{task_id\}\S*$"
"""The same of a call about one job."""

_CANCEL = r"^(GET|POST|DELETE) /\S*\{task_id\}\S*$"
_CONTENT = r"^GET /\S*\{task_id\}\S*$"
_Path = Annotated[str, Field(pattern=r"^\w+(\.(\w+|\*))*$")]
"""A dotted path inside a JSON object; a `*` stands for every entry of a list."""

_BASE_URL = r"^https?://[^\s?#]+[^\s?#/]$"
_HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")]
_HeaderValue = Annotated[str, Field(pattern=r"^[!-~]+( [!-~]+)*$")]

_Seconds = Annotated[float, Field(gt=0, le=10 * 365 * 86_400.0, allow_inf_nan=False)]
"""More than nothing, and at most ten years: what is longer than that is left out."""

_OWN_DIALECTS: tuple[str, ...] = get_args(DialectName)
_TOKEN_DIALECTS = frozenset({"chanjing"})
_FRAMING_HEADERS = frozenset({"connection", "content-length", "content-type", "host", "transfer-encoding"})


class ResponsePaths(Value):
    """Where a response holds a job's facts, the documented place first; what is left empty stands where the dialect has it."""

    task_id: tuple[_Path, ...] = ()
    status: tuple[_Path, ...] = ()
    result: tuple[_Path, ...] = ()


class Region(Value):
    """Where a gateway is in one of its regions."""

    base_url: str | None = Field(default=None, pattern=_BASE_URL, description="The host that takes keys of any workspace.")
    workspace_url: str | None = Field(
        default=None, pattern=r"^https://\{workspace\}\.[^\s?#/]+$", description="The host that takes one workspace's keys."
    )

    @model_validator(mode="after")
    def _is_somewhere(self) -> Region:
        if self.base_url is None and self.workspace_url is None:
            raise ValueError("a region needs a base_url or a workspace_url")
        return self


class GatewayFacts(Value):
    """What holds for every route of a gateway."""

    gateway: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="Its id, from which the names of environment variables are made.")
    title: str
    dialect: str = Field(description="The wire protocol that it speaks.")
    is_maker: bool = Field(default=False, description="Whether it belongs to the maker of all that it sells, whose list is its own.")
    source: str = Field(description="The provider's document that these facts come from.")
    dated: date = Field(description="When the document was read.")
    base_url: str | None = Field(default=None, pattern=_BASE_URL, description="The default host; None when the user has to give it.")
    regions: dict[str, Region] = Field(default_factory=dict, description="Its regions by name, where it has any.")
    auth: str = Field(pattern=r"^[A-Za-z0-9_-]+: ([!-;=-~]+ )*[!-;=-~]*<(key|token)>$", description="The header that carries the key.")
    submit_headers: dict[_HeaderName, _HeaderValue] = Field(default_factory=dict, description="Headers that every submit carries.")
    code_paths: tuple[_Path, ...] = Field(default=(), description="Where an error holds its code; empty where the dialect has it.")
    response: ResponsePaths = ResponsePaths()
    open: tuple[str, ...] = Field(default=(), description="What the source leaves open, and the default that was chosen.")
    cancel: str | None = Field(
        default=None,
        pattern=_CANCEL,
        description="Method and path that cancel a job, where there is one. What a DELETE takes away is gone, and perhaps charged.",
    )
    content: str | None = Field(
        default=None,
        pattern=_CONTENT,
        description="Method and path that give a job's result to whoever has the key, in place of an address.",
    )
    list_tasks: str | None = Field(default=None, pattern=CALL, description="Method and path that list an account's tasks, if any do.")
    token: str | None = Field(default=None, pattern=CALL, description="Method and path that give an access token, where there is one.")
    upload_policy: str | None = Field(
        default=None, pattern=CALL, description="Method and path that open the gateway's temporary storage for an input, where it has one."
    )
    alternative_submit: str | None = Field(default=None, pattern=CALL, description="Another submit path that the source names.")
    alternative_poll: str | None = Field(default=None, pattern=ABOUT_A_JOB, description="Another poll path that the source names.")
    task_ttl_s: _Seconds | None = Field(default=None, description="How long a job can be polled.")
    result_ttl_s: _Seconds | None = Field(default=None, description="How long a result's address lives.")
    submits_per_s: float | None = Field(
        default=None, gt=0, le=1e6, allow_inf_nan=False, description="How often an account may submit jobs of one model."
    )
    max_inline_bytes: int | None = Field(default=None, description="How many bytes of media may stand inside a body, decoded.")
    polls_per_s: float | None = Field(default=None, gt=0, le=1e6, allow_inf_nan=False, description="How often an account may poll.")
    poll_interval_s: _Seconds = Field(default=5.0, description="How often the source polls.")
    typical_s: dict[AssetKind, _Seconds] = Field(description="Estimate of how long a job takes, by what it makes.")
    codes: dict[str, CodeMeaning] = Field(default_factory=dict, description="What the provider's error codes mean.")
    borrowed: dict[str, str] = Field(
        default_factory=dict, description="Whose those of these facts are that its own document does not state."
    )

    @field_validator("dialect")
    @classmethod
    def _is_spoken_here(cls, dialect: str) -> str:
        if dialect not in _OWN_DIALECTS and dialect not in (brought := dialect_names()):
            known = ", ".join([*_OWN_DIALECTS, *sorted(brought)])
            raise ValueError(
                f"there is no dialect {dialect!r}; there are {known}, and a package may bring another (entry point {DIALECTS})"
            )
        return dialect

    @model_validator(mode="after")
    def _can_be_spoken(self) -> GatewayFacts:
        # Of a package's dialect its class says so.
        if self.token is not None and self.dialect in _OWN_DIALECTS and self.dialect not in _TOKEN_DIALECTS:
            raise ValueError(f"token must stay empty: the dialect {self.dialect} exchanges no access tokens")
        if framed := sorted(name for name in self.submit_headers if name.lower() in _FRAMING_HEADERS):
            raise ValueError(f"submit_headers must not hold {', '.join(framed)}, which the HTTP client sets")
        if unknown := sorted(name for name in self.borrowed if name not in self.model_fields_set):
            raise ValueError(f"borrowed must name facts that are given here (got {', '.join(unknown)})")
        return self

    def borrowed_note(self, fact: str) -> str:
        """Whose word a fact is where it is not the provider's own; else empty.

        Example:
            >>> from prefect_happyhorse.catalog import gateway_facts
            >>> gateway_facts("ttapi").borrowed_note("cancel")
            "DashScope's: TTAPI's own document names none"
        """
        return f"{self.borrowed[fact]}: {self.title}'s own document names none" if fact in self.borrowed else ""

    def address(self, region: str | None, workspace: str | None) -> str | None:
        """The base URL of a region and workspace, or None where there is none.

        Args:
            region: Name of a region; None for the gateway's default host.
            workspace: Id of a workspace; None for the host that takes keys of any.

        Example:
            >>> from prefect_happyhorse.catalog import gateway_facts
            >>> gateway_facts("dashscope").address("tokyo", "ws-1")
            'https://ws-1.ap-northeast-1.maas.aliyuncs.com'
        """
        if region is None and workspace is None:
            return self.base_url
        found = next(
            (one for name, one in self.regions.items() if name == region or (region is None and one.base_url == self.base_url)), None
        )
        if found is None or workspace is None:
            return None if found is None else found.base_url
        return None if found.workspace_url is None else found.workspace_url.replace("{workspace}", workspace)

    def region_of(self, base_url: str | None) -> str | None:
        """The region whose address this is, or None where it is none's."""
        found = (name for name, one in self.regions.items() if base_url is not None and base_url == one.base_url)
        return next(found, None)

    def is_moderation(self, code: str | None) -> bool:
        """Whether a code says that the content rules refused; "moderation" stands in where the provider gives none of its own."""
        return code is not None and (code == "moderation" or self.codes.get(code) == "moderation")
