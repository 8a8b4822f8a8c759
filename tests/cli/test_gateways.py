"""A stranger's gateway, from the first file to one that is known to be right."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.vault import VAULT, registered

from prefect_happyhorse.catalog import loader
from prefect_happyhorse.cli.commands import main
from prefect_happyhorse.gateways import DIALECTS, get_gateway
from prefect_happyhorse.gateways.newapi import NewAPIGateway


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["gateways", *words])


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    forget()


def forget() -> None:
    """Let the gateways of these tests be another's."""
    for name in ("acme", "apiyi", "starrise"):
        loader._TEXTS.pop(name, None)
        loader._LOADED.pop(name, None)
    get_gateway.cache_clear()


@pytest.mark.parametrize("dialect", ["dashscope", "newapi"])
def test_a_first_file_is_a_good_gateway(tmp_path: Path, dialect: str) -> None:
    """It passes every check, a job of each capability included, but for what is to be filled; and it is never written over."""
    made = run("new", "acme", "--dialect", dialect, "--folder", str(tmp_path))
    file = tmp_path / "acme.toml"
    assert (made.exit_code, made.stdout) == (0, f"{file}\n")
    checked = run("check", str(file))
    assert (checked.exit_code, checked.stdout.count("submitted, polled, stored")) == (1, 2), checked.output
    for field in ("title", "source", "base_url"):
        assert f"{field} is not filled" in checked.stderr
    assert "acme.toml is right" not in checked.output
    forget()
    filled = file.read_text().replace("The title of acme", "Acme").replace("Its document, and the page in it", "https://acme.com/docs")
    file.write_text(filled.replace("https://acme.example", "https://acme.com"))
    checked = run("check", str(file))
    assert checked.exit_code == 0, checked.output
    assert "HAPPYHORSE_GATEWAYS names, and the key into ACME_API_KEY." in checked.stdout
    forget()
    again = run("new", "acme", "--dialect", dialect, "--folder", str(tmp_path))
    assert (again.exit_code, "acme.toml is there already" in again.stderr) == (2, True)


@pytest.mark.parametrize(("name", "capabilities"), [("apiyi", 4), ("starrise", 2)])
def test_an_example_is_a_good_gateway(tmp_path: Path, name: str, capabilities: int) -> None:
    """It is written as it stands in the package, and passes every check."""
    assert run("new", name, "--folder", str(tmp_path)).exit_code == 0
    checked = run("check", str(tmp_path / f"{name}.toml"))
    assert (checked.exit_code, checked.stdout.count("submitted, polled, stored")) == (0, capabilities), checked.output


def test_a_name_that_is_no_example_needs_a_dialect(tmp_path: Path) -> None:
    """And the message names both."""
    told = run("new", "acme", "--folder", str(tmp_path))
    assert (told.exit_code, "dashscope, newapi" in told.stderr, "apiyi, starrise" in told.stderr) == (2, True, True)


def test_a_dialect_that_does_not_work_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the gateway that cannot be used for it, beside all others."""
    monkeypatch.setattr(import_module("prefect_happyhorse.catalog.facts"), "dialect_names", lambda: frozenset({"whinny"}))
    with registered(VAULT.replace('dialect = "newapi"', 'dialect = "whinny"')):
        told = run()
    assert (told.exit_code, "vault cannot be used: The dialect 'whinny' must have one entry point" in told.stderr) == (1, True)
    assert "ttapi" in told.stdout


def test_a_dialect_without_emulation_is_checked_as_far_as_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its data and its bodies; that no job was run is said."""
    monkeypatch.setattr(import_module("prefect_happyhorse.catalog.facts"), "dialect_names", lambda: frozenset({"whinny"}))
    monkeypatch.setitem(DIALECTS, "whinny", NewAPIGateway)
    file = tmp_path / "vault.toml"
    file.write_text(VAULT.replace('dialect = "newapi"', 'dialect = "whinny"'))
    with registered(file.read_text()):
        told = run("check", str(file))
    assert (told.exit_code, "No job was run" in told.stdout, told.stdout.count("body\n")) == (0, True, 3), told.output


def test_media_that_are_sent_as_files_are_made_for_the_check(tmp_path: Path) -> None:
    """Of the formats that the route takes, a picture or a video; of others none can be made, and that is told."""
    clip = '[limits.clip]\nrole = "video"\nformats = ["{}"]\nmax_bytes = 900000\nduration_s = [2, 9]\n[shapes.text]'
    edit = '[[route]]\ncapability = "video_edit"\nmodel = "cut"\ntitle = "Cut"\nshape = "cut"\nlimits = ["clip"]\nsource = "Chapter 4"\n'
    shape = VAULT[VAULT.index("[shapes.frame]") : VAULT.index("[[route]]")].replace("shapes.frame", "shapes.cut")
    shape = shape.replace('from = "image"', 'from = "video"')
    for form, code in (("mp4", 0), ("webm", 1)):
        file = tmp_path / f"{form}.toml"
        file.write_text(VAULT.replace("[shapes.text]", clip.format(form)).replace("[[route]]", shape + "[[route]]", 1) + edit)
        with registered(file.read_text()):
            told = run("check", str(file))
        assert told.exit_code == code, told.output
        assert told.stdout.count("submitted, polled, stored") == 3 - code


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
