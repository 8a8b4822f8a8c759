"""The shape of the catalog: what a gateway, a route and a wire field say about themselves."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from prefect_happyhorse.catalog.discovery import DIALECTS, dialect_names
from prefect_happyhorse.domain.prompts import is_chinese
from prefect_happyhorse.domain.requests import MEDIA_FIELDS, REQUEST_CLASSES
from prefect_happyhorse.domain.values import AssetKind, Value

__all__ = [
    "CodeMeaning",
    "DialectName",
    "GatewayFacts",
    "MediaItem",
    "MediaLimit",
    "Region",
    "ResponsePaths",
    "Route",
    "WireField",
    "WireType",
]

WireType = Literal["string", "integer", "number", "boolean", "url", "url[]", "file", "media[]", "messages"]
"""What a field holds; a `file` is a part of a form with the bytes of a medium in it."""

CodeMeaning = Literal["invalid", "authentication", "moderation", "quota", "rate_limit", "not_found", "unavailable", "internal"]
"""What a provider's error code says. All but `internal` mean that no work was started."""

DialectName = Literal["dashscope", "newapi", "chanjing"]
"""A wire protocol, for which there is code here; packages bring more, by entry points."""

_CALL = r"^(GET|POST) /\S*$"
_ABOUT_A_JOB = r"^(GET|POST) /\S*\{task_id\}\S*$"
_CANCEL = r"^(GET|POST|DELETE) /\S*\{task_id\}\S*$"
_CONTENT = r"^GET /\S*\{task_id\}\S*$"
_Path = Annotated[str, Field(pattern=r"^\w+(\.(\w+|\*))*$")]
"""A dotted path inside a JSON object; a `*` stands for every entry of a list."""

_BASE_URL = r"^https?://[^\s?#]+[^\s?#/]$"
_HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")]
_HeaderValue = Annotated[str, Field(pattern=r"^[!-~]+( [!-~]+)*$")]

_MEDIA_ROLES: dict[str, tuple[str, ...]] = {
    "image": ("image", "references", "first_frame", "last_frame"),
    "mask": ("mask",),
    "video": ("video", "clip"),
    "reference_video": ("reference_videos",),
    "audio": ("audio", "voice"),
}


_Seconds = Annotated[float, Field(gt=0, le=10 * 365 * 86_400.0, allow_inf_nan=False)]
"""More than nothing, and at most ten years: what is longer than that is left out."""

_OneOrMany = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
_OWN_DIALECTS: tuple[str, ...] = get_args(DialectName)
_TOKEN_DIALECTS = frozenset({"chanjing"})
_FRAMING_HEADERS = frozenset({"connection", "content-length", "content-type", "host", "transfer-encoding"})


class MediaItem(Value, populate_by_name=True):
    """One kind of entry in an array of typed media, in the order of the array."""

    type: str = Field(description="The provider's word for the entry.")
    source: str = Field(alias="from", description="The request field that the entry comes from.")
    voice: bool = Field(default=False, description="Whether the request's voice goes into this entry as reference_voice.")
    apart: bool = Field(default=False, description="Whether it stands outside of the count of entries.")


