"""Markdown as both of Prefect's UIs show it: the card of an asset, and a grid of pictures."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import NamedTuple

from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.texts import harmless

__all__ = ["Tile", "address", "card", "grid", "inline"]

_MAX_PROMPT_CHARS = 600
_COLUMNS = 3
"""As many pictures of 192 px as the older UI shows side by side without scrolling."""


class Tile(NamedTuple):
    """A picture in a grid: what stands above it, the asset, a small JPEG of it where there is one, and where it can be read."""

    head: str
    asset: MediaAsset
    picture: bytes | None
    link: str


def card(asset: MediaAsset, *, thumbnail: bytes | None, link: str) -> str:
    """An asset as markdown: its picture, its prompt, and where it came from.

    Example:
        >>> horse = MediaAsset(kind="image", uri="memory://horse.png", media_type="image/png", bytes=3, sha256="00")
        >>> print(card(horse, thumbnail=None, link="memory://horse.png").splitlines()[0])
        ### image
    """
    job = asset.job
    facts = {
        "model": job and job.model,
        "gateway": job and job.gateway,
        "account": job and job.account,
        "task id": job and job.task_id,
        "request id": job and job.request_id,
        "made in": "" if asset.elapsed_s is None else f"{asset.elapsed_s:.1f} s",
        "cost": job and str(asset.estimate or "unknown"),
        "labels": ", ".join(f"{name}: {value}" for name, value in job.labels.items()) if job else "",
        "usage": asset.usage and ", ".join(f"{name} {value}" for name, value in asset.usage.items()),
        "size": _size(asset),
        "file": f"{asset.bytes:,} bytes, {asset.media_type}",
        "C2PA data": "in the file" if asset.c2pa else "",
        "sha256": asset.sha256,
        "kept at": asset.uri,
    }
    rows = [f"| {name} | {inline(value)} |" for name, value in facts.items() if value]
    title = f"### {job.capability} with {inline(job.model)}" if job else f"### {asset.kind}"
    parts = [
        title,
        "\n".join(f"- **Warning:** {inline(warning)}" for warning in asset.warnings),
        _picture(thumbnail, asset.kind),
        _quote(job and job.prompt),
        "\n".join(["| | |", "|---|---|", *rows]),
        f"[open]({address(link)})",
    ]
    if asset.kind == "video" and link.startswith(("http://", "https://")):
        parts.append(f'<video controls width="480" src="{address(link)}"></video>')
    return "\n\n".join(part for part in parts if part)


def grid(tiles: Sequence[Tile]) -> str:
    """Pictures side by side, three in a row, each with what it is and a link."""
    return "\n\n".join(_row(tiles[start : start + _COLUMNS]) for start in range(0, len(tiles), _COLUMNS))


def inline(value: object) -> str:
    r"""A text of others inside one line of markdown: it shows as it is, and is neither markup nor HTML.

    Example:
        >>> print(inline("<b>*done*</b>"))
        \<b\>\*done\*\</b\>
    """
    line = re.sub(r"[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]", " ", str(value))
    return harmless(re.sub(r"([\\|<>\[\]`*_~#&])", r"\\\1", line))


def _row(tiles: Sequence[Tile]) -> str:
    lines = (
        [inline(tile.head) for tile in tiles],
        ["---"] * len(tiles),
        [_picture(tile.picture, tile.asset.kind) for tile in tiles],
        [inline(tile.asset.job.model if tile.asset.job else tile.asset.kind) for tile in tiles],
        [inline(tile.asset.job.gateway if tile.asset.job else "") for tile in tiles],
        [inline(_cost(tile.asset)) for tile in tiles],
        [f"[open]({address(tile.link)})" for tile in tiles],
    )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cost(asset: MediaAsset) -> str:
    """What the job of an asset cost: one of several outputs is paid for once. It has to fit under a picture."""
    if asset.job is None:
        return ""
    return "job: cost unknown" if asset.estimate is None or not asset.estimate.known else f"job: {asset.estimate.figure}"


def _picture(thumbnail: bytes | None, kind: str) -> str:
    # Prefect's UIs show a picture only where it stands by itself: inside a link they print its text.
    return "" if thumbnail is None else f"![{kind}](data:image/jpeg;base64,{base64.b64encode(thumbnail).decode()})"


def _quote(prompt: str | None) -> str:
    if not prompt:
        return ""
    shown = prompt if len(prompt) <= _MAX_PROMPT_CHARS else f"{prompt[:_MAX_PROMPT_CHARS]}… ({len(prompt)} characters in all)"
    return "\n".join(f"> {inline(line)}" for line in shown.splitlines())


def address(link: str) -> str:
    """An address inside a link of markdown, which nothing in it ends."""
    return link.replace("(", "%28").replace(")", "%29").replace(" ", "%20").replace('"', "%22").replace("<", "%3C").replace(">", "%3E")


def _size(asset: MediaAsset) -> str:
    parts: list[str] = []
    if asset.width and asset.height:
        parts.append(f"{asset.width} x {asset.height}")
    if asset.duration_s is not None:
        parts.append(f"{asset.duration_s:.1f} s")
    if asset.fps is not None:
        parts.append(f"{asset.fps:g} frames a second")
    return ", ".join(parts)
