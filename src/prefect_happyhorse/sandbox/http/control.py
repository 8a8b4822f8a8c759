"""The sandbox's own controls, below /_sandbox: ledger, settings, faults, clock, reset, and a page for people."""

from __future__ import annotations

from datetime import datetime, timezone
from html import escape
from typing import Annotated, Any

from fastapi import APIRouter, Body, HTTPException
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import HTMLResponse

from prefect_happyhorse.catalog import GATEWAYS, gateway_facts
from prefect_happyhorse.sandbox.faults.rules import FaultRule
from prefect_happyhorse.sandbox.http.files import Files
from prefect_happyhorse.sandbox.jobs.job import Job, LedgerEntry
from prefect_happyhorse.sandbox.jobs.settings import SandboxSettings
from prefect_happyhorse.sandbox.jobs.state import SandboxState

__all__ = ["control_router"]

_SHOWN = 60
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8888; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1200px; padding: 2rem 1.5rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } p { margin: .25rem 0 1rem; } code { font-size: .9em; }
.bases { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin-bottom: 1.5rem; }
.jobs { display: grid; grid-template-columns: repeat(auto-fill, minmax(260px, 1fr)); gap: 1.25rem; }
.job { border: 1px solid var(--line); border-radius: 10px; overflow: hidden; }
.job .media { display: block; width: 100%; aspect-ratio: 16 / 10; object-fit: contain; background: #0d0f16; }
.job .wait { display: grid; place-items: center; color: #aab; } .job div.text { padding: .6rem .8rem .8rem; }
.job b { display: block; } .job small { color: var(--soft); display: block; overflow-wrap: anywhere; }
.failed { color: #c33; } .succeeded { color: #2a7; }
"""


class _Advance(BaseModel):
    model_config = ConfigDict(extra="forbid")

    seconds: float = Field(ge=0, description="By how much the sandbox's clock is put forward.")


def control_router(state: SandboxState, files: Files) -> APIRouter:  # noqa: C901 -- one short function per endpoint
    """The endpoints that control a sandbox."""
    router = APIRouter(tags=["sandbox"])

    @router.get("/", response_class=HTMLResponse, summary="Jobs and their pictures")
    async def page(request: Request) -> HTMLResponse:
        return HTMLResponse(_page(state, files, request.url.netloc))

    @router.get("/ledger", summary="What was charged")
    async def ledger() -> list[LedgerEntry]:
        return state.ledger()

    @router.get("/settings", summary="How it behaves")
    async def settings() -> SandboxSettings:
        return state.settings

    @router.patch("/settings", summary="Change how it behaves")
    async def change(changes: Annotated[dict[str, Any], Body()]) -> SandboxSettings:
        try:
            return state.change(changes)
        except ValidationError as error:
            raise HTTPException(422, error.errors(include_url=False, include_context=False, include_input=False)) from error

    @router.post("/reset", status_code=204, summary="Forget jobs, charges, tokens and faults")
    async def reset() -> None:
        state.reset()

    @router.post("/clock", summary="Put the clock forward")
    async def advance(by: _Advance) -> dict[str, float]:
        state.advance(by.seconds)
        return {"now": state.now()}

    @router.get("/faults", summary="Rules in force, and how often each struck")
    async def faults() -> list[dict[str, Any]]:
        return state.faults.describe()

    @router.post("/faults", status_code=201, summary="Add a fault")
    async def add(rule: FaultRule) -> dict[str, int]:
        return {"number": state.faults.add(rule)}

    @router.delete("/faults", status_code=204, summary="Lift every fault")
    async def clear() -> None:
        state.faults.clear()

    return router


def _page(state: SandboxState, files: Files, host: str) -> str:
    now = state.now()
    entries = state.ledger()
    refunded = sum(entry.refunded for entry in entries)
    bases = "".join(f"<span>{escape(gateway_facts(name).title)}</span><code>http://{escape(host)}/{name}</code>" for name in GATEWAYS)
    jobs = list(state.jobs.values())[::-1]
    cards = "".join(_card(job, files, now) for job in jobs[:_SHOWN]) or "<p>No job yet.</p>"
    more = f"<p>The newest {_SHOWN} of {len(jobs)}.</p>" if len(jobs) > _SHOWN else ""
    links = " \u00b7 ".join(f'<a href="{name}">{name}</a>' for name in ("ledger", "settings", "faults", "docs"))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>happyhorse sandbox</title><style>{_STYLE}</style></head><body>'
        f"<h1>happyhorse sandbox</h1><p>{len(entries)} charged, {refunded} refunded, {state.refused} calls refused. {links}</p>"
        f'<div class="bases">{bases}</div>{more}<div class="jobs">{cards}</div></body></html>'
    )


def _card(job: Job, files: Files, now: float) -> str:
    standing = job.state(now)
    when = datetime.fromtimestamp(job.submitted_at, timezone.utc).strftime("%H:%M:%S UTC")
    media = f'<div class="media wait">{standing}</div>'
    if standing == "succeeded":
        source = f"files/{escape(files.name(job, 0))}"
        picture = f'<a href="{source}"><img class="media" src="{source}" alt="" loading="lazy"></a>'
        video = f'<video class="media" src="{source}" controls muted loop preload="metadata"></video>'
        media = video if job.route.kind == "video" else picture
    reason = f"<small>{escape(job.failure.message)}</small>" if standing == "failed" and job.failure else ""
    return (
        f'<div class="job">{media}<div class="text"><b>{escape(job.route.model)}</b>'
        f"{escape(job.route.facts.title)} \u00b7 {escape(job.route.capability.replace('_', ' '))} \u00b7 "
        f'<span class="{standing}">{standing}</span><small>{escape((job.body.text("prompt") or "")[:160])}</small>{reason}'
        f"<small>{when} \u00b7 {job.polls} polls \u00b7 {job.downloads} downloads \u00b7 <code>{escape(job.task_id)}</code></small>"
        "</div></div>"
    )
