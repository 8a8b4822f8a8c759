"""The command `happyhorse`: see what there is, what would be sent, make one thing, and play against the sandbox.

Exit codes: 0 done; 1 failed; 2 refused, and nothing was sent; 3 failed, and money was or may have been spent.
"""

from __future__ import annotations

from importlib import import_module

import click
from click.shell_completion import CompletionItem

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "demo": ("demo", "Run the flow image_to_video_edit against the sandbox: no account, no server, no cost."),
    "doctor": ("doctor.command", "Say whether a run would work, and what to do where it would not."),
    "export": ("export", "Write what was made to TARGET, as a data set."),
    "gallery": ("gallery", "Show what the journal of a store holds as a page."),
    "gateways": ("gateways", "List the gateways; write and check a file of your own."),
    "generate": ("generate", "Make what a request asks for, and print where the file lies."),
    "init": ("init.command", "Set up a gateway, its key and a store."),
    "jobs": ("jobs", "See what was bought and what is still open; adopt, resume, cancel or forget it."),
    "metrics": ("metrics", "Write how the jobs of a journal stand, as Prometheus reads it."),
    "models": ("models", "List the routes: which gateway offers which capability of which model."),
    "preview": ("preview", "Show the HTTP call that a request becomes. Nothing is sent."),
    "prices": ("prices", "Show what each route costs and by whose list."),
    "sandbox": ("sandbox", "Serve every gateway on this machine, for free."),
    "schema": ("schema", "Describe the JSON that a command prints with --json."),
    "settings": ("settings", "Show every setting, its variable, and what it is now."),
    "setup": ("setup", "Make limits and automations on the Prefect server."),
    "spend": ("spend", "Sum up what jobs should cost, and what they cost."),
}
"""The module of each command, and what it is for. A module is imported when its command is called: help and suggestions come at once."""


class _Commands(click.Group):
    """A group whose commands are imported one by one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of them, imported now."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        return getattr(import_module(f"prefect_happyhorse.cli.{COMMANDS[cmd_name][0]}"), cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click's, without an import."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, what) for name, (_, what) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """As click's, without an import."""
        names = [CompletionItem(name, help=what) for name, (_, what) in COMMANDS.items() if name.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done; 1 failed; 2 refused, nothing was sent; 3 failed, and money was or may have been spent.",
)
@click.version_option(package_name="prefect-happyhorse")
@click.pass_context
def main(context: click.Context) -> None:
    """Make images and videos with HappyHorse and its neighbours through several gateways."""
    from prefect_happyhorse.cli.output import REFUSED, fail
    from prefect_happyhorse.cli.settings import use_settings

    try:
        use_settings()
    except ValueError as error:
        # The doctor says so itself, and what else there is to say.
        if context.invoked_subcommand != "doctor":
            fail(str(error), REFUSED)
