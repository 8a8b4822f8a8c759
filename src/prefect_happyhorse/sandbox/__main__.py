"""`python -m prefect_happyhorse.sandbox`: a sandbox in a process of its own."""

from __future__ import annotations

import argparse
import sys

from pydantic import ValidationError

from prefect_happyhorse.catalog import GATEWAYS
from prefect_happyhorse.sandbox.http.server import serve
from prefect_happyhorse.sandbox.jobs.settings import SandboxSettings


def main() -> None:
    """Read the command line and serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m prefect_happyhorse.sandbox", description="Serve the five gateways on one port.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8808, help="port to listen on (default: %(default)s)")
    parser.add_argument("--job-s", type=float, default=2.0, help="how long a job takes, in seconds (default: %(default)s)")
    parser.add_argument("--media", choices=["full", "tiny"], default="full", help="pictures that show the request, or plain small ones")
    parser.add_argument(
        "--check-inputs", choices=["submit", "job", "never"], default="submit", help="when input media are fetched and checked"
    )
    parser.add_argument("--seed", type=int, help="seed of task ids and chances (default: differs from run to run)")
    given = parser.parse_args()
    try:
        settings = SandboxSettings(job_s=given.job_s, media=given.media, check_inputs=given.check_inputs, seed=given.seed)
    except ValidationError as error:
        parser.error("; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()))
    address = f"http://{given.host}:{given.port}"
    sys.stdout.write("\n".join([f"sandbox on {address}/_sandbox/", *(f"  {address}/{name}" for name in GATEWAYS)]) + "\n")
    sys.stdout.flush()
    serve(given.host, given.port, settings)


if __name__ == "__main__":
    main()
