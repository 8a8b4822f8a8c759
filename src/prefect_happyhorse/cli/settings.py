"""`happyhorse settings`: what can be set for a whole process, what is set, and the page that lists it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import click
from rich.table import Table

from prefect_happyhorse.catalog import GATEWAYS
from prefect_happyhorse.cli.output import cell, console, errors, json_option, print_json
from prefect_happyhorse.domain.settings import PREFIXES, Settings, current

__all__ = ["settings", "settings_page", "use_settings"]

_OF_CREDENTIALS = {
    "api_key": "the key, or an access token",
    "base_url": "the gateway's address, where its document names none or another is meant",
    "account": "a label of your own for the account that pays",
    "submit_path": "a path in place of the catalog's submit path",
    "poll_path": "a path in place of the catalog's poll path",
    "private_network": "whether the gateway lies in a private network: `true` or `false`",
    "prices": "a price list in TOML, see [Costs](costs.md)",
    "app_id": "the app id, in place of a key",
    "secret_key": "the secret key that belongs to the app id",
    "region": "one of the gateway's regions",
    "workspace": "id of the workspace that the key belongs to",
    "temporary_upload": "whether local inputs go to the gateway's own temporary storage, for trials: `true` or `false`",
}


def use_settings() -> None:
    """Read the settings as flows do; ValueError when one is wrong."""
    # Prefect takes a second or two to import, and only these files hold what the environment does not.
    if any(map(_may_set, _files())):
        from prefect_happyhorse.settings import use

        use()
    level = current().log_level
    if level is not None:
        logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
        logging.getLogger("prefect_happyhorse").setLevel(level)


def _files() -> list[Path]:
    """Where Prefect looks for settings, beside the environment: https://docs.prefect.io/v3/concepts/settings-and-profiles."""
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    profiles = os.environ.get("PREFECT_PROFILES_PATH")
    return [*map(Path, (".env", "prefect.toml", "pyproject.toml")), Path(profiles) if profiles else home / "profiles.toml"]


def _may_set(file: Path) -> bool:
    try:
        text = file.read_text(encoding="utf-8", errors="replace").lower()
    except OSError:
        return False
    variables = (f"happyhorse_{field}" in text for field in Settings.model_fields)
    return "profiles_path" in text or any(variables) or ("integrations" in text and "happyhorse" in text)


@click.command()
@click.option("--page", is_flag=True, help="The page docs/settings.md.")
@json_option("Print one JSON document a line, as `happyhorse schema` describes it.")
def settings(page: bool, *, as_json: bool) -> None:
    """Show every setting, its variable, and what it is now."""
    if page:
        click.echo(settings_page(), nl=False)
        return
    with errors():
        found = current()
    table = Table("setting", "now", "variable")
    for name, field in Settings.model_fields.items():
        value = getattr(found, name)
        if as_json:
            plain = value if isinstance(value, (bool, int, float)) or value is None else str(value)
            print_json({"setting": name, "variable": _variable(name), "value": plain, "default": value == field.default})
        table.add_row(name, cell("" if value is None else str(value)) + (" (default)" if value == field.default else ""), _variable(name))
    if not as_json:
        console().print(table)


def _variable(field: str) -> str:
    return f"{PREFIXES[0]}{field}".upper()


def settings_page() -> str:
    """The page `docs/settings.md`.

    Example:
        >>> settings_page().splitlines()[0]
        '# Settings'
    """
    from prefect_happyhorse.blocks.credentials import environment_names

    rows = [
        f"| `{name}` | `{_variable(name)}` or `{PREFIXES[1]}{name.upper()}` | {_default(field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    who: dict[str, list[str]] = {}
    for gateway in GATEWAYS:
        for field in environment_names(gateway):
            who.setdefault(field, []).append(gateway)
    of_gateway = [
        f"| `<GATEWAY>_{field.upper()}` | {'each' if who[field] == list(GATEWAYS) else ', '.join(who[field])} | {what} |"
        for field, what in _OF_CREDENTIALS.items()
    ]
    settings_table = ["| setting | variable | default | meaning |", "|---|---|---|---|", *rows]
    credentials_table = ["| variable | gateways | meaning |", "|---|---|---|", *of_gateway]
    return _PAGE.format(settings="\n".join(settings_table), credentials="\n".join(credentials_table))


def _default(value: object) -> str:
    if value in {None, ""}:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else f'{value:g}' if isinstance(value, float) else value}`"


_PAGE = """# Settings

Written from the code by `happyhorse settings --page`. `happyhorse settings` shows what is set, `happyhorse doctor` whether it works.

A setting holds for a whole process. It is read as [Prefect's own](https://docs.prefect.io/v3/concepts/settings-and-profiles): from the
environment, else `.env`, else the table `[integrations.happyhorse]` of `prefect.toml`, else `[tool.prefect.integrations.happyhorse]` of
`pyproject.toml`, else the active profile. Of two variables the first counts. The environment may change while a process runs; files are
read once. A wrong value is refused before anything is sent.

{settings}

What is logged appears on the terminal, and with `PREFECT_LOGGING_EXTRA_LOGGERS=prefect_happyhorse` in the Prefect UI too. An object store
has a client of its own, whose proxy and certificates are set as its document says: for S3 by `HTTPS_PROXY` and `AWS_CA_BUNDLE`. Prefect's
own are `HTTPS_PROXY` and `PREFECT_API_SSL_CERT_FILE`.

## Credentials

A gateway whose key is in the environment needs no block. `<GATEWAY>` is its id in capitals, as in `TTAPI_API_KEY`. These are read from the
environment alone.

{credentials}
"""
