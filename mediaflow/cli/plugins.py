"""``mediaflow plugins``: what is installed, and what each component takes."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..plugins import Found


@click.group()
def command() -> None:
    """List the installed components, or show the options of one."""


@command.command("list")
def list_() -> None:
    """List every component with the first line of what it says of itself.  Exits with 1 if a plugin is broken."""
    from .. import plugins

    installed = plugins.load()
    for kind in ("source", "transform", "sink"):
        click.echo(f"{kind}s")
        for name, found in sorted(installed.components.items()):
            if found.kind == kind:
                click.echo(f"  {name:<14} {_about(found).partition(chr(10))[0]}  [{found.plugin}]")
    for name, reason in installed.broken.items():
        click.echo(f"broken: {name} did not load: {reason}", err=True)
    sys.exit(1 if installed.broken else 0)


@command.command("inspect")
@click.argument("name")
def inspect_(name: str) -> None:
    """Show what component NAME does and the options that it takes."""
    import difflib

    import msgspec

    from .. import option, plugins

    installed = plugins.load()
    found = installed.components.get(name)
    if found is None:
        near = difflib.get_close_matches(name, installed.components, 1)
        hint = f"did you mean {near[0]}?" if near else "`mediaflow plugins list` shows those there are"
        click.echo(f"there is no component {name!r}; {hint}", err=True)
        sys.exit(2)
    click.echo(f"{found.name}: {found.kind} from {found.plugin}\n\n{_about(found)}")
    if found.options:
        click.echo("\noptions")
    for name, spec in found.options.items():
        default = f"default {msgspec.json.encode(spec['default']).decode()}" if "default" in spec else "required"
        click.echo(f"  {name}: {option.describe(spec)}; {default}")
        if "description" in spec:
            click.echo(f"      {spec['description']}")


def _about(found: Found) -> str:
    return inspect.cleandoc(found.component.__doc__ or "")
