"""What a run shows in the Prefect UI: a link and a card per asset, a gallery per run, a table per batch, progress while a job runs."""

from __future__ import annotations

import base64
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from uuid import UUID

import anyio
from prefect.artifacts import (
    acreate_link_artifact,
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)
from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging import get_run_logger

from prefect_happyhorse.catalog import find_route
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.jobs import Job, JobState
from prefect_happyhorse.engine.collect import kept_poster
from prefect_happyhorse.engine.store import Store

__all__ = ["Progress", "artifact_key", "card", "show_asset", "show_gallery", "show_table"]

_MAX_PROMPT_CHARS = 600


def _in_run() -> bool:
    # Outside a run Prefect warns that an artifact belongs to nothing.
    return TaskRunContext.get() is not None or FlowRunContext.get() is not None


@contextmanager
def _never_fatal(what: str) -> Generator[None]:
    """Turn a failure to show something into a warning: what is shown is paid for, and kept whether the UI can show it or not."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 -- whatever the server's trouble is
        get_run_logger().warning("%s could not be shown: %s: %s", what, type(error).__name__, error)


def artifact_key(*words: str) -> str:
    """An artifact key of several words: lower-case letters, digits and dashes, as Prefect wants it.

    Args:
        words: The words.

    Example:
        >>> artifact_key("card", "happyhorse-1.1-r2v", "0F2F")
        'card-happyhorse-1-1-r2v-0f2f'
    """
    return re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")


def _key(kind: str, asset: MediaAsset) -> str:
    return artifact_key(kind, asset.model or asset.kind, asset.sha256[:10])


async def _link(asset: MediaAsset, store: Store) -> str:
    path = store.path_of(asset.uri)
    public = None if path is None else await store.public_url(path)
    return public or asset.uri


async def show_asset(asset: MediaAsset, *, poster: bytes | None, store: Store) -> None:
    """Make a link artifact and a card for an asset; outside a run nothing is made.

    Args:
        asset: The asset.
        poster: A small JPEG of it, where there is one.
        store: Where it is kept.
    """
    if not _in_run():
        return
    title = f"{asset.capability} {asset.model}" if asset.model else asset.kind
    with _never_fatal(f"The card of {asset.uri}"):
        link = await _link(asset, store)
        await _show_link_and_card(asset, poster, link, title)


async def _show_link_and_card(asset: MediaAsset, poster: bytes | None, link: str, title: str) -> None:
    async with anyio.create_task_group() as both:
        both.start_soon(lambda: acreate_link_artifact(link=link, link_text=title, key=_key("link", asset), description=asset.uri))
        both.start_soon(
            lambda: acreate_markdown_artifact(
                markdown=card(asset, poster=poster, link=link), key=_key("card", asset), description=f"{title}, {asset.gateway}"
            )
        )


def card(asset: MediaAsset, *, poster: bytes | None, link: str) -> str:
    """An asset as markdown: its picture, its prompt, and where it came from.

    Args:
        asset: The asset.
        poster: A small JPEG of it, where there is one.
        link: Where it can be read.

    Returns:
        Markdown. Both of Prefect's UIs show a picture that is written into it; only the older shows a video.

    Example:
        >>> horse = MediaAsset(kind="image", uri="memory://horse.png", media_type="image/png", bytes=3, sha256="00")
        >>> print(card(horse, poster=None, link="memory://horse.png").splitlines()[0])
        ### image
    """
    facts = {
        "model": asset.model,
        "gateway": asset.gateway,
        "account": asset.account,
        "task id": asset.task_id,
        "request id": asset.request_id,
        "made in": _took(asset.submitted_at, asset.finished_at),
        "size": _size(asset),
        "file": f"{asset.bytes:,} bytes, {asset.media_type}",
        "sha256": asset.sha256,
        "kept at": asset.uri,
    }
    rows = [f"| {name} | {_cell(value)} |" for name, value in facts.items() if value]
    title = f"### {asset.capability} with {asset.model}" if asset.model else f"### {asset.kind}"
    parts = [
        title,
        _picture(poster, asset.kind),
        _quote(asset.prompt),
        "\n".join(["| | |", "|---|---|", *rows]),
        f"[open]({_address(link)})",
    ]
    if asset.kind == "video" and link.startswith(("http://", "https://")):
        parts.append(f'<video controls width="480" src="{_address(link)}"></video>')
    return "\n\n".join(part for part in parts if part)


async def show_gallery(assets: Sequence[tuple[str, MediaAsset]], *, store: Store, title: str) -> None:
    """Make one markdown artifact that shows a run's assets in the order in which they were made; outside a run nothing is made.

    Args:
        assets: For each its step and the asset.
        store: Where they are kept.
        title: What the run made.
    """
    if not _in_run():
        return
    with _never_fatal(f"The gallery {title!r}"):
        markdown = await _gallery(assets, store, title)
        await acreate_markdown_artifact(markdown=markdown, key=artifact_key("gallery", title), description=title)


async def _gallery(assets: Sequence[tuple[str, MediaAsset]], store: Store, title: str) -> str:
    cells: list[list[str]] = [[], [], [], []]
    for step, asset in assets:
        link = await _link(asset, store)
        picture = _picture(await kept_poster(asset, store), asset.kind)
        for row, cell in zip(
            cells, (_cell(step), picture, _cell(f"{asset.model} on {asset.gateway}"), f"[open]({_address(link)})"), strict=True
        ):
            row.append(cell)
    head, *rows = ("| " + " | ".join(row) + " |" for row in cells)
    table = "\n".join([head, "|" + "---|" * len(assets), *rows])
    return f"## {title}\n\n{table}"


async def show_table(rows: Sequence[Mapping[str, object]], *, key: str, description: str) -> None:
    """Make a table artifact; outside a run nothing is made.

    Args:
        rows: The rows, each with the same columns.
        key: The artifact key.
        description: What the table shows.
    """
    if not _in_run():
        return
    with _never_fatal(f"The table {key!r}"):
        await acreate_table_artifact(table=[dict(row) for row in rows], key=artifact_key(key), description=description)


class Progress:
    """A progress artifact for a job: the provider's own figure, else elapsed over typical time, which is said to be an estimate.

    Args:
        job: The job.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._typical_s = find_route(job.gateway, job.capability, job.model).typical_s
        self._artifact: UUID | None = None

    async def show(self, state: JobState, elapsed_s: float) -> None:
        """Show where the job stands; a job that ends at its first answer needs no progress.

        Args:
            state: What the gateway says.
            elapsed_s: Seconds since submit.
        """
        if not _in_run() or (self._artifact is None and state.status.final):
            return
        estimated = state.progress is None
        # An estimate never says that a job is done: only the gateway can.
        share = min(elapsed_s / self._typical_s, 0.95) if state.progress is None else state.progress
        percent = 100.0 if state.status.final else round(share * 100, 1)
        said = "estimated from the usual duration" if estimated else "as the gateway says"
        description = f"{self._job.model} {self._job.task_id}: {state.provider_status or state.status.value}, {said}"
        with _never_fatal(f"The progress of {self._job.task_id}"):
            if self._artifact is None:
                key = artifact_key("progress", self._job.digest[:10])
                self._artifact = await acreate_progress_artifact(progress=percent, key=key, description=description)
            else:
                await aupdate_progress_artifact(self._artifact, progress=percent, description=description)


