"""The flows are examples to copy, so they hold nothing that a flow author could not write."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import prefect_happyhorse
from prefect_happyhorse import datasets
from prefect_happyhorse.cli.demo import flow_file

FLOWS = sorted(flow_file("batch").parent.glob("*.py"))


@pytest.mark.parametrize("file", FLOWS, ids=lambda file: file.stem)
def test_flows_use_public_names_alone(file: Path) -> None:
    """Every import from the package is from its top level or from the data sets, and is a public name there."""
    imports = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, (ast.Import, ast.ImportFrom))]
    from_inside = [node for node in imports if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("prefect_happyhorse")]
    public = {module.__name__: set(module.__all__) for module in (prefect_happyhorse, datasets)}
    assert {node.module for node in from_inside} <= public.keys()
    assert all(alias.name in public[node.module or ""] for node in from_inside for alias in node.names)
    assert not any(alias.name.startswith("prefect_happyhorse") for node in imports if isinstance(node, ast.Import) for alias in node.names)
