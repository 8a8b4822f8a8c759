"""Check a request's media before anything is sent: what breaks a limit of the route, and what tells one medium from another."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from anyio import to_thread

from prefect_happyhorse.catalog import ROUNDED_S, MediaLimit, Route, find_advice
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.locations import locate
from prefect_happyhorse.domain.requests import GenerationRequest, iter_media
from prefect_happyhorse.domain.values import AssetKind
from prefect_happyhorse.engine.http.ssrf import host_of
from prefect_happyhorse.engine.http.urls import content_fingerprint, url_fingerprint
from prefect_happyhorse.engine.media.formats import HEAD_BYTES, NOUNS, MediaFormat, format_of, kind_of, sniff
from prefect_happyhorse.engine.media.probe import MediaInfo, MediaNotReadable, probe
from prefect_happyhorse.engine.media.source import MediaUnavailable, local_file, shown, where
from prefect_happyhorse.engine.storage.local import hash_file
from prefect_happyhorse.engine.storage.store import Store

__all__ = ["Inspection", "file_problems", "inspect_media", "limit_of"]

_VIDEO_FIELDS = frozenset({"video", "clip", "reference_videos"})
_USER = re.compile(r"\A([A-Za-z][A-Za-z0-9+.\-]*://)([^/?#]*)@")
_SOUND_FIELDS = frozenset({"audio", "voice"})


@dataclass(frozen=True)
class Inspection:
    """What was found about the media of a request: problems, what could not be checked and why, and advice not followed, as sentences.

    The fingerprints are by field and position; a medium with a problem has none.
    """

    problems: tuple[str, ...] = ()
    fingerprints: Mapping[tuple[str, int | None], str] = field(default_factory=dict[tuple[str, "int | None"], str])
    unchecked: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()


@dataclass
class _Findings:
    """What is known of one medium so far; `name` is what sentences call it."""

    name: str
    kind: AssetKind
    limit: MediaLimit | None
    problems: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    fingerprint: str | None = None

    def problem(self, sentence: str) -> None:
        self.problems.append(f"{self.name}: {sentence}" if self.name else sentence)

    def wrong_format(self, found: str) -> None:
        formats = f" in {' or '.join(self.limit.formats)}" if self.limit is not None and self.limit.formats else ""
        self.problem(f"it must be a {NOUNS[self.kind]}{formats} (got {found})")


def limit_of(route: Route, field: str) -> MediaLimit | None:
    """What a route accepts in a media field, or None where its source says nothing.

    Example:
        >>> from prefect_happyhorse.catalog import find_route
        >>> limit_of(find_route("ttapi", "reference_to_video", "happyhorse-1.1-r2v"), "references").formats
        ('jpeg', 'png', 'webp')
    """
    return next((limit for limit in route.media if field in limit.request_fields), None)


def file_problems(path: Path, field: str, route: Route) -> list[str]:
    """What breaks a limit of a route in a file that was fetched for one of its media fields. It blocks."""
    findings = _Findings("", _kind(field), limit_of(route, field))
    _check_file(path, findings)
    return findings.problems


def _kind(field: str) -> AssetKind:
    return "video" if field in _VIDEO_FIELDS else "audio" if field in _SOUND_FIELDS else "image"


async def inspect_media(request: GenerationRequest, route: Route, store: Store | None = None) -> Inspection:
    """Check every medium whose bytes or measures are known here against the limits of a route.

    Example:
        >>> import asyncio
        >>> from prefect_happyhorse.catalog import resolve
        >>> from prefect_happyhorse.domain.requests import ReferenceToVideo
        >>> request = ReferenceToVideo(model="happyhorse-1.1-r2v", prompt="@1 runs", references=["https://example.com/a.png?X-Amz-Date=1"])
        >>> asyncio.run(inspect_media(request, resolve(request, "ttapi"))).fingerprints
        {('references', 0): 'url:https://example.com/a.png'}
    """
    media = list(iter_media(request))
    found = await asyncio.gather(*(_inspect(name, position, medium, route, store) for name, position, medium in media))
    places = [(name, position) for name, position, _ in media]
    return Inspection(
        problems=tuple(problem for findings in found for problem in findings.problems),
        fingerprints={place: findings.fingerprint for place, findings in zip(places, found, strict=True) if findings.fingerprint},
        unchecked=tuple(sentence for findings in found for sentence in findings.unchecked),
        advice=(*find_advice(request, route), *(sentence for findings in found for sentence in findings.advice)),
    )


async def _inspect(name: str, position: int | None, medium: MediaAsset | str, route: Route, store: Store | None) -> _Findings:
    text = medium.uri if isinstance(medium, MediaAsset) else medium
    without_user = _USER.sub(r"\1…@", text)
    findings = _Findings(f"{where(name, position)}={shown(without_user)}", _kind(name), limit_of(route, name))
    if isinstance(medium, MediaAsset):
        _check_asset(medium, findings)
        return findings
    # A web server's user needs no password to be one; a container of Azure's stands where a user does.
    if (user := _USER.match(medium)) and (":" in user[2] or medium.lower().startswith("http")):
        findings.problem("it must hold no user name and password: they would be sent on, and kept in the journal")
        return findings
    try:
        location = locate(medium)
    except ValueError:
        # The catalog's own check reports it.
        return findings
    if location == "web":
        if host_of(medium) is None:
            findings.problem("it must be a web address")
        else:
            findings.fingerprint = url_fingerprint(medium)
        return findings
    try:
        async with local_file(medium, store=store, max_bytes=None if findings.limit is None else findings.limit.max_bytes) as path:
            await to_thread.run_sync(_check_file, path, findings)
    except MediaUnavailable as error:
        findings.problem(str(error))
    return findings


def _check_asset(asset: MediaAsset, findings: _Findings) -> None:
    form = format_of(asset.media_type)
    if form is None:
        findings.wrong_format(repr(asset.media_type))
        return
    _check(MediaInfo(form, asset.kind, asset.bytes, asset.width, asset.height, asset.duration_s, asset.fps), findings)
    if not findings.problems:
        findings.fingerprint = content_fingerprint(asset.sha256)


def _check_file(path: Path, findings: _Findings) -> None:
    try:
        with path.open("rb") as file:
            form = sniff(file.read(HEAD_BYTES))
        size = path.stat().st_size
        if form is None:
            findings.wrong_format("something else" if size else "an empty file")
            return
        if not _check_format(form, findings) or not _check_size(size, findings):
            return
        _check(probe(path), findings)
        if not findings.problems:
            findings.fingerprint = content_fingerprint(hash_file(path))
    except MediaNotReadable as error:
        findings.problem(str(error))
    except OSError as error:
        findings.problem(f"it cannot be read: {error.strerror or error}")


def _check(info: MediaInfo, findings: _Findings) -> None:
    if _check_format(info.format, findings) and _check_size(info.bytes, findings) and findings.limit is not None:
        for sentence in _measure_problems(info, findings.limit, findings):
            findings.problem(sentence)


def _check_format(form: MediaFormat, findings: _Findings) -> bool:
    if kind_of(form) != findings.kind:
        findings.wrong_format(f"a {NOUNS[kind_of(form)]} in {form}")
        return False
    if findings.limit is not None and findings.limit.formats and form not in findings.limit.formats:
        findings.wrong_format(form)
        return False
    return True


def _check_size(size: int, findings: _Findings) -> bool:
    if findings.limit is not None and size > findings.limit.max_bytes:
        findings.problem(f"it must have at most {findings.limit.max_bytes:,} bytes (got {size:,})")
        return False
    return True


def _measure_problems(info: MediaInfo, limit: MediaLimit, findings: _Findings) -> Iterable[str]:
    if limit.advised_formats and info.format not in limit.advised_formats:
        findings.advice.append(f"{findings.name}: {' or '.join(limit.advised_formats)} is advised (got {info.format})")
    if any((limit.min_side_px, limit.min_short_side_px, limit.max_long_side_px, limit.aspect)):
        if info.width and info.height:
            yield from _side_problems(info.width, info.height, limit)
        else:
            findings.unchecked.append(_unchecked(findings.name, "size"))
    yield from _duration_problems(info, limit, findings)
    yield from _frame_rate_problems(info, limit, findings)


def _duration_problems(info: MediaInfo, limit: MediaLimit, findings: _Findings) -> Iterable[str]:
    if info.duration_s is None:
        if limit.duration_s is not None:
            findings.unchecked.append(_unchecked(findings.name, "playing time"))
    elif limit.duration_s is not None and not _lasts(info.duration_s, limit.duration_s):
        yield f"it must last between {limit.duration_s[0]:g} and {limit.duration_s[1]:g} s (got {info.duration_s:.2f} s)"
    elif limit.advised_duration_s is not None and not _lasts(info.duration_s, limit.advised_duration_s):
        least, most = limit.advised_duration_s
        findings.advice.append(f"{findings.name}: between {least:g} and {most:g} s is advised (got {info.duration_s:.2f} s)")


def _lasts(duration_s: float, between: tuple[float, float]) -> bool:
    return between[0] - ROUNDED_S <= duration_s <= between[1] + ROUNDED_S


def _frame_rate_problems(info: MediaInfo, limit: MediaLimit, findings: _Findings) -> Iterable[str]:
    if limit.fps_above is None and limit.fps is None:
        return
    if info.fps is None:
        findings.unchecked.append(_unchecked(findings.name, "frame rate"))
    elif limit.fps_above is not None and info.fps <= limit.fps_above:
        yield f"it must have more than {limit.fps_above:g} frames a second (got {info.fps:g})"
    elif limit.fps is not None and not limit.fps[0] <= info.fps <= limit.fps[1]:
        yield f"it must have between {limit.fps[0]:g} and {limit.fps[1]:g} frames a second (got {info.fps:g})"


def _side_problems(width: int, height: int, limit: MediaLimit) -> Iterable[str]:
    got = f"(got {width} x {height} px)"
    short, long = sorted((width, height))
    if limit.min_side_px is not None and short < limit.min_side_px:
        yield f"it must have at least {limit.min_side_px} px on each side {got}"
    if limit.min_short_side_px is not None and short < limit.min_short_side_px:
        yield f"it must have at least {limit.min_short_side_px} px on the shorter side {got}"
    if limit.max_long_side_px is not None and long > limit.max_long_side_px:
        yield f"it must have at most {limit.max_long_side_px} px on the longer side {got}"
    if limit.aspect is not None and not limit.aspect[0] <= width / height <= limit.aspect[1]:
        least, most = limit.aspect
        yield f"its width must be between {least:g} and {most:g} times its height (got {width / height:.3g}: {width} x {height} px)"


def _unchecked(name: str, what: str) -> str:
    return f"{name}: its {what} is checked by the provider alone; install prefect-happyhorse[media] to have it checked here"
