"""Traces and counters of runs: Prefect's own spans are linked to, and Prefect's own endpoint serves the counters."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prefect import flow
from prefect.settings import PREFECT_CLIENT_METRICS_ENABLED, PREFECT_CLIENT_METRICS_PORT, temporary_settings
from prefect.utilities.services import stop_client_metrics_server

from prefect_happyhorse import TextToImage, generate
from prefect_happyhorse.sandbox import SandboxServer


@pytest.fixture
def port() -> Iterator[int]:
    """Where Prefect serves metrics."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with temporary_settings({PREFECT_CLIENT_METRICS_ENABLED: True, PREFECT_CLIENT_METRICS_PORT: port}):
        yield port
    stop_client_metrics_server()


async def test_prefects_runs_are_linked_to_and_its_endpoint_serves_the_counters(
    prefect_server: None, sandbox_env: SandboxServer, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect traces its runs by themselves: an asset's trace links to the task run that worked at it, and is a trace of its own."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    monkeypatch.setenv("HAPPYHORSE_TRACES", "true")
    monkeypatch.setenv("HAPPYHORSE_METRICS", "true")

    @flow
    async def make() -> None:
        await generate(TextToImage(model="gpt-image-2", prompt="A zebra"), "happyhorse")

    await make()
    async with httpx.AsyncClient() as client:
        served = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    assert 'happyhorse_submits_total{gateway="happyhorse",outcome="accepted"}' in served
    assert "zebra" not in served
    told = exporter.get_finished_spans()
    ours = [span for span in told if span.instrumentation_scope and span.instrumentation_scope.name == "prefect_happyhorse"]
    runs = {span.context.span_id for span in told if span.instrumentation_scope and span.instrumentation_scope.name == "prefect"}
    assert [span.name for span in ours] == ["happyhorse.submit", "happyhorse.poll", "happyhorse.download"]
    assert len({span.context.trace_id for span in ours}) == 1
    for span in ours:
        [link] = span.links
        assert link.context.span_id in runs
        assert link.context.trace_id != span.context.trace_id
