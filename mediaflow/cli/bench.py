"""``mediaflow bench``: how fast and how good, beside the peers that are installed.  Runs from a source tree."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parents[2]

MODES = ("saturated", "wss", "paced", "coalescing", "ramp", "memory", "pause", "workers", "stages")


def _module(name: str) -> Any:
    if not (ROOT / "benchmarks").is_dir():
        raise click.ClickException("the benchmarks are in the source tree, and this mediaflow is installed without it")
    sys.path.insert(0, str(ROOT))
    return import_module(f"benchmarks.{name}")


@click.group()
def command() -> None:
    """Measure, beside the peers that are installed."""


@command.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--rounds", default=25, show_default=True, help="Rounds in which ours and the peer take turns.")
@click.option("--quality/--no-quality", default=True, help="Whether to measure more than speed.")
@click.option("--pictures", is_flag=True, help="Write the pictures of docs/dsp.md instead.")
def dsp(as_json: bool, rounds: int, quality: bool, pictures: bool) -> None:
    """Measure the compiled core."""
    if pictures:
        _module("dsp_pictures").main(ROOT / "docs")
        return
    sys.exit(_module("bench_dsp").main(rounds=rounds, as_json=as_json, quality=quality))


@command.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--rounds", default=3, show_default=True, help="Rounds in which the bridges take turns.")
@click.option("--mode", "modes", multiple=True, type=click.Choice(MODES), help="Only this; may be given again.")
@click.option("--row", "rows", multiple=True, help="Only this bridge; may be given again.")
@click.option("--page", is_flag=True, help="Write docs/capacity.md and its picture from docs/capacity.json instead.")
@click.option("--update", is_flag=True, help="Put it into docs/capacity.json and write the page, too.")
def load(as_json: bool, rounds: int, modes: tuple[str, ...], rows: tuple[str, ...], page: bool, update: bool) -> None:
    """Measure how many calls one core carries.  Everything takes about half an hour; nothing else should run.

    With --update, what was measured takes the place of the same modes of the same bridges in docs/capacity.json.
    """
    capacity = _module("capacity")
    if page:
        capacity.main(ROOT / "docs")
        return
    status = _module("bench_load").main(rounds, as_json, modes, rows, ROOT / "docs" / capacity.DATA if update else None)
    if update:
        capacity.main(ROOT / "docs")
    sys.exit(status)
