"""``mediaflow run``: carry audio until the source ends or a signal stops it."""

from __future__ import annotations

import gc
import sys
from importlib.util import find_spec

import click

from ._log import set_up_log
from ._pipeline import config_errors, file_argument, load
from ._speed import Speed, parse_speed


@click.command()
@file_argument
@click.option("--lab", is_flag=True, help="Put local stand-ins in the place of the vendors: a caller, and EkaScribe.")
@click.option(
    "--speed",
    metavar="FACTOR|max",
    callback=parse_speed,
    help="Pace of a file, or of the lab's caller: 1 is real time.",
)
def command(file: str, lab: bool, speed: Speed | None) -> None:
    """Run the pipeline in FILE until its source ends.  SIGTERM or Ctrl-C finish what is under way."""
    import sqlite3

    import anyio

    from ..errors import ConfigError, MediaflowError

    set_up_log()
    # What is loaded stays: looking through it for garbage, whenever calls begin, was a tenth of the time at 64 calls.
    gc.freeze()
    main = _lab if lab else _alone
    with config_errors():
        try:
            failed = anyio.run(
                main, file, speed, backend="asyncio", backend_options={"use_uvloop": find_spec("uvloop") is not None}
            )
        except ConfigError:
            raise
        except (MediaflowError, OSError, sqlite3.Error) as error:
            click.echo(f"mediaflow: {error}", err=True)
            sys.exit(1)
    sys.exit(1 if failed else 0)


async def _alone(file: str, speed: Speed | None) -> bool:
    import msgspec

    from ..runner import Runner
    from ._show import carry

    pipeline, _, plugins = load(file)
    if speed is not None:
        if not hasattr(pipeline.source, "speed"):
            name = pipeline.names[("source",)]
            raise click.UsageError(f"--speed is for a source that plays, and {name} does not; the caller of --lab does")
        pipeline = msgspec.structs.replace(pipeline, source=msgspec.structs.replace(pipeline.source, speed=speed))
    runner = Runner(pipeline, plugins)
    await carry(runner.run, runner.stop, [runner])
    return runner.failed > 0


async def _lab(file: str, speed: Speed | None) -> bool:
    from ..lab import Lab
    from ..plugins import load as load_plugins
    from ._show import carry

    lab = Lab(file, load_plugins(), 1.0 if speed is None else speed)
    await carry(lab.run, lab.stop, lab.runners)
    stored = lab.stored()
    if stored:
        click.echo("stored by the lab's EkaScribe:")
    for path, seconds in stored:
        click.echo(f"  {path}  {seconds:.2f} s")
    return any(runner.failed for runner in lab.runners)
