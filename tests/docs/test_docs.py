"""The documentation says what is true."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest

from prefect_happyhorse.blocks.credentials import environment_names
from prefect_happyhorse.catalog import GATEWAYS, find_problems, gateway_facts, routes
from prefect_happyhorse.cli import main
from prefect_happyhorse.cli.docs import gateways_page, routes_table
from prefect_happyhorse.cli.settings import settings_page
from prefect_happyhorse.domain.requests import parse_request
from prefect_happyhorse.domain.settings import PREFIXES, Settings
from prefect_happyhorse.sandbox import SandboxServer

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_page_of_gateways_is_the_catalogs() -> None:
    """Written by `happyhorse models --page`; what each source leaves open stands there."""
    page = (ROOT / "docs" / "gateways.md").read_text(encoding="utf-8")
    assert page == gateways_page()
    assert routes_table(routes()) in page
    assert "| polls allowed | 20 a second (DashScope's: TTAPI's own document names none) |" in page
    assert "- `duration`, DashScope's: `happyhorse-1.0-t2v`, " in page
    assert "- `resolution=1080P, duration=5, watermark=true`: `happyhorse-1.0-r2v`, `happyhorse-1.1-r2v`" in page
    assert all(sentence in page for gateway in GATEWAYS for sentence in gateway_facts(gateway).open)


def test_the_page_of_settings_is_the_codes() -> None:
    """Written by `happyhorse settings --page`, with every setting and every variable of credentials."""
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == settings_page()
    for names in (f"{PREFIXES[0]}{field}".upper() for field in Settings.model_fields):
        assert f"`{names}`" in settings_page()
    for gateway in GATEWAYS:
        for field in environment_names(gateway):
            assert f"`<GATEWAY>_{field.upper()}`" in settings_page()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    """No page names a file that is not there."""
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_shows_is_there(page: Path) -> None:
    """Each `happyhorse` command has the options that it is shown with."""
    for line in "\n".join(blocks(page.read_text(encoding="utf-8"), "bash")).splitlines():
        if line.startswith("happyhorse "):
            _, name, *words = line.split("#")[0].split()
            command = main.get_command(click.Context(main), name)
            assert command is not None, line
            if isinstance(command, click.Group) and not (command.invoke_without_command and not words):
                command = command.commands[words[0]]
            options = {option for parameter in command.params for option in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= options, line


@pytest.mark.usefixtures("prefect_server")
def test_the_readmes_example_runs(sandbox_env: SandboxServer, capsys: pytest.CaptureFixture[str]) -> None:
    """What a reader copies first makes its file, and made again it buys nothing."""
    sandbox_env.settings(check_inputs="submit", media="full")
    (code,) = blocks(README, "python")
    for _ in range(2):
        exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})  # noqa: S102 -- the README's own example
    first, second = [line for line in capsys.readouterr().out.splitlines() if line.startswith("file://")]
    assert first == second
    assert Path(first.removeprefix("file://")).suffix == ".mp4"
    assert [entry.capability for entry in sandbox_env.ledger()] == ["text_to_image", "reference_to_video"]


@pytest.mark.usefixtures("prefect_server")
async def test_the_guides_async_flow_runs(sandbox_env: SandboxServer) -> None:
    """The guide's flow gives a coroutine."""
    names = _defined_by(GUIDE)
    assert (await names["one"]()).kind == "image"
    assert len(sandbox_env.ledger()) == 1


@pytest.mark.usefixtures("prefect_server")
def test_the_guides_mapped_flow_runs(sandbox_env: SandboxServer) -> None:
    """The guide's flow maps over prompts with an unmapped block."""
    assert [asset.kind for asset in _defined_by(GUIDE)["many"](["A horse", "A foal"])] == ["image", "image"]
    assert len(sandbox_env.ledger()) == 2


@pytest.mark.usefixtures("prefect_server")
async def test_the_guides_pool_runs(sandbox_env: SandboxServer) -> None:
    """Its second call finds what the first has bought, by the name of a saved pool and in another order."""
    one, again = await _defined_by(GUIDE)["ride_anywhere"]()
    assert one.uri == again.uri
    assert [entry.gateway for entry in sandbox_env.ledger()] == ["uniall"]


@pytest.mark.usefixtures("prefect_server")
async def test_the_page_of_data_sets_runs(sandbox_env: SandboxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its template makes requests of a file as it says, and what its flow made is written with the rows' own ids."""
    import pyarrow as pa
    import pyarrow.parquet

    monkeypatch.chdir(tmp_path)
    animals = {"name": ["a", "b"], "animal": ["horse", "foal"], "city": ["Paris", "Rome"], "size": ["1024x1024", None]}
    pyarrow.parquet.write_table(pa.table(animals), "animals.parquet")
    names = _defined_by((ROOT / "docs" / "datasets.md").read_text(encoding="utf-8"))
    assert [(one.prompt, one.size) for one in names["requests"].values()] == [
        ("A horse in Paris, at dusk", "1024x1024"),
        ("A foal in Rome, at dusk", None),
    ]
    assert (await names["make"](names["requests"])).rows == 2
    assert pyarrow.parquet.read_table("shots.parquet")["id"].to_pylist() in (["a", "b"], ["b", "a"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_request_that_a_page_shows_is_one(page: Path) -> None:
    """A request in JSON fits the route that its capability and model have at some gateway."""
    for text in blocks(page.read_text(encoding="utf-8"), "json"):
        request = parse_request(json.loads(text))
        assert any(
            not find_problems(request, route)
            for route in routes()
            if (route.capability, route.model) == (request.capability, request.model)
        )


def _defined_by(page: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "page"}
    for code in blocks(page, "python"):
        exec(compile(code, "page", "exec"), names)  # noqa: S102 -- the page's own example
    return names


def test_the_script_that_is_shown_can_be_read() -> None:
    """The story's script on the page of flows has only fields that there are, and the shipped one is made of the same."""
    from prefect.flows import load_flow_from_entrypoint

    story = load_flow_from_entrypoint(f"{ROOT / 'flows' / 'story.py'}:story")
    read_script = story.fn.__globals__["read_script"]
    (shown,) = blocks((ROOT / "docs" / "flows.md").read_text(encoding="utf-8"), "toml")
    assert [shot.name for shot in read_script(shown, is_json=False).shots] == ["dawn", "river"]
    assert len(read_script((ROOT / "deployments" / "story.toml").read_text(encoding="utf-8"), is_json=False).shots) == 2


def test_the_price_list_that_is_shown_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a file and in a block, and both say the same."""
    from prefect_happyhorse import GatewayCredentials
    from prefect_happyhorse.catalog import read_prices

    text = (ROOT / "docs" / "costs.md").read_text(encoding="utf-8")
    saved: list[GatewayCredentials] = []
    monkeypatch.setattr(GatewayCredentials, "save", lambda block, name, *, overwrite: saved.append(block))
    (shown,) = blocks(text, "toml")
    (code,) = (code for code in blocks(text, "python") if "GatewayCredentials" in code)
    exec(code, {})  # noqa: S102 -- it is our own page
    assert [block.prices for block in saved] == [list(read_prices(shown))]
    assert len(saved[0].prices) == 1
