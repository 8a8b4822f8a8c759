"""Traces and counters: one trace for each asset across processes, nothing secret in it, and nothing at all unless asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY, generate_latest
from tests.engine.conftest import AccountMaker, Naps

from prefect_happyhorse.domain.errors import AuthenticationFailed, DownloadFailed, GatewayUnavailable
from prefect_happyhorse.domain.jobs import Output
from prefect_happyhorse.domain.requests import GenerationRequest, ReferenceToVideo, TextToImage, TextToVideo
from prefect_happyhorse.engine import telemetry
from prefect_happyhorse.engine.download.download import StoredOutput
from prefect_happyhorse.engine.jobs import results
from prefect_happyhorse.engine.jobs.results import StoredResult
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.shared import Shared
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.sandbox import SandboxServer

KEY = "sesame-1234"
RIDE = ReferenceToVideo(
    model="happyhorse-1.0-r2v", prompt="A zebra runs", references=("https://example.com/a.png",), resolution="720p", duration=5
)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> TracerProvider:
    """Traces are on, and this provider makes them: the process's own would make those of the sandbox too, which is in it."""
    provider = TracerProvider()
    monkeypatch.setattr(telemetry, "_tracer", lambda: provider.get_tracer("prefect_happyhorse"))
    monkeypatch.setenv("HAPPYHORSE_TRACES", "true")
    return provider


@pytest.fixture
def exporter(provider: TracerProvider) -> InMemorySpanExporter:
    """What is traced."""
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


async def make(session: Session, request: GenerationRequest = RIDE) -> StoredResult:
    job = (await session.submit(await session.prepare(request))).job
    return await session.store_outputs(await session.poll(job))


def span_of(exporter: InMemorySpanExporter, step: str) -> ReadableSpan:
    [span] = [span for span in exporter.get_finished_spans() if span.name == f"happyhorse.{step}"]
    return span


def facts(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"happyhorse_{name}_total", labels) or 0.0


# What a run does, up to where its process ends: the next one begins at the first line.
_RUN = """
import asyncio, sys
from pydantic import SecretStr
from prefect_happyhorse.domain.requests import parse_request
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account

async def run(steps, base_url, folder, request):
    session = Session(Account(gateway="happyhorse", base_url=base_url, key=SecretStr("sesame-1234")), Store(url=folder))
    job = (await session.submit(await session.prepare(parse_request(request)))).job
    if steps == "1": return
    result = await session.poll(job)
    if steps == "2": return
    await session.store_outputs(result)
"""
_TRACED = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=lambda span: span.to_json(indent=None) + "\\n")))
trace.set_tracer_provider(provider)
"""
_GO = """
import json
asyncio.run(run(*sys.argv[1:4], json.loads(sys.argv[4])))
"""


def run_process(source: str, *arguments: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", source, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_an_asset_has_one_trace_over_three_processes(sandbox: SandboxServer, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process that goes on with a job adds its span to the trace that its submit began, and does no step twice."""
    monkeypatch.setenv("HAPPYHORSE_TRACES", "true")
    where = (sandbox.base_url("happyhorse"), store.url, RIDE.model_dump_json())
    told = [json.loads(line) for steps in "123" for line in run_process(_RUN + _TRACED + _GO, steps, *where)]
    assert [span["name"] for span in told] == ["happyhorse.submit", "happyhorse.poll", "happyhorse.download"]
    submit, poll, download = told
    assert {span["context"]["trace_id"] for span in told} == {submit["context"]["trace_id"]}
    assert [span["parent_id"] for span in told] == [None, submit["context"]["span_id"], submit["context"]["span_id"]]
    task_ids = {span["attributes"]["happyhorse.task_id"] for span in told}
    assert task_ids == {entry.task_id for entry in sandbox.ledger()}
    assert poll["attributes"]["happyhorse.polls"] == 1
    assert download["status"]["status_code"] == "UNSET"


