"""``mediaflow run``: carry audio until the source ends or a signal stops it."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from functools import partial

import click

from . import _collector
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
@click.option("--chaos", metavar="NAME|FILE", help="Let the lab's vendors misbehave by a chaos profile; with --lab.")
@click.option(
    "--workers", type=click.IntRange(min=1), help="So many processes take the calls; one that dies is replaced."
)
@click.option("--as-worker", nargs=3, type=(int, int, str), hidden=True, help="What the supervisor tells a worker.")
def command(
    file: str,
    lab: bool,
    speed: Speed | None,
    chaos: str | None,
    workers: int | None,
    as_worker: tuple[int, int, str] | None,
) -> None:
    """Run the pipeline in FILE until its source ends.  SIGTERM or Ctrl-C finish what is under way."""
    import sqlite3

    import anyio

    from .. import websocket
    from ..errors import ConfigError, MediaflowError

    set_up_log(as_worker[0] if as_worker else 0)
    if chaos is not None and not lab:
        raise click.UsageError("--chaos is for the vendors of --lab: add --lab")
    if workers is not None and (lab or speed is not None):
        raise click.UsageError("--workers is for calls from outside; --lab and --speed are for one process")
    _collector.calm()
    main: Callable[[], Awaitable[int]]
    if as_worker is not None:
        main = partial(_work, file, *as_worker[1:])
    elif workers is not None:
        main = partial(_supervise, file, workers)
    else:
        main = partial(_lab, file, speed, chaos) if lab else partial(_alone, file, speed)
    with config_errors():
        try:
            code = anyio.run(main, backend="asyncio", backend_options=websocket.LOOP)
        except ConfigError:
            raise
        except (MediaflowError, OSError, sqlite3.Error) as error:
            click.echo(f"mediaflow: {error}", err=True)
            sys.exit(1)
    sys.exit(code)


async def _work(file: str, line: int, instance: str) -> int:
    from ._workers import work

    return await work(file, line, instance)


async def _supervise(file: str, number: int) -> int:
    from ._workers import supervise

    return await supervise(file, number)


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


async def _lab(file: str, speed: Speed | None, chaos: str | None) -> bool:
    from ..lab import Lab, profile
    from ..plugins import load as load_plugins
    from ._show import carry

    plugins = load_plugins()
    wanted = None if chaos is None else profile.load(chaos, plugins)
    lab = Lab(file, plugins, 1.0 if speed is None else speed, wanted)
    await carry(lab.run, lab.stop, lab.runners)
    stored = lab.stored()
    if stored:
        click.echo("stored by the lab's EkaScribe:")
    for path, seconds in stored:
        click.echo(f"  {path}  {seconds:.2f} s")
    if wanted is not None:
        unmet = lab.unmet()
        for line in unmet or ["all came out as it must"]:
            click.echo(f"chaos {wanted.name}: {line}")
        return bool(unmet)
    return any(runner.failed for runner in lab.runners)
