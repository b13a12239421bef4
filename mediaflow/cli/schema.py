"""``mediaflow schema``: the JSON Schema of a pipeline file, for editors."""

from __future__ import annotations

import click


@click.command()
def command() -> None:
    """Print the JSON Schema of a pipeline file, with every installed plugin."""
    import msgspec

    from .. import plugins, schema

    click.echo(msgspec.json.format(msgspec.json.encode(schema.pipeline(plugins.load()))).decode())