@pytest.mark.slow
def test_off_means_off(sandbox: SandboxServer, store: Store) -> None:
    """Unless asked for, what makes traces and metrics is not even imported, and no file of the journal says a word of them."""
    check = """
assert not [name for name in sys.modules if name.split(".")[0] in ("opentelemetry", "prometheus_client")], sys.modules
"""
    run_process(_RUN + _GO + check, "3", sandbox.base_url("happyhorse"), store.url, RIDE.model_dump_json())
    written = [path.read_text() for path in (store.folder or Path()).joinpath("journal").rglob("*.json")]
    assert written
    assert not any("traceparent" in text for text in written)


async def test_a_span_says_what_was_made_where_and_for_how_much(
    exporter: InMemorySpanExporter, provider: TracerProvider, account: AccountMaker, store: Store
) -> None:
    """By the conventions where there are some; a run that is being traced is linked to, and is not the parent."""
    with provider.get_tracer("flow").start_as_current_span("flow run") as run:
        stored = await make(Session(account(), store))
    submit, poll, download = (span_of(exporter, step) for step in ("submit", "poll", "download"))
    job = stored.asset.job
    for span in (submit, poll, download):
        assert (
            facts(span).items()
            >= {
                "gen_ai.operation.name": "generate_content",
                "gen_ai.provider.name": "happyhorse",
                "gen_ai.request.model": RIDE.model,
                "server.address": "127.0.0.1",
                "happyhorse.gateway": "happyhorse",
                "happyhorse.account": "default",
                "happyhorse.capability": "reference_to_video",
                "happyhorse.digest": job.digest,
                "happyhorse.task_id": job.task_id,
            }.items()
        )
        assert span.kind is trace.SpanKind.CLIENT
        assert span.status.is_unset
        assert [link.context for link in span.links] == [run.get_span_context()]
    assert submit.parent is None
    assert submit.context.trace_id != run.get_span_context().trace_id
    assert (
        facts(submit).items()
        >= {
            "http.response.status_code": 200,
            "happyhorse.cost.estimated": 4.5,
            "happyhorse.cost.currency": "CNY",
        }.items()
    )
    assert facts(poll).items() >= {"happyhorse.polls": 1, "happyhorse.cost.billed": 4.5, "happyhorse.cost.currency": "CNY"}.items()
    assert facts(download)["happyhorse.bytes"] == stored.asset.bytes


async def test_a_refusal_and_what_follows_it_are_one_trace(
    exporter: InMemorySpanExporter, sandbox: SandboxServer, account: AccountMaker, store: Store
) -> None:
    """A submit that was refused bought nothing: the next is still of the same asset. The kind of the error is told, its text is not."""
    sandbox.fault(at="submit", kind="unauthorized")
    session = Session(account(), store)
    with pytest.raises(AuthenticationFailed):
        await make(session)
    [refused] = exporter.get_finished_spans()
    assert refused.status.status_code is trace.StatusCode.ERROR
    assert refused.status.description is None
    assert facts(refused).items() >= {"error.type": "AuthenticationFailed", "http.response.status_code": 401}.items()
    assert not refused.events
    await make(session)
    told = exporter.get_finished_spans()
    assert [span.name for span in told] == ["happyhorse.submit", "happyhorse.submit", "happyhorse.poll", "happyhorse.download"]
    assert {span.context.trace_id for span in told} == {refused.context.trace_id}
    assert [span.parent and span.parent.span_id for span in told[2:]] == [told[1].context.span_id] * 2


