"""``mediaflow lab``: both vendors as local servers, and simulated calls.

Each says in its first lines how to point a client at it, and then a line for everything that happens.  Who may ask of
``lab vobiz`` can be said by ``LAB_AUTH_ID`` and ``LAB_AUTH_TOKEN``; without them it is the lab's own account, which
everybody knows, and so it is served on this machine only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._lab_certify import certify
from ._speed import Speed, parse_speed
from .vobiz import CONTENT_TYPES

if TYPE_CHECKING:
    from ..lab.courier import Routes
    from ..lab.fork import Rig

QUIRKS = (
    "streaming_disabled", "forgets_stream", "drops_stream", "never_closes", "slow_storing", "short_sessions",
    "loses_chunks", "error_bursts", "token_ends", "refuses_end", "loses_end", "result_never", "result_failed",
    "result_partial", "result_expired", "result_missing",
)  # fmt: skip

_audio = click.option(
    "--audio", type=click.Path(dir_okay=False, path_type=Path), help="WAV file to talk; a consultation, if not given."
)
_speed = click.option(
    "--speed", metavar="FACTOR|max", callback=parse_speed, default="1", show_default=True, help="Pace; 1 is real time."
)


@click.group()
def command() -> None:
    """Take the vendors' places on this machine, call a media server, or find out what a bridge loses."""


command.add_command(certify)


@command.command()
@click.option("--listen", default="http://127.0.0.1:8070", show_default=True, help="http:// address to listen at.")
@_audio
@_speed
@click.option(
    "--route", "routes", multiple=True, metavar="PUBLIC=LOCAL", help="Connect to LOCAL where a URL says PUBLIC."
)
@click.option("--concurrency", default=100, show_default=True, type=click.IntRange(min=0), help="More calls get 429.")
@click.option("--json-callbacks", is_flag=True, help="Send callbacks as JSON instead of a form.")
def vobiz(
    listen: str, audio: Path | None, speed: Speed, routes: tuple[str, ...], concurrency: int, json_callbacks: bool
) -> None:
    """Serve Vobiz's REST API over simulated calls, until SIGTERM or Ctrl-C."""
    from ..component import Secret
    from ..lab.courier import Courier, Routes
    from ..lab.vobiz import CREDENTIALS, Carrier
    from ..vobiz import Credentials
    from ..websocket import Address

    own = os.environ.get("LAB_AUTH_ID"), os.environ.get("LAB_AUTH_TOKEN")
    if bool(own[0]) != bool(own[1]):
        raise click.UsageError("LAB_AUTH_ID and LAB_AUTH_TOKEN belong together")
    credentials = Credentials(own[0], Secret(own[1])) if own[0] and own[1] else CREDENTIALS
    try:
        address = Address.parse(listen, ("http",))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if not address.is_loopback and credentials is CREDENTIALS:
        raise click.UsageError(f"{address.host} can be reached by others: set LAB_AUTH_ID and LAB_AUTH_TOKEN")
    pairs = [(public, local) for public, _, local in (route.partition("=") for route in routes)]
    if not all("://" in part for pair in pairs for part in pair):
        raise click.UsageError("--route takes PUBLIC=LOCAL, as in https://calls.example.org=http://127.0.0.1:8081")

    def listening(url: str) -> None:
        token = "lab" if credentials is CREDENTIALS else '"$LAB_AUTH_TOKEN"'
        _say(f"Vobiz's place is taken: its API listens at {url}")
        _say(f"  export VOBIZ_BASE_URL={url} VOBIZ_AUTH_ID={credentials.auth_id} VOBIZ_AUTH_TOKEN={token}")
        _say("  mediaflow vobiz call make --from +911140001000 --to +911140002000 --answer-url URL")

    async def main() -> bool:
        rig = _rig(audio, speed, Routes(pairs))
        carrier = Carrier(rig, Courier(credentials, rig.routes, json_callbacks), credentials, concurrency)
        await _until_stopped(lambda: carrier.serve(address, listening), carrier.stop)
        return True

    _run(main)