class WireField(Value, populate_by_name=True):
    """One field of a request body: where it goes, what it comes from, and what may stand in it."""

    to: str = Field(description="Where it goes in the body; a dot steps into an object.")
    source: _OneOrMany = Field(default=(), alias="from", description="Request fields that it comes from; empty when never sent.")
    type: WireType = "string"
    required: bool = False
    const: int | str | None = Field(default=None, description="A value that is always sent.")
    values: tuple[int | str, ...] = Field(default=(), description="The values that the provider takes, as on the wire.")
    minimum: float | None = None
    maximum: float | None = None
    advised: tuple[float, float] | None = Field(default=None, description="Least and greatest value that the provider advises.")
    borrowed: str | None = Field(
        default=None, description="Whose its limits are where the provider's own document names none: DashScope's."
    )
    maximum_with: dict[str, float] = Field(default_factory=dict, description="A lower maximum beside a request field that is set.")
    without: tuple[str, ...] = Field(default=(), description="Request fields beside which the provider ignores it.")
    pixels: tuple[int, int] | None = Field(
        default=None, description="Least and most pixels of a size written as width*height; `values` are words in its place."
    )
    aspect: tuple[float, float] | None = Field(default=None, description="Least and greatest width to height of such a size.")
    max_chars: int | None = Field(default=None, description="How long a text may be, in weighted characters.")
    chinese_weight: int = Field(default=1, description="How many characters a Chinese character counts for.")
    render: Literal["upper", "number", "text", "size", "parts"] | None = Field(default=None, description="How the value is written.")
    pick: Literal["first", "rest"] | None = Field(default=None, description="Which of several media go here.")
    min_items: int | None = None
    max_items: int | None = None
    items: tuple[MediaItem, ...] = Field(default=(), description="The entries of an array of typed media.")
    default: int | str | bool | None = Field(default=None, description="What the provider assumes; never sent.")
    note: str | None = None

    @model_validator(mode="after")
    def _check_consistency(self) -> WireField:
        if (self.type == "media[]") != bool(self.items):
            raise ValueError(f"{self.to}: entries belong to media[] and media[] needs entries")
        if self.const is not None and self.source:
            raise ValueError(f"{self.to}: a constant comes from no request field")
        return self

    @property
    def option(self) -> str | None:
        """The name of the route's own extra that this field carries, or None."""
        if len(self.source) == 1 and self.source[0].startswith("options."):
            return self.source[0].removeprefix("options.")
        return None

    @property
    def source_names(self) -> tuple[str, ...]:
        """Every request field that can fill this field; a voice only ever goes along with a reference video."""
        return (*self.source, *(item.source for item in self.items))

    @property
    def request_fields(self) -> tuple[str, ...]:
        """Every request field that this field takes something from."""
        voices = ("voice",) if any(item.voice for item in self.items) else ()
        return (*self.source_names, *voices)


class MediaLimit(Value):
    """What a route takes as input media of one role."""

    role: Literal["image", "mask", "video", "reference_video", "audio"]
    formats: tuple[str, ...] = Field(default=(), description="Empty where the source sets no limit.")
    max_bytes: int
    max_count: int | None = None
    min_side_px: int | None = Field(default=None, description="Neither side may be shorter.")
    min_short_side_px: int | None = Field(default=None, description="The shorter side may not be shorter.")
    max_long_side_px: int | None = Field(default=None, description="The longer side may not be longer.")
    aspect: tuple[float, float] | None = Field(default=None, description="Least and greatest width to height.")
    duration_s: tuple[float, float] | None = Field(default=None, description="Least and greatest playing time.")
    fps_above: float | None = Field(default=None, description="The frame rate must be greater.")
    fps: tuple[float, float] | None = Field(default=None, description="Least and greatest frame rate.")
    advised_formats: tuple[str, ...] = ()
    advised_duration_s: tuple[float, float] | None = None
    advised_codec: str | None = None
    note: str | None = None

    @property
    def request_fields(self) -> tuple[str, ...]:
        """The request fields that this limit is about."""
        return _MEDIA_ROLES[self.role]


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
    list_tasks: str | None = Field(default=None, pattern=_CALL, description="Method and path that list an account's tasks, if any do.")
    token: str | None = Field(default=None, pattern=_CALL, description="Method and path that give an access token, where there is one.")
    alternative_submit: str | None = Field(default=None, pattern=_CALL, description="Another submit path that the source names.")
    alternative_poll: str | None = Field(default=None, pattern=_ABOUT_A_JOB, description="Another poll path that the source names.")
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


