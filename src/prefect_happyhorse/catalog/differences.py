"""What of a result is not as its request asks, once it is there: it is paid for and kept, so each is a warning."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from prefect_happyhorse.catalog.routes import Route
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.requests import GenerationRequest

__all__ = ["ROUNDED_S", "find_differences"]

ROUNDED_S = 0.1
"""A container's playing time is rounded to its frames and samples."""

# How much of a clip counts to the length of what continues or edits it, the sources do not say.
_LENGTH_OPEN = frozenset({"video_extension", "video_edit"})
_FPS_OPTIONS = ("fps", "frame_rate")
_SOUND_OPTIONS = ("audio", "generate_audio", "enable_audio", "with_audio", "sound")
_TIER = re.compile(r"(\d{3,4})p?|(\d)k", re.IGNORECASE)
_PAIR = re.compile(r"(\d+(?:\.\d+)?)[:x*×](\d+(?:\.\d+)?)", re.IGNORECASE)
_LEAST_SIDE_PX = 64
# Coders want sides that are multiples of up to 64. The next tiers and ratios are further away.
_TIER_OFF, _RATIO_OFF, _SIDE_OFF, _FPS_OFF = 0.1, 0.05, 0.02, 0.02


def find_differences(
    asset: MediaAsset, request: GenerationRequest, route: Route | None = None, *, outputs: int | None = None
) -> tuple[str, ...]:
    """Where an asset differs from its request, or from the one value that its route takes, as sentences; what is open is not compared.

    Args:
        asset: What came.
        request: What was asked for.
        route: Where, if that is known.
        outputs: How many came, to compare that too.

    Returns:
        The differences.

    Example:
        >>> from prefect_happyhorse.domain.requests import TextToVideo
        >>> asset = MediaAsset(kind="video", uri="memory://a.mp4", media_type="video/mp4", bytes=3, sha256="00", duration_s=3.0)
        >>> find_differences(asset, TextToVideo(model="wan2.7-t2v", prompt="A horse", duration=5))
        ('duration: 5 s were asked for (got 3.00 s)',)
    """
    return (
        *_length(asset, request),
        *_sides(asset, request, route),
        *_frame_rate(asset, request),
        *_sound(asset, request),
        *_number(outputs, request),
    )


def _length(asset: MediaAsset, request: GenerationRequest) -> Iterator[str]:
    asked: int | None = getattr(request, "duration", None)
    if asked is None or asset.duration_s is None or request.capability in _LENGTH_OPEN:
        return
    if abs(asset.duration_s - asked) > ROUNDED_S:
        yield f"duration: {asked} s were asked for (got {asset.duration_s:.2f} s)"


def _sides(asset: MediaAsset, request: GenerationRequest, route: Route | None) -> Iterator[str]:
    if not asset.width or not asset.height:
        return
    for name in ("resolution", "aspect_ratio", "size"):
        asked, whose = getattr(request, name, None), "was asked for"
        if asked is None and route is not None:
            # A route whose model is its resolution makes only that one.
            asked = next((field.values[0] for field in route.fields if name in field.source and len(field.values) == 1), None)
            whose = "is all that the route makes"
        if asked is not None and not _fits(str(asked), asset.width, asset.height):
            yield f"{name}: {str(asked)[:40]} {whose} (got {asset.width} x {asset.height} px)"


def _fits(asked: str, width: int, height: int) -> bool:
    """Whether sides are those of a tier, a ratio or a size; any are, of a word that is none of these."""
    if (tier := _TIER.fullmatch(asked)) is not None:
        lines, thousands = (int(digits or 0) for digits in tier.groups())
        side = lines or thousands * 1024
        # By its short side, as 1280 x 720 and 720 x 1280; or by the pixels of such a picture, as providers call 960 x 960 720p too.
        pixels = side**2 * (16 / 9 if lines else 1)
        got = (min(width, height), side), (math.sqrt(width * height), math.sqrt(pixels)), (max(width, height), thousands * 1024)
        return any(_near(one, other, _TIER_OFF) for one, other in got)
    if (pair := _PAIR.fullmatch(asked)) is None or not (two := float(pair[2])):
        return True
    one = float(pair[1])
    if min(one, two) < _LEAST_SIDE_PX:
        return _near(width / height, one / two, _RATIO_OFF)
    return _near(width, one, _SIDE_OFF) and _near(height, two, _SIDE_OFF)


def _near(got: float, asked: float, most: float) -> bool:
    return abs(got - asked) <= most * asked


def _frame_rate(asset: MediaAsset, request: GenerationRequest) -> Iterator[str]:
    asked = next((request.options[name] for name in _FPS_OPTIONS if name in request.options), None)
    if asset.fps is None or isinstance(asked, (bool, str)) or asked is None:
        return
    if not _near(asset.fps, asked, _FPS_OFF):
        yield f"frames a second: {asked:g} were asked for (got {asset.fps:g})"


def _sound(asset: MediaAsset, request: GenerationRequest) -> Iterator[str]:
    if asset.has_sound is None:
        return
    said = next((request.options[name] for name in _SOUND_OPTIONS if isinstance(request.options.get(name), bool)), None)
    if not asset.has_sound and (said is True or getattr(request, "audio", None) is not None):
        yield "sound: it was asked for (got none)"
    if asset.has_sound and said is False:
        yield "sound: none was asked for (got some)"


def _number(outputs: int | None, request: GenerationRequest) -> Iterator[str]:
    asked: int | None = getattr(request, "n", None)
    if asked is not None and outputs is not None and outputs != asked:
        yield f"n: {asked} were asked for (got {outputs})"
