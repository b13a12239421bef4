"""``mediaflow bench``: how fast and how good, beside the peers that are installed.  Runs from a source tree."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("area", type=click.Choice(["dsp"]))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--rounds", default=25, show_default=True, help="Rounds in which ours and the peer take turns.")
@click.option("--quality/--no-quality", default=True, help="Whether to measure more than speed.")
@click.option("--pictures", is_flag=True, help="Write the pictures of docs/dsp.md instead.")
def command(area: str, as_json: bool, rounds: int, quality: bool, pictures: bool) -> None:
    """Measure the compiled core beside its peers."""
    root = Path(__file__).parents[2]
    if not (root / "benchmarks").is_dir():
        raise click.ClickException("the benchmarks are in the source tree, and this mediaflow is installed without it")
    sys.path.insert(0, str(root))
    if pictures:
        module: Any = import_module(f"benchmarks.{area}_pictures")
        module.main(root / "docs")
        return
    bench: Any = import_module(f"benchmarks.bench_{area}")
    sys.exit(bench.main(rounds=rounds, as_json=as_json, quality=quality))
