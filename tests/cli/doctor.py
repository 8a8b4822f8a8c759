"""How the doctor is asked, and what it said."""

from __future__ import annotations

import json

from click.testing import CliRunner, Result

from prefect_happyhorse.cli import main
from prefect_happyhorse.cli.doctor.findings import Finding

KEY = "sesame-1234"


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *words])


def found(*words: str, code: int) -> list[Finding]:
    """All that the doctor says, ended by a code; no line shows the key."""
    done = run(*words, "--json")
    assert done.exit_code == code, done.output
    assert KEY not in done.output
    assert "Traceback" not in done.output
    return [Finding(**json.loads(line)) for line in done.stdout.splitlines()]


def bad(findings: list[Finding], check: str | None = None) -> list[Finding]:
    return [one for one in findings if one.level != "ok" and one.check != "worker's folder" and check in {None, one.check}]


def only(findings: list[Finding], check: str) -> Finding:
    (one,) = bad(findings, check)
    assert one.advice
    return one
