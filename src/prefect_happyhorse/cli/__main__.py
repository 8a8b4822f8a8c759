"""`python -m prefect_happyhorse.cli`."""

from prefect_happyhorse.cli.commands import main

main()
