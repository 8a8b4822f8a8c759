"""Traces and metrics of jobs, for whoever asks for them by a setting; nothing that makes them is imported before.

Spans go to the tracer provider of the process, by OpenTelemetry's API alone. Counters stand in Prometheus's default registry, which Prefect
serves. Neither holds a key or the text of an error, which may quote one; nor a prompt, unless a setting asks for it.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Literal, TypeVar, final
from urllib.parse import urlsplit

from prefect_happyhorse.domain.errors import GenerationError
from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.domain.requests import GenerationRequest
from prefect_happyhorse.domain.settings import current
from prefect_happyhorse.gateways import Account

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span, Tracer
    from prometheus_client import Counter

__all__ = ["Counted", "Step", "Telemetry", "chosen"]

_Result = TypeVar("_Result")

Counted = Literal["submits", "polls", "rate_limited", "downloaded_bytes"]

_COUNTERS: Mapping[Counted, tuple[str, tuple[str, ...]]] = {
    "submits": ("Submits by their outcome: accepted, the error that ended one, or other.", ("gateway", "outcome")),
    "polls": ("How often a gateway was asked how a job stands.", ("gateway",)),
    "rate_limited": ("Submits and polls that a gateway refused for their rate.", ("gateway",)),
    "downloaded_bytes": ("Bytes of the outputs that were downloaded.", ("gateway",)),
}

_log = logging.getLogger(__name__)
_registering = threading.Lock()


@dataclass(frozen=True)
class Telemetry:
    """Where it is told what becomes of jobs: nowhere, unless a setting asks for it.

    Args:
        tracer: What makes spans.
        with_prompts: Whether they hold the prompt.
        counters: The counters of this process.
    """

    tracer: Tracer | None = None
    with_prompts: bool = False
    counters: Mapping[Counted, Counter] | None = None

    def count(self, what: Counted, *labels: str, amount: float = 1) -> None:
        """Count something, by the gateway and what else its counter asks for."""
        if self.counters:
            self.counters[what].labels(*labels).inc(amount)

    def step(
        self, name: str, account: Account, subject: GenerationRequest | Job, *, digest: str, parent: str | None, url: str | None = None
    ) -> Step:
        """A step of a job, in the trace of its submit where the journal holds that, else in one of its own.

        Whatever is being traced already, such as Prefect's run, is linked to: so the trace of an asset is one through all runs.
        """
        if self.tracer is None:
            return Step(self, account.gateway)
        facts: dict[str, str | int | None] = {
            "gen_ai.operation.name": "generate_content",
            "gen_ai.provider.name": account.gateway,
            "gen_ai.request.model": subject.model,
            "happyhorse.gateway": account.gateway,
            "happyhorse.account": account.label,
            "happyhorse.capability": subject.capability,
            "happyhorse.digest": digest,
            **_server(url or account.base_url),
        }
        if isinstance(subject, Job):
            facts["happyhorse.task_id"] = subject.task_id
        if self.with_prompts and subject.prompt:
            said = [{"role": "user", "parts": [{"type": "text", "content": subject.prompt}]}]
            facts["gen_ai.input.messages"] = json.dumps(said, ensure_ascii=False)
        span: Span | None = None
        with _harmless():
            from opentelemetry.trace import SpanKind

            span = self.tracer.start_span(
                f"happyhorse.{name}",
                # Of none, or of one that is damaged, it makes a context without a span, whatever is current.
                context=_propagator().extract({"traceparent": parent or ""}),
                kind=SpanKind.CLIENT,
                attributes={name: value for name, value in facts.items() if value is not None},
                links=_links(),
            )
        return Step(self, account.gateway, span)


@contextmanager
def _harmless(what: str = "A span") -> Generator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 -- a tracer provider is anybody's, and a job that is paid for does not fail for it
        _log.warning("%s could not be written: %s", what, type(error).__name__)


@final
class Step:
    """A step of a job: a span, where there are any, which is the current one in here. What is not begun by `with` is told nowhere."""

    def __init__(self, telemetry: Telemetry, gateway: str, span: Span | None = None) -> None:
        self._telemetry = telemetry
        self._gateway = gateway
        self._span = span
        self._token: Token[Context] | None = None
        self.outcome = "accepted"

    @property
    def traceparent(self) -> str | None:
        """What makes a later span, of another process too, one of the same trace: https://www.w3.org/TR/trace-context/#traceparent-header."""
        if self._span is None:
            return None
        carrier: dict[str, str] = {}
        with _harmless():
            from opentelemetry.trace import set_span_in_context

            _propagator().inject(carrier, set_span_in_context(self._span))
        return carrier.get("traceparent")

    def tell(self, name: str, value: str | int) -> None:
        """Tell a fact."""
        self._on_span(lambda span: span.set_attribute(name, value))

    def tell_cost(self, which: Literal["estimated", "billed"], amount: Decimal | None, currency: str | None) -> None:
        """Tell what the job should cost, or does; nothing where nobody knows."""
        if amount is not None and currency is not None:
            costs = {f"happyhorse.cost.{which}": float(amount), "happyhorse.cost.currency": currency}
            self._on_span(lambda span: span.set_attributes(costs))

    def failed(self, error: BaseException) -> None:
        """Tell that it failed, by the kind of the error alone."""
        self.outcome = type(error).__name__ if isinstance(error, GenerationError) else "other"
        self.tell("error.type", type(error).__qualname__)
        if isinstance(error, GenerationError) and error.status_code is not None:
            self.tell("http.response.status_code", error.status_code)
        self._on_span(_set_error)

    def _on_span(self, do: Callable[[Span], None]) -> None:
        if self._span is None:
            return
        with _harmless():
            do(self._span)

    async def around(self, submit: Awaitable[_Result]) -> _Result:
        """Await a submit, and count its outcome."""
        try:
            with self:
                return await submit
        finally:
            self._telemetry.count("submits", self._gateway, self.outcome)

    def __enter__(self) -> Step:
        if self._span is not None:
            from opentelemetry import context, trace

            self._token = context.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if error is not None:
            self.failed(error)
        if self._token is None:
            return
        from opentelemetry import context

        context.detach(self._token)
        self._on_span(lambda span: span.end())


def chosen() -> Telemetry:
    """What the settings ask for."""
    settings = current()
    tracer = _tracer() if settings.traces else None
    return Telemetry(tracer, settings.trace_prompts, _counters() if settings.metrics else None)


def _tracer() -> Tracer | None:
    with _harmless():
        from opentelemetry.trace import get_tracer

        return get_tracer("prefect_happyhorse")
    return None


def _counters() -> Mapping[Counted, Counter]:
    # Each thread with an event loop asks for them, and a name can be registered once.
    with _registering:
        return _registered()


@lru_cache(maxsize=1)
def _registered() -> Mapping[Counted, Counter]:
    with _harmless("A counter"):
        from prometheus_client import Counter

        return {name: Counter(f"happyhorse_{name}", told, labels) for name, (told, labels) in _COUNTERS.items()}
    return {}


@lru_cache(maxsize=1)
def _propagator():
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator()


def _set_error(span: Span) -> None:
    from opentelemetry.trace import StatusCode

    span.set_status(StatusCode.ERROR)


def _links() -> list[Link]:
    from opentelemetry.trace import Link, get_current_span

    running = get_current_span().get_span_context()
    return [Link(running)] if running.is_valid else []


def _server(url: str) -> dict[str, str | int | None]:
    try:
        parts = urlsplit(url)
        return {"server.address": parts.hostname, "server.port": parts.port}
    except ValueError:
        # It is refused where it is called, with the rule that it breaks.
        return {}
