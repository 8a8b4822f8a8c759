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
    parser = argparse.ArgumentParser(prog="python -m prefect_happyhorse.sandbox", description="Serve every gateway on one port.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8808, help="port to listen on (default: %(default)s)")
    for name in ("job_s", "media", "check_inputs", "seed"):
        described = SandboxSettings.model_fields[name].description
        parser.add_argument(f"--{name.replace('_', '-')}", default=argparse.SUPPRESS, help=described)
    given = parser.parse_args()
    try:
        settings = SandboxSettings.model_validate({name: value for name, value in vars(given).items() if name not in {"host", "port"}})
    except ValidationError as error:
        parser.error("; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()))
    address = f"http://{given.host}:{given.port}"

    def started() -> None:
        sys.stdout.write("\n".join([f"sandbox on {address}/_sandbox/", *(f"  {address}/{name}" for name in GATEWAYS)]) + "\n")
        sys.stdout.flush()

    try:
        serve(given.host, given.port, settings, started=started)
    except (ValueError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
