"""``mediaflow lab``: what rehearses without a vendor."""

from __future__ import annotations

import click

from ._lab_certify import certify


@click.group()
def command() -> None:
    """Rehearse without an account at any vendor."""


command.add_command(certify)
