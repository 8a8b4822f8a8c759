"""The sandbox's own controls, below /_sandbox: ledger, settings, faults, clock, reset, and a page for people."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, HTTPException
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import HTMLResponse

from prefect_happyhorse.sandbox.faults.faults import FaultRule
from prefect_happyhorse.sandbox.http.page import render_page
from prefect_happyhorse.sandbox.jobs.files import Files
from prefect_happyhorse.sandbox.jobs.job import LedgerEntry
from prefect_happyhorse.sandbox.jobs.settings import SandboxSettings
from prefect_happyhorse.sandbox.jobs.state import SandboxState

__all__ = ["control_router"]


class _Advance(BaseModel):
    model_config = ConfigDict(extra="forbid")

    seconds: float = Field(ge=0, description="By how much the sandbox's clock is put forward.")


class _Controls:
    def __init__(self, state: SandboxState, files: Files) -> None:
        self._state = state
        self._files = files

    async def page(self, request: Request) -> HTMLResponse:
        return HTMLResponse(render_page(self._state, self._files, request.url.netloc))

    async def ledger(self) -> list[LedgerEntry]:
        return self._state.ledger()

    async def settings(self) -> SandboxSettings:
        return self._state.settings

    async def change(self, changes: Annotated[dict[str, Any], Body()]) -> SandboxSettings:
        try:
            self._state.settings = self._state.settings.changed(changes)
        except ValidationError as error:
            raise HTTPException(422, error.errors(include_url=False, include_context=False, include_input=False)) from error
        return self._state.settings

    async def reset(self) -> None:
        self._state.reset()

    async def advance(self, by: _Advance) -> dict[str, float]:
        self._state.advance(by.seconds)
        return {"now": self._state.now()}

    async def faults(self) -> list[dict[str, Any]]:
        return self._state.faults.describe()

    async def add(self, rule: FaultRule) -> dict[str, int]:
        return {"number": self._state.faults.add(rule)}

    async def clear(self) -> None:
        self._state.faults.clear()


def control_router(state: SandboxState, files: Files) -> APIRouter:
    """The endpoints that control a sandbox."""
    router = APIRouter(tags=["sandbox"])
    controls = _Controls(state, files)
    router.add_api_route("/", controls.page, response_class=HTMLResponse, summary="Jobs and their pictures")
    router.add_api_route("/ledger", controls.ledger, summary="What was charged")
    router.add_api_route("/settings", controls.settings, summary="How it behaves")
    router.add_api_route("/settings", controls.change, methods=["PATCH"], summary="Change how it behaves")
    router.add_api_route("/reset", controls.reset, methods=["POST"], status_code=204, summary="Forget jobs, charges, tokens and faults")
    router.add_api_route("/clock", controls.advance, methods=["POST"], summary="Put the clock forward")
    router.add_api_route("/faults", controls.faults, summary="Rules in force, and how often each struck")
    router.add_api_route("/faults", controls.add, methods=["POST"], status_code=201, summary="Add a fault")
    router.add_api_route("/faults", controls.clear, methods=["DELETE"], status_code=204, summary="Lift every fault")
    return router
