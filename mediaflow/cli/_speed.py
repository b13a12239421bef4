"""The option ``--speed`` of commands that play audio."""

from __future__ import annotations

from typing import Literal

import click

Speed = float | Literal["max"]


def parse_speed(_context: click.Context, _option: click.Parameter, value: str | None) -> Speed | None:
    """Read what is given: a positive number, or max."""
    if value is None:
        return None
    if value == "max":
        return "max"
    try:
        factor = float(value)
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise click.BadParameter(f"{value!r} is neither a positive number nor max")
    return factor
