"""The sandbox as one application, and running it: until interrupted, or for as long as a block of code needs it."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Any, TypeVar, cast

import httpx
import uvicorn
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI, HTTPException
from starlette.routing import Mount, Router
from starlette.types import Receive, Scope, Send
from typing_extensions import Self

from prefect_happyhorse.catalog import GATEWAYS, GatewayFacts, gateway_facts
from prefect_happyhorse.catalog.discovery import SANDBOX_DIALECTS, dialect_class
from prefect_happyhorse.domain.errors import CatalogError
from prefect_happyhorse.sandbox.dialects.base import Dialect
from prefect_happyhorse.sandbox.dialects.chanjing import Chanjing
from prefect_happyhorse.sandbox.dialects.dashscope import DashScope
from prefect_happyhorse.sandbox.dialects.newapi import NewAPI
from prefect_happyhorse.sandbox.faults.rules import FaultRule
from prefect_happyhorse.sandbox.http.control import control_router
from prefect_happyhorse.sandbox.http.endpoints import Endpoints
from prefect_happyhorse.sandbox.http.files import Files
from prefect_happyhorse.sandbox.http.transport import Dated, SandboxProtocol
from prefect_happyhorse.sandbox.jobs.inputs import InputFetcher
from prefect_happyhorse.sandbox.jobs.job import LedgerEntry
from prefect_happyhorse.sandbox.jobs.settings import SandboxSettings
from prefect_happyhorse.sandbox.jobs.state import SandboxState
from prefect_happyhorse.sandbox.media.render import RenderCache

__all__ = ["SandboxServer", "create_app", "serve"]

_BACKLOG = 4096
_DIALECTS: dict[str, type[Dialect]] = {"dashscope": DashScope, "newapi": NewAPI, "chanjing": Chanjing}

Result = TypeVar("Result")


def create_app(settings: SandboxSettings | None = None, *, clock: Callable[[], float] | None = None) -> FastAPI:
    """The sandbox as an ASGI application."""
    state = SandboxState(settings or SandboxSettings(), clock)
    renders = RenderCache()
    inputs = InputFetcher(renders, state)
    files = Files(state, renders)
    routers: dict[str, tuple[GatewayFacts, Router]] = {}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        async with inputs.client:
            yield
            state.close()
        await renders.close()

    async def serve_gateway(scope: Scope, receive: Receive, send: Send) -> None:
        gateway = scope["path_params"]["gateway"]
        if gateway not in GATEWAYS:
            raise HTTPException(404, f"There is no gateway {gateway!r}. There are {', '.join(GATEWAYS)}.")
        facts = gateway_facts(gateway)
        # Built at its first call: a gateway may be registered while the sandbox runs.
        if gateway not in routers or routers[gateway][0] is not facts:
            dialect = _dialect(facts)(facts, state)
            routers[gateway] = (facts, Router(Endpoints(dialect, files, inputs).paths()))
        await routers[gateway][1](scope, receive, send)

    app = FastAPI(
        title="happyhorse sandbox", docs_url="/_sandbox/docs", redoc_url=None, openapi_url="/_sandbox/openapi.json", lifespan=lifespan
    )
    app.state.sandbox = state
    app.add_middleware(Dated, clock=state.now)
    app.include_router(control_router(state, files), prefix="/_sandbox")
    app.router.routes.extend([*files.paths(), Mount("/{gateway}", serve_gateway)])
    return app


def _dialect(facts: GatewayFacts) -> type[Dialect]:
    try:
        return _DIALECTS.get(facts.dialect) or dialect_class(facts.dialect, Dialect, SANDBOX_DIALECTS)
    except CatalogError as error:
        raise HTTPException(501, f"{facts.gateway} is not served here. {error}") from error


def serve(
    host: str = "127.0.0.1", port: int = 8808, settings: SandboxSettings | None = None, *, started: Callable[[], object] | None = None
) -> None:
    """Run a sandbox until it is interrupted; `started` is called once it listens, a ValueError says who has the port."""
    try:
        listener = _listen(host, port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise ValueError(f"Port {port} is in use by {_who_has(host, port)}. Give another --port.") from error
    with listener:
        if started is not None:
            started()
        uvicorn.Server(_config(settings)).run([listener])


def _listen(host: str, port: int) -> socket.socket:
    # Named as TCP, not just as a stream: only then does asyncio switch off Nagle's delay, 40 ms an answer, on what it accepts.
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _who_has(host: str, port: int) -> str:
    """Whether it is a sandbox that listens there."""
    page = f"http://{f'[{host}]' if ':' in host else host}:{port}/_sandbox/"
    try:
        SandboxSettings.model_validate(httpx.get(f"{page}settings", timeout=2.0, trust_env=False).json())
    except (httpx.HTTPError, ValueError):
        return "another program"
    return f"another sandbox: {page}"


def _config(settings: SandboxSettings | None) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(settings),
        http=SandboxProtocol,
        ws="none",
        access_log=False,
        date_header=False,
        log_level="warning",
        timeout_graceful_shutdown=2,
        backlog=_BACKLOG,
    )


class SandboxServer:
    """A sandbox on a free port of this machine, in a thread of its own, for `with` and `async with`.

    Args:
        settings: How it behaves; None is the defaults.
        host: The address to listen on.
        port: The port to listen on; 0 takes a free one.

    Example:
        >>> import httpx
        >>> with SandboxServer(SandboxSettings(job_s=0)) as sandbox:
        ...     httpx.get(f"{sandbox.url}/_sandbox/ledger").json()
        []
    """

    def __init__(self, settings: SandboxSettings | None = None, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._server = uvicorn.Server(_config(settings))
        self._state: SandboxState = cast("FastAPI", self._server.config.app).state.sandbox
        self._host = host
        self._port = port
        self._thread = ExitStack()
        self._portal: BlockingPortal | None = None

    @property
    def url(self) -> str:
        """The address of the sandbox, without a slash at the end."""
        return f"http://{self._host}:{self._port}"

    def base_url(self, gateway: str) -> str:
        """The address of one gateway, by its id; a ValueError when there is none."""
        if gateway not in GATEWAYS:
            raise ValueError(f"There is no gateway {gateway!r}. There are {', '.join(GATEWAYS)}.")
        return f"{self.url}/{gateway}"

    def start(self) -> Self:
        """Begin to serve; a RuntimeError when it did before."""
        if self._portal is not None or self._server.started:
            raise RuntimeError("The sandbox is running already; a new one needs a new SandboxServer.")
        with ExitStack() as begun:
            listener = begun.enter_context(_listen(self._host, self._port))
            self._port = listener.getsockname()[1]
            portal = begun.enter_context(start_blocking_portal())
            serving = portal.start_task_soon(self._server.serve, [listener])
            begun.callback(serving.result)
            while not self._server.started:
                if serving.done():
                    raise RuntimeError("The sandbox stopped before it began.")
                time.sleep(0.005)
            self._thread = begun.pop_all()
        self._portal = portal
        return self

    def stop(self) -> None:
        """End every stall, close the connections and wait for the thread."""
        if self._portal is not None:
            self._call(self._state.close)
            self._portal = None
            self._server.should_exit = True
            self._thread.close()

    def ledger(self) -> list[LedgerEntry]:
        """What was charged: one entry per accepted job, in the order of acceptance."""
        return self._call(self._state.ledger)

    def settings(self, **changes: object) -> SandboxSettings:
        """Change how it behaves from now on, and give the settings in force; without changes they are only read."""
        return self._call(lambda: self._state.change(changes))

    def fault(self, **rule: Any) -> int:
        """Add a fault by the fields of a `FaultRule`, for example `at="submit", kind="drop_after"`, and give its number."""
        checked = FaultRule(**rule)
        return self._call(lambda: self._state.faults.add(checked))

    def faults(self) -> list[dict[str, object]]:
        """The rules in force, and how often each struck, as JSON-safe mappings."""
        return self._call(self._state.faults.describe)

    def clear_faults(self) -> None:
        """Lift every fault."""
        self._call(self._state.faults.clear)

    def advance(self, seconds: float) -> None:
        """Put the sandbox's clock forward, so that jobs finish and addresses expire without waiting."""
        self._call(lambda: self._state.advance(seconds))

    def release(self) -> None:
        """End every stall that is under way."""
        self._call(self._state.release)

    def reset(self) -> None:
        """Forget jobs, charges, tokens, faults and what the clock was put forward, and end every stall. Settings stay."""
        self._call(self._state.reset)

    def _call(self, work: Callable[[], Result]) -> Result:
        """Do something in the thread that the state belongs to."""
        return work() if self._portal is None else self._portal.call(work)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.stop)
