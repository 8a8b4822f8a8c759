"""`python -m prefect_happyhorse.cli`."""

from __future__ import annotations

from prefect_happyhorse.cli.commands import main

main()
