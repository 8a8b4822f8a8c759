"""Dialects of packages: named by entry points, imported only when they are spoken, and what is wrong with one is told of it alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.vault import VAULT, registered

from prefect_happyhorse.catalog import load_gateway
from prefect_happyhorse.catalog.discovery import DIALECTS, SANDBOX_DIALECTS, dialect_class, dialect_names, discovered
from prefect_happyhorse.domain.errors import CatalogError
from prefect_happyhorse.gateways import Gateway, get_gateway

Brings = Callable[..., None]


def spoken(dialect: str, text: str = VAULT) -> str:
    return text.replace('dialect = "newapi"', f'dialect = "{dialect}"')


CLASS = "from prefect_happyhorse.gateways import Gateway\nclass Whinny(Gateway):\n    words = {}\n"


@pytest.fixture
def brings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Brings]:
    """Install a package of one module with entry points."""
    monkeypatch.syspath_prepend(tmp_path)

    def brings(name: str, text: str, *, group: str = DIALECTS, **points: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in points.items()))

    yield brings
    for file in tmp_path.glob("*.py"):
        sys.modules.pop(file.stem, None)


def test_a_package_brings_a_dialect(brings: Brings) -> None:
    """Its name is known without an import, and its class speaks for every gateway that names it."""
    brings("stable_speech", CLASS, whinny="stable_speech:Whinny")
    assert "whinny" in dialect_names()
    with registered(spoken("whinny")):
        assert type(get_gateway("vault")).__name__ == "Whinny"
        assert isinstance(get_gateway("vault"), Gateway)


@pytest.mark.parametrize(
    ("text", "point", "told"),
    [
        ("raise OSError('no hay')", "lame:Whinny", "lame:Whinny: OSError: no hay"),
        ("import no_such_stable", "lame:Whinny", "No module named 'no_such_stable'"),
        ("", "lame:Whinny", "AttributeError"),
        ("Whinny = 1", "lame:Whinny", "lame:Whinny must be a subclass of Gateway"),
        ("class Whinny: pass", "lame:Whinny", "lame:Whinny must be a subclass of Gateway"),
    ],
)
def test_a_dialect_that_does_not_work_is_its_gateways_problem(brings: Brings, text: str, point: str, told: str) -> None:
    """The gateway is there, nothing is sent to it, and all others work on."""
    brings("lame", text, whinny=point)
    with registered(spoken("whinny")):
        with pytest.raises(CatalogError, match=told):
            get_gateway("vault")
        assert get_gateway("ttapi").facts.gateway == "ttapi"


def test_two_packages_bring_the_same_dialect(brings: Brings) -> None:
    """Which of the two is meant nobody says."""
    brings("one", CLASS, whinny="one:Whinny")
    brings("two", CLASS, whinny="two:Whinny")
    with pytest.raises(CatalogError, match="2 packages bring it: one:Whinny, two:Whinny"):
        dialect_class("whinny", Gateway)


def test_a_dialect_that_nobody_brings() -> None:
    """For the sandbox it may be so: a package need not emulate its own."""
    with pytest.raises(CatalogError, match=f"one entry point {SANDBOX_DIALECTS} \\(no package brings it\\)"):
        dialect_class("whinny", Gateway, SANDBOX_DIALECTS)


def test_a_package_says_itself_whether_it_exchanges_tokens(brings: Brings) -> None:
    """Of the dialects here it is known when the file is read, of another only when its class is there."""
    text = VAULT.replace("typical_s", 'token = "POST /token"\ntypical_s')
    with pytest.raises(CatalogError, match="the dialect newapi exchanges no access tokens"):
        load_gateway(text)
    brings("mute", CLASS, whinny="mute:Whinny")
    with registered(spoken("whinny", text)), pytest.raises(CatalogError, match="the dialect whinny exchanges no access tokens"):
        get_gateway("vault")


@pytest.mark.parametrize("package", ["lone", "lone.inner", "nowhere", "nowhere.inner"])
def test_gateway_files_lie_in_packages_alone(brings: Brings, package: str) -> None:
    """A module has no place for them."""
    brings("lone", "raise RuntimeError('imported')", group="prefect_happyhorse.gateways", lone=package)
    assert [str(error) for origin, error in discovered() if "lone = " in origin] == [f"there is no package {package!r}"]


def test_gateway_files_of_a_package_inside_another_are_found(brings: Brings, tmp_path: Path) -> None:
    """Neither of the two is imported for that."""
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    (tmp_path / "outer" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "outer" / "inner" / "vault.toml").write_text(VAULT)
    brings("outer_files", "", group="prefect_happyhorse.gateways", outer="outer.inner")
    assert [text for origin, text in discovered() if origin == "outer.inner/vault.toml"] == [VAULT]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('cancel = "DELETE ', 'cancel = "PUT ', "gateway.cancel"),
        ('content = "GET ', 'content = "POST ', "gateway.content"),
        ("{task_id}/content", "content", "gateway.content"),
        ('{task_id}"\nencoding = "multipart"', '{task_id}"', "frame: a file needs encoding = 'multipart' \\(got 'json'\\)"),
        ('to = "frame"', 'to = "input.frame"', "input.frame: a file must be a part of its own"),
        ('from = "image", type', 'from = "seed", type', "seed holds no medium"),
        ('limits = ["frame"]\n', "", "image is sent as a file, so limits must name one"),
    ],
)
def test_what_a_file_cannot_say_is_told(old: str, new: str, told: str) -> None:
    """Before anything is sent with it."""
    assert old in VAULT
    with pytest.raises(CatalogError, match=told):
        load_gateway(VAULT.replace(old, new))


def test_a_route_knows_its_files() -> None:
    """By the parts of the form, and by the fields of the request."""
    _, (text, frame, _) = load_gateway(VAULT)
    assert (text.file_parts, text.file_fields) == (frozenset(), frozenset())
    assert (frame.file_parts, frame.file_fields) == ({"frame"}, {"image"})
