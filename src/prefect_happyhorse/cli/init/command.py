"""`happyhorse init`: all is asked for and checked first, then shown, and only then made."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError

from prefect_happyhorse.catalog import GATEWAYS, gateway_facts
from prefect_happyhorse.cli.init import dotenv
from prefect_happyhorse.cli.init.ask import Save, Wishes, block_problems, complete
from prefect_happyhorse.cli.output import REFUSED, asynchronous, confirm, echo, fail, interruptible, json_option, print_json
from prefect_happyhorse.engine.storage.backend import HiddenOptions

if TYPE_CHECKING:
    from prefect_happyhorse.blocks import GatewayCredentials, MediaStore
    from prefect_happyhorse.cli.schema import SetUp

__all__ = ["init"]


@click.command()
@click.option("--gateway", type=click.Choice(GATEWAYS), help="The gateway.")
@click.option("--key-from-env", metavar="NAME", help="The variable that holds the key (with --app-id the secret key).")
@click.option("--key-stdin", is_flag=True, help="Read the key from standard input.")
@click.option("--base-url", metavar="URL", help="The gateway's address, where its document names none.")
@click.option("--region", help="One of the gateway's regions.")
@click.option("--workspace", metavar="ID", help="The workspace that the key belongs to.")
@click.option("--account", metavar="LABEL", help="A label of your own for the account that pays.")
@click.option("--app-id", metavar="ID", help="The app id, where the gateway exchanges it for access tokens.")
@click.option("--private-network", is_flag=True, help="The gateway lies in a private network.")
@click.option("--store", metavar="URL", help="The folder or fsspec URL for outputs and journal.")
@click.option("--public-base-url", metavar="URL", help="The web address under which others read the store.")
@click.option("--save", type=click.Choice(["blocks", "env"]), help="Save Prefect blocks, or write a file .env.")
@click.option("--name", help="The name of the credentials' block.  [default: the gateway's id]")
@click.option("--store-name", default="studio", show_default=True, help="The name of the store's block.")
@click.option("--env-file", type=click.Path(dir_okay=False, path_type=Path), default=Path(".env"), show_default=True, help="The file.")
@click.option("--limits/--no-limits", default=None, help="Limit the account's open jobs (--jobs) and calls over all workers.")
@click.option("--jobs", type=click.IntRange(min=1), help="How many of the account's jobs may be open at once; with it come --limits.")
@click.option("--automations/--no-automations", default=None, help="Pause a deployment when one of its submits is uncertain.")
@click.option("--deploy", "pool", metavar="POOL", help="Deploy the flows to this process pool.")
@click.option("--overwrite", is_flag=True, help="Replace blocks, lines of .env and deployments that are there.")
@click.option("--yes", is_flag=True, help="Do not ask whether to go on.")
@json_option()
@asynchronous
async def init(*, as_json: bool, **given: Any) -> None:
    """Set up a gateway, its key and a store, and what the Prefect server should know.

    What no option says is asked on a terminal. A key is never an argument, which others on the machine could read: it is asked for, or
    comes from a variable or from standard input. What is there already is left alone unless --overwrite says otherwise.
    """
    wishes = Wishes(**given)
    if wishes.jobs is not None:
        if wishes.limits is False:
            raise click.UsageError("--jobs is a limit, and --no-limits makes none.")
        wishes.limits = True
    # Until all is said nothing is made, so that Ctrl-C may end it at any point.
    with interruptible():
        credentials, store, text = await _settle(wishes, as_json=as_json)
    done = await _make(wishes, credentials, store, text, tell=partial(echo, err=as_json))
    if as_json:
        print_json(done)


async def _settle(wishes: Wishes, *, as_json: bool) -> tuple[GatewayCredentials, MediaStore, str]:
    """What is to be made, after it was asked for, checked, shown and agreed to."""
    # With it comes Prefect, which takes a second or two.
    from prefect_happyhorse.cli.doctor.server import api_url

    await complete(wishes, has_server=api_url() is not None, may_ask=sys.stdin.isatty() and not wishes.key_stdin)
    there = await _to_be_replaced(wishes)
    credentials, store, problems = _checked(wishes, *there)
    text, more = await _check_what_is_there(wishes, credentials, store)
    if credentials is None or store is None or problems or more:
        told = ["It cannot be set up like this. Nothing was changed.", *(f"  - {one}" for one in (*problems, *more))]
        fail("\n".join(told), REFUSED)
    for line in [*_plan(wishes, credentials, store), *_left_of(there[0], credentials, wishes), *_left_of(there[1], store, wishes)]:
        echo(line, err=as_json)
    if sys.stdin.isatty() and not wishes.yes:
        confirm("Go on?")
    return credentials, store, text


async def _to_be_replaced(wishes: Wishes) -> tuple[GatewayCredentials | None, MediaStore | None]:
    """The blocks or the variables that are there, which may hold what is not asked for, such as prices."""
    from prefect_happyhorse.blocks import GatewayCredentials, MediaStore
    from prefect_happyhorse.cli.init import server

    if wishes.save == "env":
        # A file that cannot be read, or not be understood, is told of where it is to be written.
        with suppress(ValueError, OSError):
            return _in_file(wishes), None
    if wishes.save != "blocks" or not wishes.overwrite or await server.unreachable() is not None:
        return None, None
    return await server.load_block(GatewayCredentials, wishes.block_name), await server.load_block(MediaStore, wishes.store_name)


def _in_file(wishes: Wishes) -> GatewayCredentials:
    """What a file .env says of the gateway, without its list of prices, which stays where it is."""
    from prefect_happyhorse.blocks import GatewayCredentials

    gateway = wishes.gateway or ""
    names = _names(gateway)
    variables = HiddenOptions(dotenv.values(dotenv.read(wishes.env_file)))
    return GatewayCredentials.from_environment(gateway, HiddenOptions({name: variables[name] for name in names.keys() & variables.keys()}))


def _kept(old: GatewayCredentials | MediaStore, *, but: Collection[str]) -> dict[str, Any]:
    return {name: getattr(old, name) for name in type(old).model_fields if name not in but}


def _left_of(old: GatewayCredentials | MediaStore | None, new: GatewayCredentials | MediaStore, wishes: Wishes) -> list[str]:
    """What stays of what is replaced, and what goes, by its fields."""
    if old is None:
        return []
    unset = {name: field.get_default(call_default_factory=True) for name, field in type(old).model_fields.items()}
    had = [name for name, value in unset.items() if getattr(old, name) != value]
    stays = [name for name in had if getattr(new, name) == getattr(old, name) and name not in {"gateway", "url", "api_key", "secret_key"}]
    goes = [name for name in had if getattr(new, name) == unset[name]]
    told = [f"{what} {', '.join(names)}" for what, names in (("keeps", stays), ("LOSES", goes)) if names]
    where = f"what {wishes.env_file} says of {wishes.gateway}" if wishes.save == "env" else f"a block {type(new).__name__}"
    return [f"replaced: {where}, which {' and '.join(told)}"] if told else []


def _checked(
    wishes: Wishes, old: GatewayCredentials | None, old_store: MediaStore | None
) -> tuple[GatewayCredentials | None, MediaStore | None, list[str]]:
    """The two blocks, as far as they can be made, and what is wrong; what no option says stays as it was."""
    from prefect_happyhorse.blocks import GatewayCredentials, MediaStore

    problems: list[str] = []
    credentials = store = None
    fields = {
        name: getattr(wishes, name) for name in ("gateway", "base_url", "region", "workspace", "account", "app_id", "private_network")
    }
    given = {name: value for name, value in fields.items() if value}
    if old is not None and old.gateway == wishes.gateway:
        # They say one thing together: an address of before would win over a region that is given now.
        address = {"base_url", "region", "workspace"}
        moved = any(given[name] != getattr(old, name) for name in address & set(given))
        new_address = {*address, "private_network"} if moved else set[str]()
        given = _kept(old, but={"api_key", "app_id", "secret_key", *new_address}) | given
    try:
        credentials = GatewayCredentials.model_validate({**given, "api_key" if wishes.app_id is None else "secret_key": wishes.key})
    except ValidationError as error:
        problems += block_problems(error)
    try:
        store = MediaStore(url=wishes.store or "", public_base_url=wishes.public_base_url)
        # As an absolute folder: it counts from wherever a run is.
        store.url = store.to_store().url
        # What belongs to one place is wrong for another.
        if old_store is not None and old_store.to_store().url == store.url:
            but = {"url"} if wishes.public_base_url is None else {"url", "public_base_url"}
            store = store.model_copy(update=_kept(old_store, but=but))
    except ValidationError as error:
        problems += block_problems(error)
    except ValueError as error:
        problems.append(f"store: {error}")
    if wishes.public_base_url is not None and wishes.save == "env":
        problems.append("public_base_url: goes with --save blocks, for a variable has no place for it")
    if wishes.limits and wishes.gateway is not None and wishes.jobs is None and gateway_facts(wishes.gateway).polls_per_s is None:
        problems.append(f"limits: {wishes.gateway} documents none: say --jobs, or --no-limits")
    return credentials, store, problems


async def _check_what_is_there(wishes: Wishes, credentials: GatewayCredentials | None, store: MediaStore | None) -> tuple[str, list[str]]:
    """What the file .env is to hold, and what would be written over or cannot be made."""
    problems: list[str] = []
    text = ""
    if wishes.save == "env" and credentials is not None and store is not None:
        try:
            variables = _variables(credentials, store)
            gone = _names(credentials.gateway).keys() - variables.keys()
            text, changed = dotenv.merged(dotenv.read(wishes.env_file), variables, gone)
        except (ValueError, OSError) as error:
            return text, [f"{wishes.env_file}: {error}"]
        if changed and not wishes.overwrite:
            problems.append(f"{wishes.env_file} sets {', '.join(changed)} otherwise already: --overwrite replaces these lines")
    if _needs_server(wishes):
        problems += await _on_server(wishes, store)
    return text, problems


def _needs_server(wishes: Wishes) -> bool:
    return wishes.save == "blocks" or bool(wishes.limits or wishes.automations or wishes.pool)


async def _is_saved(name: str, store: MediaStore | None) -> bool:
    """Whether the store's block is there as it would be saved, as where a second gateway is set up beside the first."""
    from prefect_happyhorse.blocks import MediaStore

    saved = await MediaStore.aload(name, validate=False)
    return store is not None and saved.to_store() == store.to_store()


