"""``mediaflow lab certify``: what a bridge loses, profile by profile."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ._pipeline import config_errors
from ._speed import Speed, parse_speed

if TYPE_CHECKING:
    from ..lab.certify import Verdict


@click.command()
@click.argument("url", metavar="ws://BRIDGE")
@click.argument("profiles", metavar="[NAME|FILE]...", nargs=-1)
@click.option("--speed", metavar="FACTOR|max", callback=parse_speed, default="1", show_default=True,
              help="Pace of the calls; some bridges count on real time, which is 1.")  # fmt: skip
@click.option("--eka", default="http://127.0.0.1:8090", show_default=True, help="Where EkaScribe's place listens.")
@click.option("--pcm", default="ws://127.0.0.1:8091/pcm", show_default=True, help="Where plain binary PCM is taken.")
@click.option("--patience", default=15.0, show_default=True, help="Seconds that the bridge may take to store a call.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdicts as JSON.")
def certify(
    url: str, profiles: tuple[str, ...], speed: Speed, eka: str, pcm: str, patience: float, as_json: bool
) -> None:
    """Drive the bridge at ws://BRIDGE through chaos profiles (all, or those named) and print what it loses.

    Tell the bridge before to send to the lab: as a client of EkaScribe with --eka as its base address (any token does),
    or as binary 16-bit PCM at 16 kHz over a WebSocket to --pcm.  Exit code 1 means that something was lost.
    """
    import anyio

    from .. import websocket
    from ..errors import ConfigError, MediaflowError

    for name in ("mediaflow", "mediaflow_plugins", "websockets", "stamina"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what goes wrong is what the verdicts are about
    with config_errors():
        try:
            verdicts = anyio.run(
                _certify, url, profiles, speed, eka, pcm, patience,
                backend_options=websocket.LOOP,
            )  # fmt: skip
        except ConfigError:
            raise
        except ValueError as error:  # of an address
            raise click.UsageError(str(error)) from None
        except MediaflowError as error:
            click.echo(f"mediaflow: {error}", err=True)
            sys.exit(1)
    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode([verdict.as_json() for verdict in verdicts])))
    else:
        _print(verdicts)
    sys.exit(any(verdict.flaws for verdict in verdicts))


async def _certify(
    url: str, names: Sequence[str], speed: Speed, eka: str, pcm: str, patience_s: float
) -> list[Verdict]:
    from ..lab import profile
    from ..lab.certify import certifying
    from ..plugins import load

    plugins = load()
    chosen = [profile.load(name, plugins) for name in names or profile.names()]
    verdicts = []
    async with certifying(url, plugins, speed=speed, eka=eka, pcm=pcm, patience_s=patience_s) as certifier:
        click.echo(f"the bridge is expected to send to {certifier.eka_url} or {certifier.pcm_url}", err=True)
        for each in chosen:
            verdicts.append(await certifier.certify(each))
            click.echo(f"{each.name}: {verdicts[-1].judgement}", err=True)
    return verdicts


def _print(verdicts: Sequence[Verdict]) -> None:
    from rich.table import Table

    from ._tables import console

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("scenario", "verdict", "what was lost, and where", "what to do"):
        table.add_column(name, overflow="fold")
    for verdict in verdicts:
        lost = "; ".join(f"{flaw.kind}: {flaw.text}" for flaw in verdict.flaws)
        allowed = "; ".join(f"allowed: {flaw.text}" for flaw in verdict.excused)
        table.add_row(verdict.profile.name, verdict.judgement, lost or allowed, verdict.hint)
    console().print(table)
    failed = sum(bool(verdict.flaws) for verdict in verdicts)
    click.echo(f"{len(verdicts) - failed} of {len(verdicts)} scenarios passed")