class Route(Value):
    """Where and how one gateway takes one capability of one model, and within which limits.

    Example:
        >>> from prefect_happyhorse.catalog import find_route
        >>> find_route("ttapi", "reference_to_video", "happyhorse-1.1-r2v").encoding
        'json'
    """

    gateway: str
    capability: str
    model: str
    family: str = Field(description="The name by which the model is known wherever it is sold; its own where a row names no other.")
    title: str
    submit: str = Field(pattern=_CALL, description="Method and path.")
    poll: str = Field(pattern=_ABOUT_A_JOB, description="Method and path; {task_id} stands for the job.")
    encoding: Literal["json", "multipart"] = "json"
    source: str = Field(description="The part of the provider's document that this row comes from.")
    reference_name: str | None = Field(default=None, description="How a prompt names reference {i}; None when the source says nothing.")
    chinese_reference_name: str | None = Field(default=None, description="The same in a prompt that is mostly Chinese, where it differs.")
    base64: bool = Field(default=False, description="Whether media may be sent inside the body as data URLs.")
    fields: tuple[WireField, ...]
    media: tuple[MediaLimit, ...] = ()
    response: ResponsePaths = Field(default=ResponsePaths(), exclude=True)
    note: str | None = None
    facts: GatewayFacts = Field(exclude=True, repr=False)

    @model_validator(mode="after")
    def _fits_its_request(self) -> Route:
        kind = REQUEST_CLASSES.get(self.capability)
        if kind is None:
            raise ValueError(f"there is no capability {self.capability!r}; there are {', '.join(REQUEST_CLASSES)}")
        if unknown := sorted(self.request_fields - set(kind.model_fields)):
            raise ValueError(f"a {self.capability} request has no {', '.join(unknown)}")
        if self.kind not in self.facts.typical_s:
            raise ValueError(f"typical_s must say how long a job that makes {self.kind} takes")
        self._check_files()
        return self

    def _check_files(self) -> None:
        if not self.file_parts:
            return
        if self.encoding != "multipart":
            raise ValueError(f"{', '.join(sorted(self.file_parts))}: a file needs encoding = 'multipart' (got {self.encoding!r})")
        if nested := sorted(name for name in self.file_parts if "." in name):
            raise ValueError(f"{', '.join(nested)}: a file must be a part of its own, so that its name has no dot")
        if foreign := sorted(self.file_fields.difference(MEDIA_FIELDS)):
            raise ValueError(f"{', '.join(foreign)} holds no medium, so it cannot be a file")
        # A file is held in memory while it is sent.
        limited = {name for limit in self.media for name in limit.request_fields}
        if unlimited := sorted(self.file_fields - limited):
            raise ValueError(f"{', '.join(unlimited)} is sent as a file, so limits must name one that says how many bytes it may have")

    def name_of_references(self, prompt: str) -> str | None:
        """How a prompt names reference {i}; None when the source says nothing."""
        return self.chinese_reference_name if self.chinese_reference_name and is_chinese(prompt) else self.reference_name

    @property
    def kind(self) -> AssetKind:
        """What the route makes."""
        return "image" if self.capability.endswith("_image") or self.capability == "image_edit" else "video"

    @property
    def typical_s(self) -> float:
        """How long a job usually takes, in seconds; an estimate."""
        return self.facts.typical_s[self.kind]

    @property
    def options(self) -> dict[str, WireField]:
        """The route's own extras, by name."""
        return {field.option: field for field in self.fields if field.option is not None}

    @property
    def file_parts(self) -> frozenset[str]:
        """The parts of the form that are files."""
        return frozenset(field.to for field in self.fields if field.type == "file")

    @property
    def file_fields(self) -> frozenset[str]:
        """The request fields whose media are sent as files, so that the gateway needs no address of them."""
        return frozenset(name for field in self.fields if field.type == "file" for name in field.source)

    @property
    def defaults(self) -> dict[str, int | str | bool]:
        """What the provider assumes, as on the wire, of request fields that are not set."""
        found: dict[str, int | str | bool] = {}
        for field in self.fields:
            if field.default is not None and field.source:
                found.setdefault(field.source[0], field.default)
        return found

    @property
    def request_fields(self) -> frozenset[str]:
        """Every request field that the route can carry, options aside."""
        named = {name for field in self.fields for name in field.request_fields}
        return frozenset(name for name in named if not name.startswith("options."))

    @property
    def required_fields(self) -> frozenset[str]:
        """Every request field without which no request fits: its class requires it, or it alone can fill what the body must hold."""
        of_the_class = REQUEST_CLASSES[self.capability].model_fields
        alone = [field.source_names for field in self.fields if field.required]
        required = {names[0] for names in alone if len(names) == 1} | {name for name, info in of_the_class.items() if info.is_required()}
        return self.request_fields & required
