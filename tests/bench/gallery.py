"""What a gallery costs: how long until it shows something, and how long a page takes once it knows all."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.bench.measure import HAPPYHORSE, KIB

_PAUSE_S = 0.2


def gallery(folder: Path, environment: Mapping[str, str]) -> dict[str, float]:
    """Seconds until the first jobs show and for a page that nobody asked for before, and the peak memory."""
    started = time.perf_counter()
    command = [*HAPPYHORSE, "gallery", "--store", str(folder), "--port", "0"]
    with subprocess.Popen(command, env=dict(environment), stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            address = re.findall(r"http://\S+", running.stdout.readline())[0]
            while not (page := _asked(address))["rows"]:
                time.sleep(_PAUSE_S)
            first_s = time.perf_counter() - started
            while page["reading"]:
                time.sleep(_PAUSE_S)
                page = _asked(address)
            asked = time.perf_counter()
            if not _asked(address, "?state=kept")["rows"]:
                raise RuntimeError("the gallery shows nothing")
            wall_s = time.perf_counter() - asked
        finally:
            running.send_signal(signal.SIGINT)
            _, _, used = os.wait4(running.pid, 0)
            running.returncode = 0
    return {"first_s": first_s, "wall_s": wall_s, "bytes": used.ru_maxrss * KIB}


def _asked(address: str, query: str = "") -> dict[str, Any]:
    with urllib.request.urlopen(f"{address}api/jobs{query}", timeout=60) as answer:
        return json.loads(answer.read())
