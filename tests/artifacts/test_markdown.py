"""Whatever a provider or a user writes shows in an artifact as it is: no markup, no HTML, no control of a terminal."""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest

from prefect_happyhorse.artifacts import cards, gallery, progress, table
from prefect_happyhorse.artifacts.gallery import show_gallery
from prefect_happyhorse.artifacts.markdown import card, inline
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.jobs import Job, JobSnapshot, JobStatus
from prefect_happyhorse.domain.prices import Estimate
from prefect_happyhorse.engine.storage.store import Store

NASTY = "<img src=x onerror=alert(1)> [a](https://evil.example) **b** `c` | d\n# e\r\u2028&lt;f \x1b[2J ~~g~~ \u200f\u061c"
NOW = datetime(2026, 11, 20, tzinfo=timezone.utc)
JOB = Job(
    gateway="happyhorse",
    account=NASTY,
    capability="text_to_image",
    model=NASTY,
    task_id=NASTY,
    request_id=NASTY,
    digest="d",
    prompt=NASTY,
    submitted_at=NOW,
)
ASSET = MediaAsset(kind="image", uri="memory://horse.png", media_type="image/png", bytes=3, sha256="00" * 32, job=JOB, usage={NASTY: NASTY})


def is_harmless(markdown: str) -> bool:
    """Whether nothing of it is live: every sign that could begin something stands behind a backslash."""
    plain = markdown.replace("\\\\", "")
    for sign in "<[*`~&":
        plain = plain.replace(f"\\{sign}", "")
    return not any(sign in plain for sign in ("<img", "[a]", "**b**", "`c`", "&lt;", "~~g~~", "\x1b", "\r", "\u2028", "\u200f", "\u061c"))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What artifacts were made, as if there were a run."""
    found: list[dict[str, Any]] = []

    async def make(**facts: Any) -> None:
        found.append(facts)

    for module, name in (
        (cards, "acreate_link_artifact"),
        (cards, "acreate_markdown_artifact"),
        (gallery, "acreate_markdown_artifact"),
        (progress, "acreate_progress_artifact"),
        (table, "acreate_table_artifact"),
    ):
        monkeypatch.setattr(module, name, make)
        monkeypatch.setattr(module, "in_run", lambda: True)
    return found


def test_a_card_escapes_all() -> None:
    """Model, ids, account, prompt and what the provider counted."""
    shown = card(ASSET, thumbnail=None, link="memory://horse.png")
    assert is_harmless(shown)
    assert "\n# e" not in shown
    assert inline(NASTY) in shown


async def test_every_artifact_escapes_all(made: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Titles and descriptions too: Prefect shows them as markdown."""
    monkeypatch.setattr(progress, "find_route", lambda *_: type("Route", (), {"typical_s": 60.0}))
    store = Store(url=str(tmp_path))
    await cards.show_asset(ASSET, thumbnail=None, store=store)
    await show_gallery([(NASTY, ASSET)], store=store, title=NASTY)
    await progress.Progress(JOB).show(JobSnapshot(status=JobStatus.RUNNING, provider_status=NASTY), 1.0)
    await table.show_table([{"row": 1}], key="t", description=NASTY)
    assert len(made) == 5
    for facts in made:
        for name in ("description", "link_text", "markdown"):
            assert is_harmless(facts.get(name) or ""), (name, facts)


@pytest.mark.parametrize(
    ("estimate", "told"),
    [
        (None, "cost unknown"),
        (Estimate(reason="nobody says"), "cost unknown"),
        (Estimate(amount=Decimal("2.7"), currency="CNY", reason="3 s", basis="maker"), "2.7 CNY (maker's list)"),
    ],
)
async def test_a_gallery_shows_what_each_cost(made: list[dict[str, Any]], tmp_path: Any, estimate: Estimate | None, told: str) -> None:
    """And whose price that is, where it binds nobody."""
    asset = ASSET.model_copy(update={"estimate": estimate})
    await show_gallery([("horse", asset)], store=Store(url=str(tmp_path)), title="Horses")
    (facts,) = made
    assert f"| job: {told} |" in facts["markdown"]


@pytest.mark.parametrize(("uri", "opens"), [("file:///outputs/horse.png", False), ("https://media.example/horse.png", True)])
async def test_a_gallery_says_which_links_no_browser_opens(made: list[dict[str, Any]], tmp_path: Any, uri: str, opens: bool) -> None:
    """And what to do instead."""
    await show_gallery([("horse", ASSET.model_copy(update={"uri": uri}))], store=Store(url=str(tmp_path)), title="Horses")
    assert ("by `happyhorse gallery`" in made[0]["markdown"]) is not opens


@pytest.mark.parametrize(
    ("url", "link"),
    [(None, None), ("https://media.example/a (b)/", "](https://media.example/a%20%28b%29/)")],
)
async def test_a_runs_gallery_links_to_the_one_that_was_exported(
    made: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Any, url: str | None, link: str | None
) -> None:
    """Where the setting gallery_url says where that is."""
    if url is not None:
        monkeypatch.setenv("HAPPYHORSE_GALLERY_URL", url)
    await show_gallery([("horse", ASSET)], store=Store(url=str(tmp_path)), title="Horses")
    (facts,) = made
    assert ("All jobs of this store" in facts["markdown"]) is (link is not None)
    assert link is None or link in facts["markdown"]
