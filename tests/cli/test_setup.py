"""`happyhorse setup limits`: the limits are those of the account that runs pay by."""

from __future__ import annotations

import pytest
from tests.cli.commands import run

from prefect_happyhorse.blocks import GatewayCredentials

pytestmark = pytest.mark.usefixtures("prefect_server", "no_environment")


@pytest.mark.parametrize(
    ("environment", "words", "account"),
    [
        ({"INFIFLOW_BASE_URL": "http://127.0.0.1:8808/infiflow"}, (), "sandbox"),
        ({"INFIFLOW_BASE_URL": "http://127.0.0.1:8808/infiflow", "INFIFLOW_ACCOUNT": "film"}, (), "film"),
        ({"INFIFLOW_BASE_URL": "http://127.0.0.1:8808/infiflow"}, ("--account", "night"), "night"),
        ({}, (), "default"),
    ],
)
def test_the_account_is_the_one_that_runs_pay_by(
    environment: dict[str, str], words: tuple[str, ...], account: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the environment, without a key too, unless another is named; which it is, is said."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = run("setup", "limits", "--gateway", "infiflow", "--jobs", "20", *words)
    assert done.exit_code == 0, done.output
    assert f"happyhorse-infiflow-{account}-jobs\n" in done.stdout
    assert f"For the account {account!r} of infiflow" in done.stderr


def test_a_block_of_the_gateways_name_comes_first() -> None:
    """As it does in a run that names the gateway."""
    GatewayCredentials(gateway="uniall", base_url="https://uniall.example", account="studio").save("uniall")
    try:
        done = run("setup", "limits", "--gateway", "uniall", "--jobs", "20")
    finally:
        GatewayCredentials.delete("uniall")
    assert done.stdout == "happyhorse-uniall-studio-jobs\n"
