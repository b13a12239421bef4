"""``mediaflow check``: is the file right, and do its parts fit?  Opens no socket."""

from __future__ import annotations

import sys

import click

from ._pipeline import load


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(dir_okay=False), metavar="FILE…")
def command(files: tuple[str, ...]) -> None:
    """Check pipeline files: every option, and every format at every joint.  Opens nothing."""
    from ..errors import ConfigError

    wrong = False
    for file in files:
        try:
            load(file)
        except ConfigError as error:
            wrong = True
            for problem in error.problems:
                click.echo(problem, err=True)
        else:
            click.echo(f"{file}: ok")
    sys.exit(2 if wrong else 0)
