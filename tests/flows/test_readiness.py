"""A run that cannot work fails in its first seconds, with everything that is wrong, and before anything is bought."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prefect.flows import load_flow_from_entrypoint

from prefect_happyhorse import AuthenticationFailed, InvalidRequest, ReferenceToVideo, check_ready, check_requests
from prefect_happyhorse.cli.demo import flow_file
from prefect_happyhorse.sandbox import SandboxServer

from .test_batch import row

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    # Prefect's client leaves connections to its own server for the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


async def test_everything_that_is_wrong_is_told_at_once(
    sandbox_env: SandboxServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A missing block, a gateway without a key and a store that is a file stand in one error."""
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("HAPPYHORSE_STORE", str(tmp_path / "file"))
    monkeypatch.delenv("TTAPI_API_KEY")
    with pytest.raises(InvalidRequest) as caught:
        await check_ready(None, "no-such-block", "ttapi", "happyhorse")
    assert len(caught.value.problems) == 3
    for told in ("no GatewayCredentials block named 'no-such-block'", "TTAPI_API_KEY", "cannot be written"):
        assert told in str(caught.value)
    with pytest.raises(InvalidRequest, match="no-such-store"):
        await check_ready("no-such-store")
    assert sandbox_env.ledger() == []


async def test_what_is_as_it_should_be_leaves_no_trace(sandbox_env: SandboxServer, tmp_path: Path) -> None:
    """The store is tried, and nothing stays in it."""
    await check_ready(None, "happyhorse", "happyhorse")
    assert [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()] == []


FLOWS: dict[str, dict[str, Any]] = {
    "batch": {"credentials": "no-such-block"},
    "collect": {"credentials": ["no-such-block"]},
    "image_to_video_edit": {"edit": {"credentials": "no-such-block"}},
}


@pytest.mark.parametrize("name", FLOWS)
async def test_every_flow_looks_first(sandbox_env: SandboxServer, tmp_path: Path, name: str) -> None:
    """The flow run's own message says what is missing; nothing was sent."""
    manifest = tmp_path / "shots.jsonl"
    manifest.write_text(row("one"))
    flow = load_flow_from_entrypoint(f"{flow_file(name)}:{name}")
    parameters = FLOWS[name] | ({"manifest": str(manifest)} if name == "batch" else {})
    state = await flow(**parameters, return_state=True)
    assert state.is_failed()
    assert "no-such-block" in (state.message or "")
    assert sandbox_env.ledger() == []


async def test_a_wrong_key_fails_at_the_first_call(sandbox_env: SandboxServer) -> None:
    """The gateway's 401 is not tried again, and nothing is bought."""
    sandbox_env.settings(good_keys=["another"])
    chain = load_flow_from_entrypoint(f"{flow_file('image_to_video_edit')}:image_to_video_edit")
    state = await chain(return_state=True)
    with pytest.raises(AuthenticationFailed, match="401"):
        await state.result()
    assert sandbox_env.ledger() == []


RIDE = {"model": "happyhorse-1.0-r2v", "prompt": "It runs", "references": ["https://example.com/to-come"]}


async def test_requests_are_refused_together_and_by_name(sandbox_env: SandboxServer) -> None:
    """A request that its route refuses, fields that are no request, a missing file and what the caller found stand in one error."""
    requests: list[tuple[str, Any, str]] = [
        ("good", ReferenceToVideo.model_validate(RIDE), "happyhorse"),
        ("ride", ReferenceToVideo.model_validate(RIDE | {"duration": 99}), "happyhorse"),
        ("fields", {"capability": "text_to_image", "model": "gpt-image-2"}, "happyhorse"),
        ("file", {"capability": "reference_to_video"} | RIDE | {"references": ["/no/such.png"]}, "happyhorse"),
        ("unknown", {"capability": "text_to_image", "model": "no-such", "prompt": "x"}, "ttapi"),
    ]
    with pytest.raises(InvalidRequest) as caught:
        await check_requests(requests, problems=["the script has no title"])
    problems = caught.value.problems
    assert problems[0] == "the script has no title"
    assert [problem.partition(":")[0] for problem in problems[1:4]] == ["ride", "fields", "file"]
    assert any(problem.startswith("unknown: ttapi does not offer") for problem in problems)
    assert not any(problem.startswith("good") for problem in problems)
    await check_requests(requests[:1])
    assert sandbox_env.ledger() == []


async def test_what_concat_needs_is_told_first(sandbox_env: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A film that cannot be joined must not be found out after its shots were paid for."""
    monkeypatch.setattr("prefect_happyhorse.engine.media.film.can_measure", lambda kind: False)
    with pytest.raises(InvalidRequest, match="prefect-happyhorse\\[media\\]"):
        await check_ready(None, "happyhorse", concat=True)
    await check_ready(None, "happyhorse")
