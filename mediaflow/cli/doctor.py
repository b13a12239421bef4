"""``mediaflow doctor``: one screen that says what is wrong and what to do."""

from __future__ import annotations

import sys

import click

from ._pipeline import config_errors, load

_MARKS = {True: "ok   ", None: "note ", False: "WRONG"}


@click.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False))
def command(file: str | None) -> None:
    """Examine this machine and, with FILE, all that the pipeline depends on.  Exits with 1 if something is wrong."""
    import anyio

    with config_errors():
        wrong = anyio.run(_examine, file)
    click.echo(f"{wrong} wrong" if wrong else "all is well")
    sys.exit(1 if wrong else 0)


async def _examine(file: str | None) -> int:
    from .. import doctor, plugins

    if file is None:
        pipeline, installed = None, plugins.load()
    else:
        pipeline, _, installed = load(file)
    wrong = 0
    async for part, finding in doctor.examine(pipeline, installed):
        click.echo(f"{_MARKS[finding.ok]} {part}: {finding.text}")
        if finding.fix and not finding.ok:
            click.echo(f"      → {finding.fix}")
        wrong += finding.ok is False
    return wrong
