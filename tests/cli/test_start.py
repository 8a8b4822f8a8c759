"""How the command line starts: help and suggestions load nothing that takes time."""

from __future__ import annotations

import os
import subprocess
import sys

import click
import pytest
from tests.cli.journal import bought

from prefect_happyhorse.cli.commands import COMMANDS, main
from prefect_happyhorse.engine.storage.store import Store


def test_each_command_is_where_the_list_says() -> None:
    """And is introduced by the words of its own help, or fewer of them."""
    for name, (_, what) in COMMANDS.items():
        command = main.get_command(click.Context(main), name)
        assert command is not None
        assert command.name == name
        assert command.callback is not None
        assert main.get_command(click.Context(main), f"{name}-") is None
        assert what.endswith(".")


def loaded(code: str, **variables: str) -> tuple[str, set[str]]:
    """What a start prints, and what it has loaded of what takes time."""
    code += "\nprint('LOADED', *({'pydantic', 'httpx', 'rich', 'asyncio', 'prefect', 'prefect_happyhorse.catalog'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | variables, capture_output=True, text=True, check=True)
    printed, _, names = done.stdout.rpartition("LOADED")
    return printed, set(names.split())


START = """
import sys
from prefect_happyhorse.cli import main
try:
    main({words!r}, prog_name="happyhorse")
except SystemExit:
    pass
"""


def test_help_comes_at_once() -> None:
    """Each command with a line, and none of them loaded."""
    printed, heavy = loaded(START.format(words=["--help"]))
    assert all(f"  {name} " in printed for name in COMMANDS)
    assert heavy == set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_asks_for_suggestions(shell: str) -> None:
    """Each shell gets a script that asks; commands are suggested at once, the other values without Prefect."""
    printed, _ = loaded(START.format(words=[]), _HAPPYHORSE_COMPLETE=f"{shell}_source")
    assert f"_HAPPYHORSE_COMPLETE={shell}_complete" in printed
    suggested, heavy = suggest("happyhorse pr")
    assert (suggested, heavy) == (["preview", "prices"], set())


def suggest(line: str, **variables: str) -> tuple[list[str], set[str]]:
    """What bash is told for the last word of a line."""
    told = {"_HAPPYHORSE_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    printed, heavy = loaded(START.format(words=[]), **told, **variables)
    return [word.partition(",")[2] for word in printed.split()], heavy


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("happyhorse models --gateway t", ["ttapi"]),
        ("happyhorse models --gateway ttapi --model happyhorse-1.0", ["happyhorse-1.0-r2v"]),
        ("happyhorse jobs re", ["resume"]),
        ("happyhorse jobs list --state unc", ["uncertain"]),
        ("happyhorse jobs --store s3://studio/outputs show a", []),
        ("happyhorse jobs show *", []),
    ],
)
def test_values_are_suggested_without_prefect(line: str, words: list[str]) -> None:
    """Gateways, models of the gateway that is named, states; no object store is asked."""
    suggested, heavy = suggest(line)
    assert (suggested, "prefect" in heavy) == (words, False)


@pytest.mark.usefixtures("sandbox_env")
def test_jobs_are_suggested_by_their_digests(store: Store) -> None:
    """Of the journal in a folder, as `happyhorse jobs list` shows them, without what sends requests."""
    digest = bought(store).digest[:12]
    suggested, heavy = suggest("happyhorse jobs show ")
    assert (suggested, heavy & {"prefect", "httpx"}) == ([digest], set())
    assert suggest(f"happyhorse jobs --store {store.url} forget {digest[:6]}")[0] == [digest]
    assert suggest(f"happyhorse jobs show {'0' if digest[0] != '0' else '1'}")[0] == []
