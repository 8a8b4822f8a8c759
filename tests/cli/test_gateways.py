"""A stranger's gateway, from the first file to one that is known to be right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from prefect_happyhorse.catalog import loader
from prefect_happyhorse.cli.commands import main
from prefect_happyhorse.gateways import get_gateway


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["gateways", *words])


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    forget()


def forget() -> None:
    """Let the gateway of these tests be another's."""
    loader._TEXTS.pop("acme", None)
    loader._LOADED.pop("acme", None)
    get_gateway.cache_clear()


@pytest.mark.parametrize("dialect", ["dashscope", "newapi"])
def test_a_first_file_is_a_good_gateway(tmp_path: Path, dialect: str) -> None:
    """As it is written it passes every check, a job of each capability included, and it is never written over."""
    made = run("new", "acme", "--dialect", dialect, "--folder", str(tmp_path))
    assert (made.exit_code, made.stdout) == (0, f"{tmp_path / 'acme.toml'}\n")
    checked = run("check", str(tmp_path / "acme.toml"))
    assert checked.exit_code == 0, checked.output
    assert checked.stdout.count("submitted, polled, stored") == 2
    assert "HAPPYHORSE_GATEWAYS names, and the key into ACME_API_KEY." in checked.stdout
    forget()
    again = run("new", "acme", "--dialect", dialect, "--folder", str(tmp_path))
    assert (again.exit_code, "exists" in again.stderr) == (1, True)


def test_what_is_wrong_is_told_with_its_line(tmp_path: Path) -> None:
    """A field that there is not, in the shapes of two routes."""
    run("new", "acme", "--dialect", "dashscope", "--folder", str(tmp_path))
    file = tmp_path / "acme.toml"
    text = file.read_text().replace("minimum = 3", "minimun = 3")
    file.write_text(text)
    told = run("check", str(file))
    assert told.exit_code == 1
    for number, line in enumerate(text.splitlines(), start=1):
        if "minimun" in line:
            assert f"line {number}: fields." in told.stderr


def test_a_job_that_cannot_run_is_told(tmp_path: Path) -> None:
    """The body fits, and the place of the task id does not."""
    run("new", "acme", "--dialect", "dashscope", "--folder", str(tmp_path))
    file = tmp_path / "acme.toml"
    file.write_text(file.read_text().replace("[gateway.codes]", '[gateway.response]\ntask_id = ["nowhere"]\n\n[gateway.codes]'))
    told = run("check", str(file))
    assert told.exit_code == 1
    assert "a job on the sandbox ended with SubmissionUncertain" in told.stderr


def test_what_a_file_leaves_out_is_said(tmp_path: Path) -> None:
    """And what that means."""
    run("new", "acme", "--dialect", "newapi", "--folder", str(tmp_path))
    told = run("check", str(tmp_path / "acme.toml")).stdout
    for what in ("polls_per_s", "task_ttl_s", "how a job is cancelled"):
        assert what in told


@pytest.mark.parametrize(("name", "rule"), [("infiflow", "There is already"), ("Acme", "lower-case"), ("../acme", "lower-case")])
def test_a_name_that_cannot_be_is_refused(tmp_path: Path, name: str, rule: str) -> None:
    """Before a file is written."""
    told = run("new", name, "--dialect", "newapi", "--folder", str(tmp_path))
    assert (told.exit_code, rule in told.stderr, list(tmp_path.iterdir())) == (2, True, [])


def test_the_list_tells_what_was_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """And ends with a code that says so."""
    assert run().exit_code == 0
    monkeypatch.setattr(loader, "PROBLEMS", loader.PROBLEMS)
    loader.PROBLEMS.append("acme.toml: line 3: no horse")
    told = run()
    loader.PROBLEMS.clear()
    assert (told.exit_code, "Left out: acme.toml: line 3: no horse" in told.stderr) == (1, True)
