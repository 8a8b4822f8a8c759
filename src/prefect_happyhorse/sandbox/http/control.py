"""The sandbox's own controls, below /_sandbox: ledger, settings, faults, clock, reset, and a page for people."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, HTTPException
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import HTMLResponse

from prefect_happyhorse.sandbox.faults.rules import FaultRule
from prefect_happyhorse.sandbox.http.files import Files
from prefect_happyhorse.sandbox.http.page import render_page
from prefect_happyhorse.sandbox.jobs.job import LedgerEntry
from prefect_happyhorse.sandbox.jobs.settings import SandboxSettings
from prefect_happyhorse.sandbox.jobs.state import SandboxState

__all__ = ["control_router"]


class _Advance(BaseModel):
    model_config = ConfigDict(extra="forbid")

    seconds: float = Field(ge=0, description="By how much the sandbox's clock is put forward.")


def control_router(state: SandboxState, files: Files) -> APIRouter:  # noqa: C901  # one short function per endpoint
    """The endpoints that control a sandbox."""
    router = APIRouter(tags=["sandbox"])

    @router.get("/", response_class=HTMLResponse, summary="Jobs and their pictures")
    async def page(request: Request) -> HTMLResponse:
        return HTMLResponse(render_page(state, files, request.url.netloc))

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