def _picture(poster: bytes | None, kind: str) -> str:
    # Prefect's UIs show a picture only where it stands by itself: inside a link they print its text.
    return "" if poster is None else f"![{kind}](data:image/jpeg;base64,{base64.b64encode(poster).decode()})"


def _quote(prompt: str | None) -> str:
    if not prompt:
        return ""
    shown = prompt if len(prompt) <= _MAX_PROMPT_CHARS else f"{prompt[:_MAX_PROMPT_CHARS]}… ({len(prompt)} characters in all)"
    return "\n".join(f"> {_cell(line)}" for line in shown.splitlines())


def _cell(value: object) -> str:
    return re.sub(r"([\\|<>\[\]`*_])", r"\\\1", str(value)).replace("\n", " ")


def _address(link: str) -> str:
    return link.replace("(", "%28").replace(")", "%29").replace(" ", "%20").replace('"', "%22").replace("<", "%3C").replace(">", "%3E")


def _took(start: datetime | None, end: datetime | None) -> str:
    return "" if start is None or end is None else f"{(end - start).total_seconds():.1f} s"


def _size(asset: MediaAsset) -> str:
    parts: list[str] = []
    if asset.width and asset.height:
        parts.append(f"{asset.width} x {asset.height}")
    if asset.duration_s is not None:
        parts.append(f"{asset.duration_s:.1f} s")
    if asset.fps is not None:
        parts.append(f"{asset.fps:g} frames a second")
    return ", ".join(parts)
