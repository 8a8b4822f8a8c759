"""What the package offers at its top: one table of names, and what type checkers and people see of it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import prefect_happyhorse as package

INIT = Path(package.__file__ or "")


def test_type_checkers_see_the_names_of_the_table() -> None:
    """Each name is imported for them from the module that it is loaded from, and exported as itself."""
    imports = [node for node in ast.walk(ast.parse(INIT.read_text())) if isinstance(node, ast.ImportFrom)]
    ours = {(alias.name, alias.asname): node.module for node in imports for alias in node.names if "happyhorse" in (node.module or "")}
    assert ours == {(name, name): f"prefect_happyhorse.{module}" for name, module in package._MODULES.items()}


def test_every_name_is_there_once() -> None:
    """`__all__` and `dir` have each name, and each can be had."""
    assert len(package.__all__) == len(set(package.__all__))
    assert set(package.__all__) <= set(dir(package))
    assert [name for name in package.__all__ if not hasattr(package, name)] == []


def test_earlier_names_are_aliases_that_nobody_lists() -> None:
    """They work, and appear neither in `__all__` nor in the documentation."""
    assert package.ask is package.poll_once
    assert package.join is package.concat
    assert package.generate_sync.fn is package.generate.fn
    assert package.generate_sync.name == "generate"
    assert not set(package._ALIASES) & set(package.__all__)


def test_what_is_not_there_is_named() -> None:
    """As for any module."""
    with pytest.raises(AttributeError, match="has no attribute 'horse'"):
        _ = package.horse


def test_values_come_without_prefect() -> None:
    """Requests and the catalog are there in a moment: Prefect is not imported for them."""
    code = "import sys; from prefect_happyhorse import TextToImage, estimate, routes; print('prefect' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"
