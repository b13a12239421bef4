"""WebSockets on asyncio and on trio, behind one small interface.

This is the one file that knows the ``websockets`` library.  The library has an implementation for each backend; both
share their protocol core, and ``connect`` and ``serve`` here choose by the backend that runs.  What differs from the
library's defaults, and why:

* no compression: deflating one 20 ms frame costs 18 µs, twice what carrying it costs, and saves nothing on base64;
* pings wait 60 s for their answer: a service that stores a chunk inside its receive loop does not answer meanwhile;
* no proxy from the environment: where calls go is said in the pipeline and nowhere else.

``send_nowait`` is the way of the hot path: it writes a message without a task switch and refuses once the kernel no
longer takes the bytes, so that the caller can queue.  It needs a transport that takes bytes without waiting, which
asyncio has and trio has not; there it always refuses.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import anyio
from websockets import exceptions as library
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.protocol import State

from .errors import MediaflowError

MAX_MESSAGE = 1 << 20
"""Longest message taken, in bytes.  The longest that a carrier sends is 100 kB (Exotel); a longer one closes 1009."""

WRITE_LIMIT = 64 * 1024
"""Bytes that may wait in the transport before ``send_nowait`` refuses: two seconds of 16 kHz PCM."""

PING_INTERVAL, PING_TIMEOUT, OPEN_TIMEOUT, CLOSE_TIMEOUT = 20.0, 60.0, 10.0, 10.0


class WebSocketError(MediaflowError):
    """What can go wrong with a WebSocket."""


class Unreachable(WebSocketError):
    """Nobody answers there, or not as a WebSocket server does."""


class Refused(WebSocketError):
    """The server answered the handshake with HTTP ``status``."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(f"the server refused the WebSocket with HTTP status {status}")


class Closed(WebSocketError):
    """The connection is closed.

    ``by`` tells three different things apart: ``us``, ``peer`` (a closing handshake, whatever its code), ``broken``
    (the connection was lost without one: code 1006).
    """

    def __init__(self, code: int, reason: str, by: Literal["us", "peer", "broken"]) -> None:
        self.code, self.reason, self.by = code, reason, by
        super().__init__(f"WebSocket closed with code {code} ({by}){f': {reason}' if reason else ''}")


def _closed(error: library.ConnectionClosed) -> Closed:
    if error.rcvd is not None and (error.rcvd_then_sent or error.sent is None):
        return Closed(error.rcvd.code, error.rcvd.reason, "peer")
    if error.sent is not None:
        return Closed(error.sent.code, error.sent.reason, "us")
    return Closed(1006, "", "broken")


class WebSocket:
    """An open connection.  One task may receive while another sends."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._transport = getattr(connection, "transport", None)

    @property
    def path(self) -> str:
        """Path and query of the request that opened the connection."""
        return str(self._connection.request.path)

    async def recv(self) -> str | bytes:
        """Return the next message; raise ``Closed`` at the end."""
        try:
            message: str | bytes = await self._connection.recv()
        except library.ConnectionClosed as error:
            raise _closed(error) from None
        return message

    async def send(self, message: str | bytes) -> None:
        """Send a text message (str) or a binary one (bytes), waiting for room; raise ``Closed`` at the end."""
        try:
            await self._connection.send(message)
        except library.ConnectionClosed as error:
            raise _closed(error) from None

    def send_nowait(self, message: str | bytes) -> bool:
        """Send a message if that needs no waiting, else return False."""
        transport, protocol = self._transport, self._connection.protocol
        if transport is None or protocol.state is not State.OPEN or transport.get_write_buffer_size() > WRITE_LIMIT:
            return False
        if isinstance(message, str):
            protocol.send_text(message.encode())
        else:
            protocol.send_binary(message)
        self._connection.send_data()
        return True

    async def ping(self) -> None:
        """Send a ping and wait for its pong: the peer has then read everything sent before."""
        try:
            if self._transport is None:
                await _trio_pong(self._connection)
            else:
                await (await self._connection.ping())
        except library.ConnectionClosed as error:
            raise _closed(error) from None

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close with a handshake; no error if it is closed already."""
        close = self._connection.aclose if self._transport is None else self._connection.close
        await close(code, reason)

    async def wait_closed(self) -> Closed:
        """Wait until the peer closes, ignoring what it still sends, and return how it did."""
        try:
            while True:
                await self.recv()
        except Closed as closed:
            return closed


async def _trio_pong(connection: Any) -> None:
    # Without ack_on_close the event is never set when the connection is lost.
    received = await connection.ping(ack_on_close=True)
    await received.wait()
    if connection.protocol.state is not State.OPEN:
        raise connection.protocol.close_exc


def _on_trio() -> bool:
    trio = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_run()


