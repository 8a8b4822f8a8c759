"""No test ever sees a key of whoever runs the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from prefect_happyhorse.blocks.credentials import environment_names
from prefect_happyhorse.catalog import GATEWAYS, gateway_facts

from .environment import SUFFIXES, clear


def test_a_key_of_an_unheard_of_gateway_is_taken_out() -> None:
    """By how its name ends, in any case; what belongs to nobody's money stays."""
    theirs = {f"PEGASUS{suffix}": "sesame" for suffix in SUFFIXES} | {"pegasus_api_key": "sesame"}
    ours = {"HAPPYHORSE_STORE": "s3://theirs", "PREFECT_API_URL": "https://theirs", "PREFECT_API_AUTH_STRING": "sesame"}
    environment = {**theirs, **ours, "TTAPI_OTHER": "sesame", "PATH": "/bin", "PREFECT_HOME": "/tmp", "API_KEYS": "no suffix"}
    clear(environment, ["ttapi"])
    assert environment == {"PATH": "/bin", "PREFECT_HOME": "/tmp", "API_KEYS": "no suffix"}


def test_a_run_of_the_tests_starts_without_such_a_key(tmp_path: Path) -> None:
    """From the first import on, in a run of its own that starts with one; the folder of this machine's own state is another too."""
    test = Path(__file__).parent / "catalog" / "test_loader.py"
    probe = tmp_path / "probe.py"
    probe.write_text(
        "import os\n\n\ndef pytest_collection_finish():\n"
        "    found = [name for name in os.environ if name.startswith(('PEGASUS_', 'HAPPYHORSE_'))]\n"
        "    print('left:', found, os.environ['HAPPYHORSE_HOME'])\n"
    )
    command = [sys.executable, "-m", "pytest", str(test), "--collect-only", "-q", "-s", "-p", "probe", "-p", "no:cacheprovider"]
    theirs = {"PEGASUS_API_KEY": "sesame", "HAPPYHORSE_STORE": "s3://theirs", "HAPPYHORSE_HOME": "/theirs"}
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | theirs | {"PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False, cwd=Path(__file__).parents[1])
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("left:")]
    assert "left: ['HAPPYHORSE_HOME'] " in line
    assert "/theirs" not in line


def test_the_suffixes_are_all_that_credentials_read() -> None:
    """A new variable of the credentials is a new suffix here."""
    for gateway in GATEWAYS:
        names = environment_names(gateway)
        assert {name.removeprefix(gateway.upper()) for name in names.values()} <= set(SUFFIXES)
        assert (f"{gateway.upper()}_APP_ID" in names.values()) == (gateway_facts(gateway).token is not None)