async def test_a_job_that_the_gateways_list_shows_stays_in_its_trace(
    exporter: InMemorySpanExporter, sandbox: SandboxServer, account: AccountMaker, store: Store, naps: Naps
) -> None:
    """The submit of which nobody knew the outcome says so, and the job that it became goes on from it."""
    sandbox.settings(list_delay_s=0)
    sandbox.fault(at="submit", kind="drop_after")
    await make(Session(account("dashscope"), store, sleep=naps), TextToVideo(model="happyhorse-1.1-t2v", prompt="A zebra runs"))
    submit = span_of(exporter, "submit")
    assert submit.status.status_code is trace.StatusCode.ERROR
    assert facts(submit)["error.type"] == "SubmissionUncertain"
    assert [span.parent and span.parent.span_id for span in exporter.get_finished_spans()] == [None, *[submit.context.span_id] * 2]


async def test_a_download_of_which_something_is_missing_has_failed(
    exporter: InMemorySpanExporter, account: AccountMaker, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could be kept is kept, and counted."""
    fetch = results.download

    async def second_is_gone(output: Output, **how: Any) -> StoredOutput:
        if how["index"] == 1:
            raise DownloadFailed("It is gone.")
        return await fetch(output, **how)

    monkeypatch.setattr(results, "download", second_is_gone)
    stored = await make(Session(account(), store), TextToImage(model="gpt-image-2", prompt="Two zebras", n=2))
    download = span_of(exporter, "download")
    assert facts(download).items() >= {"error.type": "DownloadFailed", "happyhorse.bytes": stored.asset.bytes}.items()


async def test_what_is_found_in_the_journal_makes_no_span(exporter: InMemorySpanExporter, account: AccountMaker, store: Store) -> None:
    """A run that finds everything done did nothing."""
    session = Session(account(), store)
    await make(session)
    exporter.clear()
    await make(session)
    assert exporter.get_finished_spans() == ()


@pytest.mark.parametrize("traceparent", ["", "00-zebra-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
async def test_a_parent_that_cannot_be_read_is_none(
    exporter: InMemorySpanExporter, account: AccountMaker, store: Store, traceparent: str
) -> None:
    """A job that is paid for goes on, in a trace of its own."""
    session = Session(account(), store)
    job = (await session.submit(await session.prepare(RIDE))).job
    await session.journal.update(job.digest, lambda entry: entry and entry.model_copy(update={"traceparent": traceparent}))
    await make(Session(account(), store, shared=Shared()))
    assert span_of(exporter, "poll").parent is None


class _Broken(SpanProcessor):
    """A span processor as nobody should write one."""

    def __init__(self, at: str) -> None:
        self._at = at

    def on_start(self, span: object, parent_context: object = None) -> None:
        """Fail."""
        if self._at == "start":
            raise RuntimeError(KEY)

    def on_end(self, span: object) -> None:
        """Fail."""
        if self._at == "end":
            raise RuntimeError(KEY)


@pytest.mark.parametrize("at", ["start", "end"])
async def test_tracing_that_fails_fails_no_job(
    provider: TracerProvider, account: AccountMaker, store: Store, at: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A tracer provider is anybody's: what it raises is told, without its text, and the job goes on."""
    provider.add_span_processor(_Broken(at))
    assert (await make(Session(account(), store))).asset.bytes
    assert "A span could not be" in caplog.text
    assert KEY not in caplog.text


async def test_a_tracer_that_cannot_be_had_fails_no_job(
    account: AccountMaker, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The process's own provider may be broken before there is any span."""

    class Provider(TracerProvider):
        def get_tracer(self, instrumenting_module_name: str, *more: Any, **named: Any) -> Any:
            if instrumenting_module_name == "prefect_happyhorse":
                raise RuntimeError(KEY)
            return super().get_tracer(instrumenting_module_name, *more, **named)

    monkeypatch.setattr(trace, "get_tracer_provider", Provider)
    monkeypatch.setenv("HAPPYHORSE_TRACES", "true")
    assert (await make(Session(account(), store))).asset.bytes
    assert "A span could not be written: RuntimeError" in caplog.text
    assert KEY not in caplog.text


async def test_a_span_without_a_context_fails_no_job(
    provider: TracerProvider, account: AccountMaker, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A span of another maker may not tell which trace it is of: then the job's next step begins one anew."""
    monkeypatch.setattr("opentelemetry.sdk.trace.Span.get_span_context", lambda _: 1 / 0)
    assert (await make(Session(account(), store))).asset.bytes
    assert "A span could not be written: ZeroDivisionError" in caplog.text


async def test_a_metric_of_the_same_name_fails_no_job(
    account: AccountMaker, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody else may have it already; then nothing is counted."""
    telemetry._counters()
    monkeypatch.setattr(telemetry, "_registered", telemetry._registered.__wrapped__)
    monkeypatch.setenv("HAPPYHORSE_METRICS", "true")
    assert (await make(Session(account(), store))).asset.bytes
    assert "A counter could not be written: " in caplog.text


@pytest.mark.parametrize("with_prompts", [False, True])
async def test_nothing_secret_is_told(
    exporter: InMemorySpanExporter,
    sandbox: SandboxServer,
    account: AccountMaker,
    store: Store,
    naps: Naps,
    monkeypatch: pytest.MonkeyPatch,
    with_prompts: bool,
) -> None:
    """No key stands in any span or metric, however a job fails; a prompt does in spans where a setting asks for it, and nowhere else."""
    monkeypatch.setenv("HAPPYHORSE_TRACE_PROMPTS", str(with_prompts))
    monkeypatch.setenv("HAPPYHORSE_METRICS", "true")
    faults = [("submit", kind) for kind in ("unauthorized", "moderation", "quota", "garbage", "drop_after")]
    faults += [("poll", "fail_job"), ("poll", "unauthorized"), ("download", "truncate")]
    for number, (at, kind) in enumerate(faults, start=1):
        sandbox.fault(at=at, kind=kind, times=None)
        session = Session(account(), store, sleep=naps)
        try:
            submitted = await session.submit(await session.prepare(RIDE, take=number), on_uncertain="raise")
            await session.store_outputs(await session.poll(submitted.job))
        except Exception as error:  # noqa: BLE001 -- whatever it is
            assert KEY not in str(error)
        sandbox.reset()
    await make(Session(account(), store))
    told = "\n".join(span.to_json() for span in exporter.get_finished_spans())
    assert told.count('"happyhorse.submit"') == len(faults) + 1
    assert KEY not in told
    assert ("zebra" in told) is with_prompts
    metrics = generate_latest().decode()
    assert 'happyhorse_submits_total{gateway="happyhorse",outcome="SubmissionUncertain"}' in metrics
    assert KEY not in metrics
    assert "zebra" not in metrics


async def test_what_is_done_is_counted(
    sandbox: SandboxServer, account: AccountMaker, store: Store, naps: Naps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Prometheus's default registry, by gateway and, for submits, by outcome."""
    monkeypatch.setenv("HAPPYHORSE_METRICS", "true")
    names = ("submits", {"outcome": "accepted"}), ("submits", {"outcome": "GatewayUnavailable"}), ("polls", {}), ("rate_limited", {})
    names = (*names, ("downloaded_bytes", {}))

    def values() -> list[float]:
        return [counted(name, gateway="happyhorse", **labels) for name, labels in names]

    before = values()
    sandbox.fault(at="submit", kind="throttle", times=2, retry_after_s=7)
    sandbox.fault(at="poll", kind="throttle", retry_after_s=7)
    session = Session(account(), store, sleep=naps)
    stored = await make(session)
    nowhere = Session(account(base_url="http://127.0.0.1:9"), store, sleep=naps)
    with pytest.raises(GatewayUnavailable):
        await nowhere.submit(await nowhere.prepare(RIDE, take=2))
    assert [after - then for after, then in zip(values(), before, strict=True)] == [1, 1, 2, 3, stored.asset.bytes]
    await make(session)
    assert [after - then for after, then in zip(values(), before, strict=True)] == [1, 1, 2, 3, stored.asset.bytes]