async def _on_server(wishes: Wishes, store: MediaStore | None) -> list[str]:
    from prefect_happyhorse.blocks import GatewayCredentials, MediaStore
    from prefect_happyhorse.cli.init import server

    if (why := await server.unreachable()) is not None:
        return [f"{why} Without a server: --save env, and no limits and the like."]
    problems: list[str] = []
    if wishes.save == "blocks" and not wishes.overwrite:
        if await server.block_exists(GatewayCredentials, name := wishes.block_name):
            problems.append(f"there is a block {name!r} already: --overwrite replaces it, --name gives the new one another name")
        if await server.block_exists(MediaStore, name := wishes.store_name) and not await _is_saved(name, store):
            other = "is of another place or has settings of its own: --overwrite replaces it, --store-name gives the new one another name"
            problems.append(f"the block {name!r} of a store, which is there already, {other}")
    if wishes.pool is not None:
        if (problem := await server.pool_problem(wishes.pool)) is not None:
            problems.append(problem)
        elif not wishes.overwrite and (there := await server.deployed()):
            problems.append(f"the deployments {', '.join(there)} are there already: --overwrite replaces them")
    return problems


def _names(gateway: str) -> dict[str, str]:
    """The fields that a file .env may set, by the names of their variables; a list of prices is a file of its own, and is left alone."""
    from prefect_happyhorse.blocks.credentials import environment_names

    return {name: field for field, name in environment_names(gateway).items() if field != "prices"}


