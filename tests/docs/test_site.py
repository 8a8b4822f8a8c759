"""The site is built without a warning, and what it shows runs."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW, temporary_settings

import prefect_happyhorse
from prefect_happyhorse.cli.docs import prices_page
from prefect_happyhorse.sandbox import SandboxServer

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
COOKBOOK = re.findall(r"^## (.+?)$(.*?)(?=^## |\Z)", (DOCS / "cookbook.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as strictly as `make docs` does."""
    pytest.importorskip("mkdocs", reason="the oldest dependencies come without the tools that build the site")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_public_name_has_its_place_in_the_reference(site: Path) -> None:
    """The inventory names each, so that other projects may link to it."""
    lines = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode().splitlines()
    shown = {line.split()[0] for line in lines}
    assert {f"prefect_happyhorse.{name}" for name in prefect_happyhorse.__all__ if name != "__version__"} <= shown


def test_llms_txt_names_every_page(site: Path) -> None:
    """Whoever reads it alone finds each page by its first sentence."""
    said = (site / "llms.txt").read_text(encoding="utf-8")
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html")} - {"404.html"}
    assert set(re.findall(r"\]\(([^)]+)\)", said)) == pages


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    """Pages load styles, scripts and pictures from the folder alone."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert re.findall(r'<(?:script|img|iframe|source)[^>]+src="?(?:https?:)?//[^" >]+', text) == []
        assert re.findall(r'<link[^>]+rel="?(?:stylesheet|preconnect|icon)"?[^>]+href="?(?:https?:)?//[^" >]+', text) == []


def test_the_page_of_prices_is_the_catalogs() -> None:
    """Written by `happyhorse prices --page`."""
    assert (DOCS / "prices.md").read_text(encoding="utf-8") == prices_page()


def test_the_quickstart_has_the_readmes_example_and_this_version() -> None:
    """The README's own is run by a test; the wheel is called by the version that it has."""
    page, readme = ((ROOT / name).read_text(encoding="utf-8") for name in ("docs/index.md", "README.md"))
    assert re.findall(r"^```python\n.*?^```", page, re.MULTILINE | re.DOTALL) == re.findall(
        r"^```python\n.*?^```", readme, re.MULTILINE | re.DOTALL
    )
    assert f"prefect_happyhorse-{prefect_happyhorse.__version__}-py3-none-any.whl" in page


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(("title", "text"), [one for one in COOKBOOK if "expensive" not in one[0]], ids=lambda text: text[:20])
def test_a_recipe_runs(
    title: str,
    text: str,
    sandbox_env: SandboxServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As it is printed, and it makes files."""
    sandbox_env.settings(media="full")
    monkeypatch.chdir(tmp_path)
    if lines := re.search(r"^```csv\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        Path("shots.csv").write_text(lines[1], encoding="utf-8")
    code = re.search(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert code is not None
    exec(compile(code[1], title, "exec"), {"__name__": "__main__"})  # noqa: S102 -- the page's own recipe
    said = capsys.readouterr().out
    assert "file://" in said or "rows in" in said or "trailer" in said
    assert "failed" not in said
    assert sandbox_env.ledger()


def test_there_are_eight_recipes() -> None:
    """Each whole by itself."""
    assert len(COOKBOOK) == 8


@pytest.mark.usefixtures("prefect_server")
async def test_the_notebook_runs_from_top_to_bottom(sandbox_env: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one namespace, with await at the top level, as Jupyter has it."""
    # What its cells set is taken back at the end.
    monkeypatch.setenv("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")
    monkeypatch.setenv("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
    names: dict[str, Any] = {"__name__": "__main__"}
    with temporary_settings({PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW: "ignore"}):
        for cell in json.loads((DOCS / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                code = compile("".join(cell["source"]), "notebook", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                made = eval(code, names)  # noqa: S307 -- the notebook's own cell
                if inspect.isawaitable(made):
                    await made
    assert (names["film"].kind, names["other"].kind) == ("video", "image")