@asynccontextmanager
async def connect(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    open_timeout: float = OPEN_TIMEOUT,
    max_message: int = MAX_MESSAGE,
) -> AsyncIterator[WebSocket]:
    """Connect to a ``ws://`` or ``wss://`` URL; leaving the block closes.  Raises ``Refused`` or ``Unreachable``."""
    options: dict[str, Any] = {
        "additional_headers": dict(headers or {}),
        "compression": None,
        "proxy": None,
        "open_timeout": open_timeout,
        "ping_interval": PING_INTERVAL,
        "ping_timeout": PING_TIMEOUT,
        "close_timeout": CLOSE_TIMEOUT,
        "max_size": max_message,
        "user_agent_header": "mediaflow",
    }
    if tls is not None:
        options["ssl"] = tls
    if _on_trio():
        from websockets.trio.client import connect as trio_connect

        connecting: Any = trio_connect(url, **options)
    else:
        from websockets.asyncio.client import connect as asyncio_connect

        connecting = asyncio_connect(url, **options)
    try:
        connection = await connecting.__aenter__()
    except library.InvalidStatus as error:
        raise Refused(error.response.status_code) from None
    except (OSError, TimeoutError, library.WebSocketException) as error:
        raise Unreachable(f"{_place(url)}: {error or type(error).__name__}") from None
    try:
        yield WebSocket(connection)
    finally:
        await connecting.__aexit__(None, None, None)


def _place(url: str) -> str:
    """Scheme, host and port of ``url``: its path may be a capability and stays out of messages."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


class Address(NamedTuple):
    """What a URL to listen at says."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str, schemes: tuple[str, ...] = ("ws", "wss")) -> Address:
        """Take ``scheme://host:port/path`` apart; raise ValueError with what is missing."""
        parts = urlsplit(url)
        if parts.scheme not in schemes:
            raise ValueError(f"{url!r} is not a {' or '.join(f'{s}://' for s in schemes)} address")
        if not parts.hostname:
            raise ValueError(f"{url!r} names no host to listen on")
        if parts.port is None:
            raise ValueError(f"{url!r} names no port, as in {parts.scheme}://{parts.hostname}:8080")
        return cls(parts.scheme, parts.hostname, parts.port, parts.path.rstrip("/"))

    @property
    def is_loopback(self) -> bool:
        """True if only this machine can reach it."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    def url(self, port: int) -> str:
        """Return the URL with the port that was really bound."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{port}{self.path}"


class Answer(NamedTuple):
    """A plain HTTP answer given in the place of an upgrade."""

    status: int
    text: str
    content_type: str = "text/plain; charset=utf-8"


Admit = Callable[[str], Answer | None]
"""Look at the path of a request before the upgrade: None lets it in, an ``Answer`` is sent instead."""


def _admission(admit: Admit) -> Callable[[Any, Request], Response | None]:
    def process_request(_connection: Any, request: Request) -> Response | None:
        answer = admit(request.path)
        if answer is None:
            return None
        body = answer.text.encode()
        headers = Headers(
            {"Content-Type": answer.content_type, "Content-Length": str(len(body)), "Connection": "close"}
        )
        return Response(answer.status, "", headers, body)

    return process_request


async def serve(
    handler: Callable[[WebSocket], Awaitable[None]],
    address: Address,
    *,
    admit: Admit,
    listening: Callable[[int], None],
    tls: ssl.SSLContext | None = None,
    max_message: int = MAX_MESSAGE,
) -> None:
    """Take connections at ``address`` until cancelled, each in a task of its own that runs ``handler``.

    ``listening`` is called with the port once connections are taken.  When this is cancelled, no more are, every
    handler is cancelled, and this returns when all of them are done: what they shield is finished.
    """
    options: dict[str, Any] = {
        "host": address.host,
        "port": address.port,
        "ssl": tls,
        "compression": None,
        "process_request": _admission(admit),
        "open_timeout": OPEN_TIMEOUT,
        "ping_interval": PING_INTERVAL,
        "ping_timeout": PING_TIMEOUT,
        "close_timeout": CLOSE_TIMEOUT,
        "max_size": max_message,
        "server_header": "mediaflow",
    }
    if _on_trio():
        await _serve_trio(handler, listening, options)
    else:
        await _serve_asyncio(handler, listening, options)


async def _serve_trio(
    handler: Callable[[WebSocket], Awaitable[None]], listening: Callable[[int], None], options: dict[str, Any]
) -> None:
    import trio
    from websockets.trio.server import serve as trio_serve

    async with trio.open_nursery() as nursery:
        server = await nursery.start(lambda **start: trio_serve(lambda c: handler(WebSocket(c)), **options, **start))
        listening(server.listeners[0].socket.getsockname()[1])


async def _serve_asyncio(
    handler: Callable[[WebSocket], Awaitable[None]], listening: Callable[[int], None], options: dict[str, Any]
) -> None:
    from websockets.asyncio.server import serve as asyncio_serve

    scopes: set[anyio.CancelScope] = set()

    async def run(connection: Any) -> None:
        # The library starts this task itself, outside our task group: the scope is how a stop reaches it.
        with anyio.CancelScope() as scope:
            scopes.add(scope)
            try:
                await handler(WebSocket(connection))
            finally:
                scopes.discard(scope)

    server = await asyncio_serve(run, **options)
    try:
        listening(next(iter(server.sockets)).getsockname()[1])
        await anyio.sleep_forever()
    finally:
        server.close(close_connections=False)
        for scope in scopes:
            scope.cancel()
        with anyio.CancelScope(shield=True):
            await server.wait_closed()
