"""Where in a store an output goes: a template, filled in with values that are safe in a path."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from datetime import timezone
from string import Formatter

from prefect_happyhorse.domain.jobs import Job

__all__ = ["DEFAULT_TEMPLATE", "TEMPLATE_FIELDS", "check_relative", "check_template", "render", "safe"]

DEFAULT_TEMPLATE = "{date}/{capability}/{model}-{task_id}{suffix}.{ext}"

TEMPLATE_FIELDS = ("date", "gateway", "account", "capability", "model", "task_id", "digest", "index", "suffix", "ext", "kind")
"""The fields that a template may name."""

_MAX_VALUE_CHARS = 80
_MAX_SEGMENT_CHARS = 200
_FORBIDDEN = re.compile(r"[\\\x00-\x1f\x7f]")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
# Ids in which two jobs cannot be confused whatever stands before and behind them in a name: random, long, and without a
# dash but for those of a UUID.
_UNMISTAKABLE = re.compile(r"(?:[A-Za-z]+_)?[A-Za-z0-9]{16,64}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def check_template(template: str) -> None:
    """Refuse a template that cannot give every output a path of its own.

    Example:
        >>> check_template("{date}/{job}.{ext}")
        Traceback (most recent call last):
            ...
        ValueError: template='{date}/{job}.{ext}': the field {job} is unknown; known are date, gateway, account, ...
    """
    problems = tuple(_template_problems(template))
    if problems:
        raise ValueError(f"template={template!r}: {'; '.join(problems)}")


def _template_problems(template: str) -> Iterable[str]:
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        yield f"it cannot be read: {error}"
        return
    named = {name for _, name, _, _ in parts if name is not None}
    for name in sorted(named - set(TEMPLATE_FIELDS)):
        yield f"the field {{{name}}} is unknown; known are {', '.join(TEMPLATE_FIELDS)}"
    if any(spec or conversion for _, _, spec, conversion in parts):
        yield "a field takes no format or conversion"
    if "task_id" not in named:
        yield "{task_id} is missing, without which two jobs would get the same path"
    if not named & {"index", "suffix"}:
        yield "{suffix} or {index} is missing, without which two outputs of a job would get the same path"
    if not template.endswith(".{ext}"):
        yield "it must end with .{ext}"
    if problem := _path_problem("".join(literal + ("x" if name is not None else "") for literal, name, _, _ in parts)):
        yield problem


def check_relative(path: str) -> str:
    """Refuse a path that would leave the store's folder.

    Example:
        >>> check_relative("../horse.png")
        Traceback (most recent call last):
            ...
        ValueError: '../horse.png': it leaves the store's folder
    """
    if problem := _path_problem(path):
        raise ValueError(f"{path!r}: {problem}")
    return path


def _path_problem(path: str) -> str | None:
    segments = path.split("/")
    if path.startswith("/") or ".." in segments or re.match(r"[A-Za-z]:", path):
        return "it leaves the store's folder"
    if not all(segments) or "." in segments:
        return "a part of it is empty"
    if _FORBIDDEN.search(path):
        return "it holds a backslash or a control character"
    return None


def safe(value: str) -> str:
    """A value as it may stand inside one part of a path.

    Example:
        >>> safe("happyhorse-1.1-r2v"), safe("../../etc/passwd")
        ('happyhorse-1.1-r2v', 'etc-passwd-3754d6cb3a')
    """
    plain = _UNSAFE.sub("-", value).strip(".-")
    if plain == value and len(value) <= _MAX_VALUE_CHARS and not _RESERVED.fullmatch(value) and value:
        return value
    if _RESERVED.fullmatch(plain):
        # Windows takes these for devices, with whatever extension.
        plain = f"x{plain}"
    return f"{plain[: _MAX_VALUE_CHARS - 11] or 'x'}-{_short_hash(value)}"


def render(template: str, job: Job, *, index: int, extension: str, kind: str) -> str:
    """The path of an output below its store's folder.

    Example:
        >>> from datetime import datetime, timezone
        >>> job = Job(gateway="ttapi", account="default", capability="text_to_video", model="m", digest="d",
        ...           task_id="8a5f6d2e9b314c70", submitted_at=datetime(2026, 11, 20, tzinfo=timezone.utc))
        >>> render(DEFAULT_TEMPLATE, job, index=1, extension="mp4", kind="video")
        '2026-11-20/text_to_video/m-8a5f6d2e9b314c70-2.mp4'
    """
    values = {
        "date": job.submitted_at.astimezone(timezone.utc).strftime("%Y-%m-%d"),
        "gateway": safe(job.gateway),
        "account": safe(job.account),
        "capability": safe(job.capability),
        "model": safe(job.model),
        "task_id": _safe_task_id(job),
        "digest": safe(job.digest),
        "index": str(index),
        "suffix": "" if index == 0 else f"-{index + 1}",
        "ext": safe(extension),
        "kind": safe(kind),
    }
    return "/".join(_bounded(segment) for segment in template.format_map(values).split("/"))


def _safe_task_id(job: Job) -> str:
    """The task id; one that another gateway or job could have too, or that could run into its neighbours, with a hash of the job."""
    if _UNMISTAKABLE.fullmatch(job.task_id):
        return job.task_id
    whole = repr((job.gateway, job.account, job.capability, job.model, job.digest, job.task_id))
    return f"{_UNSAFE.sub('-', job.task_id).strip('.-')[:69] or 'x'}-{_short_hash(whole)}"


def _bounded(segment: str) -> str:
    if len(segment) <= _MAX_SEGMENT_CHARS:
        return segment
    stem, dot, extension = segment.rpartition(".")
    if len(extension) > 10:
        stem, dot, extension = segment, "", ""
    return f"{stem[: _MAX_SEGMENT_CHARS - 22]}-{_short_hash(segment)}{dot}{extension}"


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:10]