@command.command()
@click.option("--listen", default="http://127.0.0.1:8090", show_default=True, help="http:// address to listen at.")
@click.option("--quirk", "quirks", multiple=True, type=click.Choice(QUIRKS), help="Do this wrong; may be repeated.")
def eka(listen: str, quirks: tuple[str, ...]) -> None:
    """Serve EkaScribe's API, storing what is streamed to it, until SIGTERM or Ctrl-C."""
    from ..plugins import load
    from ..websocket import Address

    try:
        address = Address.parse(listen, ("http",))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if not address.is_loopback:
        raise click.UsageError(f"{address.host} can be reached by others, and everybody knows the lab's login")

    async def main() -> bool:
        import anyio

        from ..lab.eka import LOGIN, Scribe

        scribe = Scribe(load(), listen, quirks, _say)

        async def introduce() -> None:
            await scribe.runner.up.wait()
            url = scribe.runner.url
            _say(f"EkaScribe's place is taken: its API listens at {url}")
            _say(f"  export EKA_BASE_URL={url} EKA_CLIENT_ID={LOGIN} EKA_CLIENT_SECRET={LOGIN}")
            _say(f"  or EKA_TOKEN={LOGIN}, without a login")

        async def serve() -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(introduce)
                await scribe.run()
                tasks.cancel_scope.cancel()

        await _until_stopped(serve, scribe.stop)
        return True

    _run(main)


@command.command()
@click.argument("url", envvar="LAB_URL")
@click.option("--calls", default=1, show_default=True, type=click.IntRange(min=1), help="How many at the same time.")
@_audio
@_speed
@click.option("--shape", type=click.Choice(["nested", "flat"]), default="nested", show_default=True,
              help="Of the messages; flat is that of older documents.")  # fmt: skip
@click.option("--content-type", type=click.Choice(CONTENT_TYPES), default=CONTENT_TYPES[0], show_default=True,
              help="What the call carries.")  # fmt: skip
@click.option("--track", type=click.Choice(["inbound", "outbound", "both"]), default="both", show_default=True,
              help="Whose voice it carries.")  # fmt: skip
@click.option("--stop", is_flag=True, help="Say stop before the socket is closed, as older documents have it.")
@click.option("--chaos", metavar="NAME|FILE", help="Misbehave as a chaos profile says, in its shape and format.")
def call(
    url: str,
    calls: int,
    audio: Path | None,
    speed: Speed,
    shape: str,
    content_type: str,
    track: str,
    stop: bool,
    chaos: str | None,
) -> None:
    """Call the media server at URL, or at LAB_URL: it may end in a secret.

    Exits with 0 if the server took every call to its end.
    """

    async def main() -> bool:
        from ..lab import profile
        from ..lab.caller import Caller
        from ..path_template import PathTemplate

        rig = _rig(audio, speed)
        options = {"content_type": content_type, "track": track, "shape": shape, "end": "stop" if stop else "close"}
        if chaos is not None:
            misbehaviour = profile.load(chaos, rig.plugins)
            options = {**misbehaviour.options, "track": misbehaviour.tracks}
        caller = Caller(rig, url, calls, played=PathTemplate("mediaflow-data/lab/{call_id}.wav"), **options)
        taken: list[bool] = []

        async def run() -> None:
            taken.append(await caller.run())

        await _until_stopped(run, caller.stop)
        return taken == [True]

    _run(main)


def _rig(audio: Path | None, speed: Speed, routes: Routes | None = None) -> Rig:
    from ..lab import CLIP
    from ..lab.fork import Rig
    from ..plugins import load

    return Rig(load(), audio or CLIP, speed, _say, routes)


def _say(line: str) -> None:
    click.echo(line)
    sys.stdout.flush()  # whoever reads it through a pipe wants it now


async def _until_stopped(run: Callable[[], Awaitable[None]], stop: Callable[[], None]) -> None:
    """Run ``run``; a signal calls ``stop``, a second one again."""
    import anyio

    from ._show import on_signal

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(on_signal, stop)
            await run()
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from group


def _run(main: Callable[[], Awaitable[bool]]) -> None:
    """Run ``main``, exit by what it returns, and say in a line what went wrong."""
    import sqlite3

    import anyio

    from ..errors import ConfigError, MediaflowError
    from ._log import set_up_log
    from ._pipeline import config_errors

    set_up_log()
    with config_errors():
        try:
            well = anyio.run(main)
        except ConfigError:
            raise
        except (MediaflowError, OSError, sqlite3.Error) as error:
            click.echo(f"mediaflow: {error}", err=True)
            sys.exit(1)
    sys.exit(0 if well else 1)
