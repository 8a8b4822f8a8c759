"""How long the imports take, in a process of its own: `python -m tests.bench.imports`."""

import json
import time

started = time.perf_counter()
import prefect  # noqa: E402
import prefect.artifacts  # noqa: E402
import prefect.blocks.core  # noqa: E402
import prefect.cache_policies  # noqa: E402, F401

imported = time.perf_counter()
from prefect_happyhorse import GatewayCredentials, generate  # noqa: E402, F401

if __name__ == "__main__":
    print(json.dumps({"prefect_s": imported - started, "ours_s": time.perf_counter() - imported}))
