"""The sandbox as one application: five gateways below a prefix each, their results, and its own controls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount
from starlette.routing import Route as Path

from prefect_happyhorse.sandbox.dialects.chanjing_gate import ChanjingGate
from prefect_happyhorse.sandbox.dialects.dashscope import Infiflow, Ttapi
from prefect_happyhorse.sandbox.dialects.happyhorse import Happyhorse
from prefect_happyhorse.sandbox.dialects.uniall import Uniall
from prefect_happyhorse.sandbox.http.control import control_router
from prefect_happyhorse.sandbox.http.gate import Endpoints
from prefect_happyhorse.sandbox.jobs.files import Files
from prefect_happyhorse.sandbox.jobs.settings import SandboxSettings
from prefect_happyhorse.sandbox.jobs.state import SandboxState
from prefect_happyhorse.sandbox.jobs.validate import submit_paths
from prefect_happyhorse.sandbox.media.intake import InputFetcher
from prefect_happyhorse.sandbox.media.studio import RenderCache

__all__ = ["create_app"]

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def create_app(settings: SandboxSettings | None = None, *, clock: Callable[[], float] | None = None) -> FastAPI:
    """The sandbox as an ASGI application.

    Example:
        >>> create_app(SandboxSettings(job_s=0)).title
        'happyhorse sandbox'
    """
    state = SandboxState(settings or SandboxSettings(), clock)
    studio = RenderCache()
    intake = InputFetcher(studio)
    files = Files(state, studio)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        yield
        state.close()
        await intake.close()
        await studio.close()

    app = FastAPI(
        title="happyhorse sandbox", docs_url="/_sandbox/docs", redoc_url=None, openapi_url="/_sandbox/openapi.json", lifespan=lifespan
    )
    app.state.sandbox = state
    app.include_router(control_router(state, files), prefix="/_sandbox")
    gates: list[Endpoints] = [Endpoints(dialect, state, studio, intake, files) for dialect in (Ttapi(), Uniall(), Infiflow(), Happyhorse())]
    gates.append(ChanjingGate(state, studio, intake, files))
    app.router.routes.extend(files.paths())
    app.router.routes.extend(Mount(f"/{gate.dialect.gateway}", routes=_gate_paths(gate)) for gate in gates)
    return app


def _gate_paths(gate: Endpoints) -> list[Path]:
    dialect = gate.dialect
    paths = [Path(path, partial(gate.submit, path=path), methods=["POST"]) for path in submit_paths(dialect.gateway)]
    paths += [Path(poll.path, partial(gate.poll, path=poll), methods=["GET"]) for poll in dialect.polls]
    if dialect.cancel is not None:
        paths.append(Path(dialect.cancel, gate.cancel, methods=["POST"]))
    if isinstance(gate, ChanjingGate) and dialect.issue_path is not None and dialect.batch is not None:
        paths.append(Path(dialect.issue_path, gate.issue_token, methods=["POST"]))
        paths.append(Path(dialect.batch, gate.poll_many, methods=["POST"]))

    async def elsewhere(request: Request) -> Response:
        status, body = dialect.error("unsupported", f"Invalid URL ({request.method} {request.url.path})", gate.state)
        return JSONResponse(body, 404 if status != 200 else 200)

    return [*paths, Path("/{rest:path}", elsewhere, methods=_METHODS)]
