"""What looks after the processes of the other tests here sees what they leave behind."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from . import stack
from .stack import nothing_left_behind, until

pytestmark = pytest.mark.e2e

LEAVES_A_CHILD = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import sys; sys.stdin.read()'], start_new_session=True)"


def _nobody_reads(pipe: int) -> bool:
    try:
        os.write(pipe, b".")
    except BrokenPipeError:
        return True
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="Only Linux shows the environment of other processes")
def test_a_process_that_outlives_its_parent_is_named_and_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for its input, in a session of its own: the tests that left it fail with its command, and it is gone."""
    monkeypatch.setattr(stack, "_END_WITHIN_S", 0.0)
    reading, writing = os.pipe()
    try:
        with pytest.raises(AssertionError, match=r"sys\.stdin\.read\(\)"), nothing_left_behind():
            subprocess.run([sys.executable, "-c", LEAVES_A_CHILD], stdin=reading, check=True, timeout=60)
        os.close(reading)
        until(lambda: _nobody_reads(writing), seconds=30)
    finally:
        os.close(writing)
