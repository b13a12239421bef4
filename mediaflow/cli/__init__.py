"""The command line: one file per command.

Exit codes: 0 all is well, 1 something failed, 2 wrong usage or a wrong pipeline file.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

import click

COMMANDS = ("run", "check", "explain", "plugins", "audit", "vobiz", "lab", "schema", "doctor", "bench")


class _Commands(click.Group):
    """Imports the file of a command when it is wanted; each imports the engine only when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: Any = getattr(import_module(f".{cmd_name}", __name__), "command")  # noqa: B009 (a module, for mypy)
        return command  # type: ignore[no-any-return]


def _print_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"mediaflow {version('mediaflow')}")
        ctx.exit()


@click.command(cls=_Commands)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
              help="Show the version and exit.")  # fmt: skip
def main() -> None:
    """Carry live audio from where it arises to where it is understood."""
