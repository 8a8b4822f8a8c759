"""Reading what was sent: JSON, and forms with files."""

from __future__ import annotations

import base64
import json
from email.parser import BytesParser
from email.policy import HTTP
from typing import cast

from prefect_happyhorse.sandbox.jobs.validate import FilePart

__all__ = ["read_body"]


def read_body(raw: bytes, content_type: str) -> dict[str, object]:
    """A body as a mapping; a ValueError when it is not what its Content-Type says."""
    if content_type.lower().startswith("multipart/form-data"):
        return _read_form(raw, content_type)
    try:
        value: object = json.loads(raw)
    except ValueError as error:
        raise ValueError("the body is not valid JSON") from error
    if not isinstance(value, dict):
        raise ValueError("the body is not a JSON object")
    return cast("dict[str, object]", value)


def _read_form(raw: bytes, content_type: str) -> dict[str, object]:
    # A form is a MIME message without its head: https://www.rfc-editor.org/rfc/rfc7578
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + content_type.encode("latin-1") + b"\r\n\r\n" + raw)
    if not message.is_multipart() or message.defects:
        raise ValueError("the body is not a valid multipart form")
    fields: dict[str, object] = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        if not isinstance(name, str):
            raise ValueError("a part of the form has no name")
        if name in fields:
            raise ValueError(f"{name}: given twice")
        payload = part.get_payload(decode=True)
        content = payload if isinstance(payload, bytes) else b""
        is_file = part.get_filename() is not None
        fields[name] = _file(part.get_content_type(), content) if is_file else content.decode("utf-8", "replace")
    return fields


def _file(media_type: str, content: bytes) -> FilePart:
    return FilePart(f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}")
