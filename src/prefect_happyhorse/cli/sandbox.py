"""`happyhorse sandbox`: every gateway on this machine."""

from __future__ import annotations

from typing import Literal

import click

from prefect_happyhorse.catalog import GATEWAYS
from prefect_happyhorse.cli.output import Seconds, console, errors, fail, json_option, print_json

__all__ = ["sandbox"]


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8808, show_default=True, type=click.IntRange(1, 65_535), help="The port to listen on.")
@click.option("--job-s", default=2.0, show_default=True, type=Seconds(min=0), help="How long a job takes, in seconds.")
@click.option(
    "--media",
    type=click.Choice(["full", "tiny"]),
    default="full",
    show_default=True,
    help="Pictures that show the request, or plain small ones.",
)
@click.option(
    "--long-side-px",
    default=1280,
    show_default=True,
    type=click.IntRange(64, 4096),
    help="The longer side of pictures and videos, in pixels: 1280 makes 720p.",
)
@json_option()
def sandbox(host: str, port: int, job_s: float, media: Literal["full", "tiny"], long_side_px: int, *, as_json: bool) -> None:
    """Serve every gateway on this machine, for free: real answers, real files, and a ledger of what was charged."""
    try:
        from prefect_happyhorse.sandbox.http.server import serve
        from prefect_happyhorse.sandbox.jobs.settings import SandboxSettings
    except ImportError as error:
        fail(f"The sandbox needs more: pip install 'prefect-happyhorse[sandbox]' ({error}).", 1)
    url = f"http://{host}:{port}"

    def started() -> None:
        if as_json:
            print_json({"url": f"{url}/_sandbox/", "gateways": {name: f"{url}/{name}" for name in GATEWAYS}})
        else:
            out = console()
            out.print("Point a gateway at the sandbox with any key:")
            for name in GATEWAYS:
                out.print(f"  export {name.upper()}_BASE_URL={url}/{name} {name.upper()}_API_KEY=sandbox", soft_wrap=True)
            out.print(f"Jobs, pictures and ledger: {url}/_sandbox/", soft_wrap=True)

    with errors():
        serve(host, port, SandboxSettings(job_s=job_s, media=media, long_side_px=long_side_px), started=started)
