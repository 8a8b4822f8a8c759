"""Where and how one gateway takes one capability of one model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from prefect_happyhorse.catalog.facts import ABOUT_A_JOB, CALL, GatewayFacts, ResponsePaths
from prefect_happyhorse.catalog.fields import MediaLimit, WireField
from prefect_happyhorse.domain.prompts import is_chinese
from prefect_happyhorse.domain.requests import MEDIA_FIELDS, REQUEST_CLASSES
from prefect_happyhorse.domain.values import AssetKind, Value

__all__ = ["Route"]


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
    submit: str = Field(pattern=CALL, description="Method and path.")
    poll: str = Field(pattern=ABOUT_A_JOB, description="Method and path; {task_id} stands for the job.")
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
