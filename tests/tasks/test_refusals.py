"""What a flow author writes at first, and is told how to write it."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect import flow
from prefect.futures import PrefectConcurrentFuture
from pydantic import ValidationError

from prefect_happyhorse import (
    GatewayCredentials,
    ImageEdit,
    InvalidRequest,
    MediaAsset,
    MediaStore,
    ReferenceToVideo,
    TextToImage,
    check_ready,
    check_requests,
    generate,
    generate_sync,
    submit,
)
from prefect_happyhorse.sandbox import SandboxServer
from prefect_happyhorse.tasks.resolve import store_of

HORSE = TextToImage(model="gpt-image-2", prompt="A white horse")


@pytest.mark.parametrize("request_class", [ReferenceToVideo, ImageEdit])
def test_a_future_inside_a_request_is_refused(request_class: type[Any]) -> None:
    """Prefect resolves the futures among a task's arguments, not those inside of one."""
    future = PrefectConcurrentFuture[MediaAsset](uuid4(), Future())
    fields = {"references": [future]} if request_class is ReferenceToVideo else {"image": future}
    with pytest.raises(ValidationError, match=r"call its \.result\(\)") as caught:
        request_class(model="m", prompt="p", **fields)
    assert caught.value.error_count() == 1


async def test_a_coroutine_inside_a_request_is_refused() -> None:
    """Of a task that was called in async code and not awaited."""
    coroutine = generate(HORSE, "happyhorse")
    with pytest.raises(ValidationError, match="await it"):
        ImageEdit(model="m", prompt="p", image=coroutine)
    coroutine.close()


@pytest.mark.parametrize("task", [submit, generate, generate_sync])
def test_a_block_that_is_mapped_over_is_refused(task: Any) -> None:
    """Its fields are not items; neither are a request's."""
    block = GatewayCredentials(gateway="ttapi")
    with pytest.raises(ValueError, match=r"credentials=unmapped\(credentials\)"):
        task.map([HORSE], block)
    with pytest.raises(ValueError, match=r"request=unmapped\(request\), store=unmapped\(store\)"):
        task.map(HORSE, ["ttapi", "happyhorse"], store=MediaStore())


@pytest.mark.usefixtures("prefect_server")
def test_a_budget_without_a_currency_is_refused(sandbox_env: SandboxServer) -> None:
    """A number may be of any currency; nothing is sent."""

    @flow
    def one() -> MediaAsset:
        return generate(HORSE, "happyhorse", budget=100)  # pyright: ignore[reportArgumentType, reportCallIssue] -- what is tested

    with pytest.raises(InvalidRequest, match=r"budget must be a Budget \(got 100\), as Budget\(amount=100, currency='CNY'\)"):
        one()
    assert sandbox_env.ledger() == []


@pytest.mark.filterwarnings("ignore:Logger .prefect.task_runs")
@pytest.mark.usefixtures("prefect_server")
async def test_every_wrong_argument_is_told_before_anything_is_paid(sandbox_env: SandboxServer) -> None:
    """All of them at once, each with what it must be and what it is."""
    wrong: dict[str, Any] = {"on_uncertain": "retry", "deadline_s": "60", "budget": 100}
    with pytest.raises(InvalidRequest) as caught:
        await generate({"prompt": "A horse"}, None, 5, **wrong)  # pyright: ignore[reportArgumentType] -- what is tested
    for said in ("parse_request", "credentials must", "store must", "(got 'retry')", "(got '60')", "(got 100)"):
        assert said in str(caught.value)
    assert sandbox_env.ledger() == []


@pytest.mark.filterwarnings("ignore:Logger .prefect.task_runs")
@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("take", ["2", 2.0, True, 0, 1.5])
async def test_a_take_that_is_no_whole_number_is_refused(sandbox_env: SandboxServer, take: Any) -> None:
    """It would be another digest, and so another charge, for the same take."""
    with pytest.raises(InvalidRequest, match="take must be a whole number from 1"):
        await generate(HORSE, "happyhorse", take=take)
    assert sandbox_env.ledger() == []


@pytest.mark.usefixtures("prefect_server")
def test_checks_refuse_in_sync_code_too(sandbox_env: SandboxServer) -> None:
    """A check that gave a coroutine nobody awaits would let the run go on to pay."""
    block = GatewayCredentials.from_environment("happyhorse")
    with pytest.raises(InvalidRequest, match="no-such-block"):
        check_ready("no-such-block", block, "no-such-key")
    with pytest.raises(InvalidRequest, match="ride: "):
        check_requests([("ride", {"capability": "text_to_image"}, block)])


@pytest.mark.usefixtures("prefect_server")
async def test_a_block_of_an_unknown_gateway_is_a_problem_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that was saved where its gateway was registered; Prefect hands it out unchecked."""

    async def load(name: str, **options: Any) -> GatewayCredentials:
        return GatewayCredentials.model_construct(api_key=None)

    monkeypatch.setattr(GatewayCredentials, "aload", load)
    with pytest.raises(InvalidRequest, match=r"'nebula' is of a gateway that is not registered"):
        await check_ready(None, "nebula")


def test_a_block_shows_no_secret_when_it_is_refused() -> None:
    """Pydantic would print the end of what it was given."""
    with pytest.raises(ValidationError) as caught:
        GatewayCredentials(gateway="chanjing", secret_key="SEKRET-98765432")  # pyright: ignore[reportArgumentType] -- as from the environment
    assert "SEKRET" not in str(caught.value)


@pytest.mark.parametrize("kind", ["text", "path", "relative", "url"])
async def test_a_store_may_be_a_folder_or_a_url(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not the name that a block may have, it is no block."""
    monkeypatch.chdir(tmp_path)
    given = {"text": str(tmp_path), "path": tmp_path, "relative": "./shelf", "url": "memory://shelf"}[kind]
    url = given if kind == "url" else (tmp_path / given).resolve().as_uri()
    assert (await store_of(given)).url == url


@pytest.mark.usefixtures("prefect_server")
async def test_a_misspelt_block_is_not_taken_for_a_folder() -> None:
    """An empty journal in a new folder would know of nothing that is paid for."""
    with pytest.raises(ValueError, match=r"no MediaStore block named 'shlef'; for a folder write '\./shlef'"):
        await store_of("shlef")


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_flow_keeps_its_files_in_a_folder(sandbox_env: SandboxServer, tmp_path: Path) -> None:
    """By its path alone, for each step."""

    @flow
    def one() -> tuple[MediaAsset, MediaAsset]:
        return generate(HORSE, "happyhorse", tmp_path / "shelf"), generate(HORSE, "happyhorse", str(tmp_path / "shelf"))

    first, second = one()
    assert first == second
    assert first.uri.startswith(f"file://{tmp_path}/shelf/")
    assert len(sandbox_env.ledger()) == 1
