"""What all tests share: a real Prefect server and a real sandbox, each started once, when a test first asks for it."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest
from hypothesis import HealthCheck, settings
from tests.environment import clear

# How fast the machine is decides nothing here.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

_STATUS: list[int] = []


@atexit.register
def _leave() -> None:
    # Prefect's and fsspec's event loops live in daemon threads, some of which are inside of C code while the interpreter is torn down: with
    # every test passed the process once ended by a segmentation fault. Registered first, this is the last of all that is done at exit.
    if _STATUS:
        if (measured := coverage.Coverage.current()) is not None:
            # Begun before the first line of this, it would save what it saw only afterwards.
            measured.stop()
            measured.save()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_STATUS[-1])


def pytest_sessionfinish(exitstatus: int) -> None:
    """Keep the status with which the process is to end."""
    _STATUS.append(int(exitstatus))


clear(os.environ)
# Before Prefect is imported: results that an earlier run cached must not answer for this one.
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="prefect-home-")
atexit.register(shutil.rmtree, os.environ["PREFECT_HOME"], ignore_errors=True)

from prefect_happyhorse.catalog import GATEWAYS  # noqa: E402 -- Prefect reads its home when it is imported
from prefect_happyhorse.sandbox import SandboxServer, SandboxSettings  # noqa: E402 -- the same

clear(os.environ, GATEWAYS)
# What a machine's processes share, tokens and spooled jobs, must not be the user's own.
os.environ["HAPPYHORSE_HOME"] = os.path.join(os.environ["PREFECT_HOME"], "happyhorse")


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A Prefect server with a database of its own."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield


_SETTINGS = SandboxSettings(job_s=0, media="tiny", check_inputs="never", seed=7)


@pytest.fixture(scope="session")
def running_sandbox() -> Iterator[SandboxServer]:
    with SandboxServer(_SETTINGS) as server:
        yield server


@pytest.fixture
def sandbox(running_sandbox: SandboxServer) -> SandboxServer:
    """A sandbox without jobs and faults, whose jobs are finished at once."""
    running_sandbox.reset()
    running_sandbox.settings(**{name: getattr(_SETTINGS, name) for name in SandboxSettings.model_fields})
    return running_sandbox


@pytest.fixture
def sandbox_env(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SandboxServer:
    """A sandbox that every gateway's environment variables point to, and an empty store."""
    for gateway in GATEWAYS:
        monkeypatch.setenv(f"{gateway.upper()}_BASE_URL", sandbox.base_url(gateway))
        monkeypatch.setenv(f"{gateway.upper()}_API_KEY", "sesame-1234")
    monkeypatch.setenv("HAPPYHORSE_STORE", str(tmp_path / "outputs"))
    monkeypatch.setenv("HAPPYHORSE_HOME", str(tmp_path / "home"))
    return sandbox
