"""The sandbox as one application: every gateway of the catalog below a prefix, their results, and its own controls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from starlette.routing import Mount, Router
from starlette.types import Receive, Scope, Send

from prefect_happyhorse.catalog import GATEWAYS, DialectName, GatewayFacts, gateway_facts
from prefect_happyhorse.sandbox.dialects.base import Dialect
from prefect_happyhorse.sandbox.dialects.chanjing import Chanjing
from prefect_happyhorse.sandbox.dialects.dashscope import DashScope
from prefect_happyhorse.sandbox.dialects.newapi import NewAPI
from prefect_happyhorse.sandbox.http.control import control_router
from prefect_happyhorse.sandbox.http.endpoints import Endpoints
from prefect_happyhorse.sandbox.http.files import Files
from prefect_happyhorse.sandbox.jobs.inputs import InputFetcher
from prefect_happyhorse.sandbox.jobs.settings import SandboxSettings
from prefect_happyhorse.sandbox.jobs.state import SandboxState
from prefect_happyhorse.sandbox.media.render_cache import RenderCache

__all__ = ["create_app"]

_DIALECTS: dict[DialectName, type[Dialect]] = {"dashscope": DashScope, "newapi": NewAPI, "chanjing": Chanjing}


def create_app(settings: SandboxSettings | None = None, *, clock: Callable[[], float] | None = None) -> FastAPI:
    """The sandbox as an ASGI application."""
    state = SandboxState(settings or SandboxSettings(), clock)
    renders = RenderCache()
    inputs = InputFetcher(renders)
    files = Files(state, renders)
    routers: dict[str, tuple[GatewayFacts, Router]] = {}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        yield
        state.close()
        await inputs.close()
        await renders.close()

    async def serve_gateway(scope: Scope, receive: Receive, send: Send) -> None:
        gateway = scope["path_params"]["gateway"]
        if gateway not in GATEWAYS:
            raise HTTPException(404, f"There is no gateway {gateway!r}. There are {', '.join(GATEWAYS)}.")
        facts = gateway_facts(gateway)
        # Built at its first call: a gateway may be registered while the sandbox runs.
        if gateway not in routers or routers[gateway][0] is not facts:
            dialect = _DIALECTS[facts.dialect](facts, state)
            routers[gateway] = (facts, Router(Endpoints(dialect, files, inputs).paths()))
        await routers[gateway][1](scope, receive, send)

    app = FastAPI(
        title="happyhorse sandbox", docs_url="/_sandbox/docs", redoc_url=None, openapi_url="/_sandbox/openapi.json", lifespan=lifespan
    )
    app.state.sandbox = state
    app.include_router(control_router(state, files), prefix="/_sandbox")
    app.router.routes.extend([*files.paths(), Mount("/{gateway}", serve_gateway)])
    return app
