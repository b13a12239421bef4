"""``mediaflow plugins``: what is installed, and what each component takes."""

from __future__ import annotations

import inspect
import sys

import click


@click.group()
def command() -> None:
    """List the installed components, or show the options of one."""


@command.command("list")
def list_() -> None:
    """List every component with the first line of what it says of itself."""
    from .. import plugins

    installed = plugins.load()
    for kind in ("source", "transform", "sink"):
        click.echo(f"{kind}s")
        for found in sorted(each for each in installed.components.values() if each.kind == kind):
            summary = inspect.cleandoc(found.component.__doc__ or "").splitlines()[0]
            click.echo(f"  {found.name:<14} {summary}  [{found.plugin}]")
    for name, reason in installed.broken.items():
        click.echo(f"broken: {name} did not load: {reason}", err=True)


@command.command("inspect")
@click.argument("name")
def inspect_(name: str) -> None:
    """Show what component NAME does and the options that it takes."""
    import msgspec

    from .. import plugins, schema

    installed = plugins.load()
    found = installed.components.get(name)
    if found is None:
        click.echo(f"there is no component {name!r}; `mediaflow plugins list` shows those there are", err=True)
        sys.exit(2)
    click.echo(f"{found.name}: {found.kind} from {found.plugin}\n")
    click.echo(inspect.cleandoc(found.component.__doc__ or ""))
    options = schema.options(found.component)
    if options:
        click.echo("\noptions")
    for option, spec in options.items():
        spec = dict(spec)
        description = spec.pop("description", "")
        default = f"default {msgspec.json.encode(spec.pop('default')).decode()}" if "default" in spec else "required"
        limits = ", ".join(f"{key} {_plain(value)}" for key, value in spec.items())
        click.echo(f"  {option}: {limits}, {default}")
        if description:
            click.echo(f"      {description}")


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
