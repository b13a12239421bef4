"""``mediaflow vobiz``: the streams of a live call, and calls, at the carrier.

Who asks is said by the environment (``VOBIZ_AUTH_ID``, ``VOBIZ_AUTH_TOKEN``), never on the command line, where others
on the machine could read it; the address of a stream may come from there too, for it ends in a secret.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..vobiz import Client, StreamInfo

CONTENT_TYPES = ("audio/x-mulaw;rate=8000", "audio/x-l16;rate=8000", "audio/x-l16;rate=16000")


@click.group()
def command() -> None:
    """Control streams and calls at Vobiz, as VOBIZ_AUTH_ID with VOBIZ_AUTH_TOKEN."""


@command.group()
def stream() -> None:
    """Start, show and stop the audio streams of a live call."""


@command.group()
def call() -> None:
    """Make a call, or hang one up."""


@stream.command()
@click.argument("call")
@click.option("--url", required=True, envvar="VOBIZ_STREAM_URL", show_envvar=True, help="wss:// address to stream to.")
@click.option("--track", type=click.Choice(["inbound", "outbound", "both"]), help="both, or inbound if bidirectional.")
@click.option("--bidirectional", is_flag=True, help="Let us send audio into the call too.")
@click.option("--content-type", type=click.Choice(CONTENT_TYPES), default=CONTENT_TYPES[0], show_default=True)
@click.option("--timeout", type=click.IntRange(min=1), default=86_400, show_default=True, help="Seconds it may last.")
@click.option("--status-url", default="", help="Address that Vobiz tells what becomes of the stream.")
@click.option("--header", "headers", multiple=True, metavar="K=V", help="Comes back in what it tells as X-VH-K.")
def start(
    call: str,
    url: str,
    track: Any,
    bidirectional: bool,
    content_type: Any,
    timeout: int,
    status_url: str,
    headers: tuple[str, ...],
) -> None:
    """Fork the audio of CALL to an address; prints the stream's id."""
    from ..vobiz import StreamRequest

    if not all("=" in header for header in headers):
        raise click.UsageError("--header takes K=V, as in clinic=7")
    try:
        request = StreamRequest(
            url,
            track or ("inbound" if bidirectional else "both"),
            bidirectional,
            content_type,
            timeout,
            status_url,
            extra_headers=dict(header.split("=", 1) for header in headers),
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None

    async def ask(client: Client) -> None:
        click.echo((await client.start_stream(call, request)).stream_id)

    _run(ask)


@stream.command("list")
@click.argument("call")
def list_(call: str) -> None:
    """List the streams of CALL, running and ended, as JSON, one a line."""

    async def ask(client: Client) -> None:
        async for each in client.streams(call):
            click.echo(_json(each))

    _run(ask)


@stream.command()
@click.argument("call")
@click.argument("stream")
def get(call: str, stream: str) -> None:
    """Show one stream of CALL as JSON."""

    async def ask(client: Client) -> None:
        click.echo(_json(await client.stream(call, stream)))

    _run(ask)


@stream.command()
@click.argument("call")
@click.argument("stream")
def stop(call: str, stream: str) -> None:
    """Stop one stream of CALL; the call goes on."""
    _run(lambda client: client.stop_stream(call, stream))


@stream.command()
@click.argument("call")
def stop_all(call: str) -> None:
    """Stop all streams of CALL; the call goes on."""
    _run(lambda client: client.stop_streams(call))


@call.command()
@click.option("--from", "caller", required=True, help="Number of yours that calls.")
@click.option("--to", "callee", required=True, help="Number to ring.")
@click.option("--answer-url", required=True, help="Address that says what happens when it is answered.")
@click.option("--hangup-url", default="", help="Address that is told when it is over.")
@click.option("--time-limit", type=click.IntRange(min=1), default=14_400, show_default=True, help="Seconds.")
def make(caller: str, callee: str, answer_url: str, hangup_url: str, time_limit: int) -> None:
    """Ring somebody up; prints the call's id."""
    from ..vobiz import CallRequest

    try:
        request = CallRequest(
            caller=caller, callee=callee, answer_url=answer_url, hangup_url=hangup_url, time_limit_s=time_limit
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None

    async def ask(client: Client) -> None:
        click.echo((await client.make_call(request)).call_uuid)

    _run(ask)


@call.command()
@click.argument("call")
def hang_up(call: str) -> None:
    """End CALL."""

    async def ask(client: Client) -> None:
        if not await client.hang_up(call):
            click.echo("it was over already")

    _run(ask)


def _run(ask: Callable[[Client], Awaitable[None]]) -> None:
    """Do ``ask`` with a client for the account that the environment names; say in a line what went wrong."""
    import anyio

    from .. import vobiz
    from ..component import Secret
    from ..errors import MediaflowError

    wanted = ("VOBIZ_AUTH_ID", "VOBIZ_AUTH_TOKEN")
    missing = [name for name in wanted if not os.environ.get(name)]
    if missing:
        click.echo(f"mediaflow: {' and '.join(missing)} must be set: the console of Vobiz shows both", err=True)
        sys.exit(2)
    credentials = vobiz.Credentials(os.environ[wanted[0]], Secret(os.environ[wanted[1]]))

    async def main() -> None:
        async with vobiz.connect(credentials, os.environ.get("VOBIZ_BASE_URL") or vobiz.BASE_URL) as client:
            await ask(client)

    try:
        anyio.run(main)
    except ValueError as error:  # an id that is empty
        raise click.UsageError(str(error)) from None
    except MediaflowError as error:
        click.echo(f"mediaflow: {error}", err=True)
        sys.exit(1)


def _json(info: StreamInfo) -> str:
    """Show a stream; of its address only where it leads, for the rest of it is a secret."""
    import msgspec

    from ..vobiz import public

    fields = msgspec.structs.asdict(info) | {"service_url": public(info.service_url.reveal())}
    return msgspec.json.encode(fields).decode()
