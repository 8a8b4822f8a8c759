"""What is set for a process: its names, its rules, and what is said of a wrong value."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from prefect_happyhorse.blocks.credentials import environment_names
from prefect_happyhorse.catalog import GATEWAYS
from prefect_happyhorse.domain.settings import PREFIXES, Settings, current, from_environment, read_by, written
from prefect_happyhorse.engine.journal.owner import LEASE_TTL_S, SENDING_TTL_S
from prefect_happyhorse.settings import read


@pytest.fixture(autouse=True)
def _by_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("HAPPYHORSE_HOME", raising=False)
    read_by(from_environment)
    yield
    read_by(read)


@pytest.mark.parametrize("field", Settings.model_fields)
def test_each_setting_has_two_names_in_any_case(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of both the first counts; an empty one is none."""
    one, other = ("7", "8") if field.endswith("_s") else ("false", "true")
    one, other = ("DEBUG", "ERROR") if field == "log_level" else ("none", "http://p:1") if field == "proxy" else (one, other)
    one, other = ("https://a.example", "https://b.example") if field == "gallery_url" else (one, other)
    unset = getattr(current(), field)
    monkeypatch.setenv(f"{PREFIXES[1]}{field.upper()}", other)
    by_second = getattr(current(), field)
    monkeypatch.setenv(f"{PREFIXES[0]}{field.upper()}", one)
    by_first = getattr(current(), field)
    assert by_first != by_second
    assert written(field) == one
    for prefix in PREFIXES:
        monkeypatch.setenv(f"{prefix}{field.upper()}", "")
    assert getattr(current(), field) == unset
    for prefix in PREFIXES:
        monkeypatch.delenv(f"{prefix}{field.upper()}")
    assert written(field) == ""
    monkeypatch.setenv(f"happyhorse_{field}", one.lower())
    assert getattr(current(), field) == by_first


def test_no_other_variable_is_taken_for_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as HOME, or PROXY."""
    for field in Settings.model_fields:
        monkeypatch.setenv(field.upper(), "/elsewhere")
    assert vars(current()) == vars(Settings()) == vars(read())


def test_no_setting_is_named_as_a_variable_of_credentials() -> None:
    """Since a gateway is called happyhorse too."""
    ours = {f"HAPPYHORSE_{field}".upper() for field in Settings.model_fields}
    assert not ours & {name for gateway in GATEWAYS for name in environment_names(gateway).values()}


def test_all_that_is_wrong_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the variable, its value and the rule; an address that may hold a password is not shown."""
    wrong = {"CALL_TIMEOUT_S": "600", "CONNECT_TIMEOUT_S": "soon", "LOG_LEVEL": "loud", "THUMBNAILS": "perhaps"}
    for name, value in wrong.items():
        monkeypatch.setenv(f"HAPPYHORSE_{name}", value)
    monkeypatch.setenv("PREFECT_INTEGRATIONS_HAPPYHORSE_PROXY", "ftp://user:sesame@proxy")
    with pytest.raises(ValueError, match=r"The settings are wrong\. Nothing was sent") as caught:
        current()
    for name, value in wrong.items():
        assert f"HAPPYHORSE_{name}: " in str(caught.value)
        assert f"(got {value!r})" in str(caught.value).replace("LOUD", "loud")
    assert "PREFECT_INTEGRATIONS_HAPPYHORSE_PROXY: must be an http or https address" in str(caught.value)
    assert "sesame" not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize("address", ["proxy", "http://", "http://proxy:0", "http://proxy:port", "socks5://proxy", "http://[::1"])
def test_what_is_no_proxy(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is refused."""
    monkeypatch.setenv("HAPPYHORSE_PROXY", address)
    with pytest.raises(ValueError, match="must be an http or https address"):
        current()


def test_a_submit_is_over_before_its_lease_expires() -> None:
    """However long a call is allowed to take."""
    (longest,) = [rule.le for rule in Settings.model_fields["call_timeout_s"].metadata if hasattr(rule, "le")]
    assert SENDING_TTL_S + longest < LEASE_TTL_S


def test_a_secret_is_not_shown() -> None:
    """The password of a proxy."""
    assert "sesame" not in repr(Settings.model_validate({"proxy": "http://user:sesame@proxy:1", "home": Path("/x")}))


def test_a_gallery_is_at_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page would run in place of opening it is refused."""
    monkeypatch.setenv("HAPPYHORSE_GALLERY_URL", "javascript:alert(1)")
    with pytest.raises(ValueError, match="GALLERY_URL: must be an http or https address"):
        current()