def _variables(credentials: GatewayCredentials, store: MediaStore) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, field in _names(credentials.gateway).items():
        value = getattr(credentials, field)
        if value:
            values[name] = (
                value.get_secret_value() if hasattr(value, "get_secret_value") else str(value).lower() if value is True else value
            )
    return values | {"HAPPYHORSE_STORE": store.url}


def _plan(wishes: Wishes, credentials: GatewayCredentials, store: MediaStore) -> list[str]:
    """What is going to be made, without the key."""
    address = credentials.base_url or gateway_facts(credentials.gateway).address(credentials.region, credentials.workspace)
    lines = [f"gateway: {credentials.gateway} at {address}, account {credentials.to_account().label}", f"store: {store.url}"]
    if wishes.save == "env":
        lines.append(f"file: {wishes.env_file}, with {', '.join(_variables(credentials, store))}")
    else:
        lines.append(f"blocks: {wishes.block_name} and {wishes.store_name}")
    lines += ["limits: the account's calls and open jobs over all workers"] if wishes.limits else []
    lines += ["automations: pause a deployment when one of its submits is uncertain"] if wishes.automations else []
    lines += [f"deployments: every flow, to the pool {wishes.pool}"] if wishes.pool else []
    return lines


async def _make(wishes: Wishes, credentials: GatewayCredentials, store: MediaStore, text: str, *, tell: Callable[[str], None]) -> SetUp:
    saved: Save = wishes.save or "env"
    done: SetUp = {"saved": saved, "blocks": [], "limits": [], "automations": [], "deployments": []}
    if wishes.save == "env":
        if dotenv.write(wishes.env_file, text):
            tell(f"{wishes.env_file} could be read by others, and cannot any more.")
        done["env_file"] = str(wishes.env_file)
        # Without a slash a shell looks for it among its commands.
        place = wishes.env_file if wishes.env_file.name != str(wishes.env_file) else f"./{wishes.env_file}"
        load = f"set -a; . {shlex.quote(str(place))}; set +a"
        tell(f"Written: {wishes.env_file}. Keep it out of version control; load it where flows run: {load}")
    else:
        await credentials.asave(wishes.block_name, overwrite=wishes.overwrite)
        # The same was saved before, or it may be replaced.
        await store.asave(wishes.store_name, overwrite=True)
        done["blocks"] = [wishes.block_name, wishes.store_name]
        tell(f"Saved: the blocks {wishes.block_name} and {wishes.store_name}.")
    if wishes.limits:
        from prefect_happyhorse.runtime.concurrency import save_limits

        label = credentials.to_account().label
        calls_per_s = gateway_facts(credentials.gateway).polls_per_s
        for name in await save_limits(credentials.gateway, label, jobs=wishes.jobs, calls_per_s=calls_per_s):
            done["limits"].append(name)
            tell(f"Made: the limit {name}.")
    if wishes.automations:
        from prefect_happyhorse.runtime.automations import save, uncertain_automation

        done["automations"].append(name := await save(uncertain_automation()))
        tell(f"Made: the automation {name!r}.")
    if wishes.pool is not None:
        from prefect_happyhorse.cli.init.server import deploy

        named = wishes.save == "blocks"
        made = await deploy(
            wishes.pool, credentials=wishes.block_name if named else credentials.gateway, store=wishes.store_name if named else store.url
        )
        done["deployments"] = made
        tell(f"Deployed: {', '.join(made)}. `prefect worker start --pool {wishes.pool}` runs them.")
    tell("`happyhorse doctor` says whether all of it works.")
    return done
