"""WebSockets on asyncio and on trio, behind one small interface.

This file and ``_websocket_stream`` are the only ones that know the ``websockets`` library.  There are three ways to a
``WebSocket``:

    connect(url)            we open it         ┐ the library's implementation for the backend that runs
    serve(handler, …)       a port of its own  ┘
    accept(stream, …)       a request that our HTTP listener took asks to become one: the library's protocol core,
                            which does no I/O, over the listener's byte stream

What differs from the library's defaults, and why:

* no compression: deflating one 20 ms frame costs 18 µs, twice what carrying it costs, and saves nothing on base64;
* pings wait 60 s for their answer: a service that stores a chunk inside its receive loop does not answer meanwhile;
* no proxy from the environment: where calls go is said in the pipeline and nowhere else;
* no debug log: it would show every message, and paths that are capabilities.

``send_nowait`` is the way of the hot path: it writes a message without a task switch and refuses once the kernel no
longer takes the bytes, so that the caller can queue.  It needs a transport that takes bytes without waiting, which
asyncio has and trio has not; there it always refuses.
"""

from __future__ import annotations

import logging
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import anyio
from anyio.abc import ByteStream
from websockets import exceptions as library
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from ._websocket_stream import StreamConnection
from .errors import MediaflowError

MAX_MESSAGE = 1 << 20
"""Longest message taken, in bytes.  The longest that a carrier sends is 100 kB (Exotel); a longer one closes 1009."""

WRITE_LIMIT = 64 * 1024
"""Bytes that may wait in the transport before ``send_nowait`` refuses: two seconds of 16 kHz PCM."""

PING_INTERVAL, PING_TIMEOUT, OPEN_TIMEOUT, CLOSE_TIMEOUT = 20.0, 60.0, 10.0, 10.0

ABORT_TIMEOUT = 1.0
"""Seconds for the closing handshake when the block of a connection is left by an exception."""

MAX_WAITING = 16
"""Messages that may wait for ``recv`` before we stop reading, as in the library."""

_logger = logging.getLogger(f"{__name__}.library")
_logger.setLevel(logging.WARNING)


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
        self._receiving = False

    @property
    def path(self) -> str:
        """Path and query of the request that opened the connection."""
        return str(self._connection.request.path)

    async def recv(self) -> str | bytes:
        """Return the next message; raise ``Closed`` at the end."""
        self._receiving = True
        try:
            message: str | bytes = await self._connection.recv()
        except library.ConnectionClosed as error:
            raise _closed(error) from None
        finally:
            self._receiving = False
        return message

    def _check(self) -> None:
        # The library aborts the transport once more before it raises, which a finished asyncio transport cannot bear.
        if self._connection.protocol.state is State.CLOSED:
            raise _closed(self._connection.protocol.close_exc)

    async def send(self, message: str | bytes) -> None:
        """Send a text message (str) or a binary one (bytes), waiting for room; raise ``Closed`` at the end."""
        self._check()
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
        self._check()
        try:
            if self._transport is None:
                await _pong(self._connection)
            else:
                await (await self._connection.ping())
        except library.ConnectionClosed as error:
            raise _closed(error) from None

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close with a handshake; no error if it is closed already.

        What the peer still sends is thrown away: behind messages that nobody reads, the library would not see the
        peer's answer.
        """
        if self._connection.protocol.state is State.CLOSED:
            return
        close = self._connection.aclose if self._transport is None else self._connection.close
        async with anyio.create_task_group() as tasks:
            if not self._receiving:
                tasks.start_soon(self.wait_closed)
            await close(code, reason)
            tasks.cancel_scope.cancel()

    async def abort(self) -> None:
        """Cut the line without a handshake, as a crash does; no error if it is closed already."""
        if self._connection.protocol.state is not State.CLOSED:
            await _cut(self._connection)

    async def wait_closed(self) -> Closed:
        """Wait until the peer closes, ignoring what it still sends, and return how it did."""
        try:
            while True:
                await self.recv()
        except Closed as closed:
            return closed


async def _pong(connection: Any) -> None:
    # Without ack_on_close the event is never set when the connection is lost.
    received = await connection.ping(ack_on_close=True)
    await received.wait()
    if connection.protocol.state is not State.OPEN:
        await connection.wait_closed()
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
        "logger": _logger,
    }
    if tls is not None:
        options["ssl"] = tls
    opened = _opened_on_trio if _on_trio() else _opened_on_asyncio
    async with AsyncExitStack() as stack:
        try:
            connection = await stack.enter_async_context(opened(url, options))
        except library.InvalidStatus as error:
            raise Refused(error.response.status_code) from None
        except library.InvalidURI as error:  # whose own text repeats the URL
            raise Unreachable(f"{_place(url)}: not a WebSocket URL: {error.msg}") from None
        except (OSError, TimeoutError, library.WebSocketException) as error:
            raise Unreachable(f"{_place(url)}: {error or type(error).__name__}") from None
        clean = False
        try:
            yield WebSocket(connection)
            clean = True
        finally:
            with anyio.move_on_after(CLOSE_TIMEOUT if clean else ABORT_TIMEOUT, shield=not clean):
                await WebSocket(connection).close(1000 if clean else 1001)
            if connection.protocol.state is not State.CLOSED:
                with anyio.CancelScope(shield=True):
                    await _cut(connection)


@asynccontextmanager
async def _opened_on_asyncio(url: str, options: dict[str, Any]) -> AsyncIterator[Any]:
    from websockets.asyncio.client import connect as asyncio_connect

    yield await asyncio_connect(url, **options)


@asynccontextmanager
async def _opened_on_trio(url: str, options: dict[str, Any]) -> AsyncIterator[Any]:
    import trio
    from websockets.trio.client import connect as trio_connect

    released = trio.Event()

    async def hold(task_status: Any) -> None:
        # The library reads in the task that connects.  Shielded, it goes on while a user that is cancelled still has
        # last words to say.
        with trio.CancelScope() as scope:
            try:
                async with trio_connect(url, **options) as connection:
                    scope.shield = True
                    task_status.started(connection)
                    await released.wait()
            except trio.BrokenResourceError as error:  # so Trio tells of a failed TLS handshake
                raise OSError(str(error.__cause__ or "the TLS handshake failed")) from None

    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield await nursery.start(hold)
        except Exception as error:
            failure = error
        finally:
            released.set()
    if failure is not None:
        raise failure  # here, where the nursery does not wrap it


async def _cut(connection: Any) -> None:
    """Close the line without a handshake."""
    transport = getattr(connection, "transport", None)
    if transport is not None:
        transport.abort()
        await connection.wait_closed()
    else:
        import trio

        await trio.aclose_forcefully(connection.stream)


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
        "logger": _logger,
    }
    scopes: set[anyio.CancelScope] = set()

    async def run(connection: Any) -> None:
        # The library starts the tasks of the handlers itself: the scope is how a stop reaches them, and only them.
        with anyio.CancelScope() as scope:
            scopes.add(scope)
            try:
                await handler(WebSocket(connection))
            finally:
                scopes.discard(scope)
        if scope.cancelled_caught:
            await WebSocket(connection).close(1001)

    serving = _serving_on_trio if _on_trio() else _serving_on_asyncio
    async with serving(run, options) as port:
        try:
            listening(port)
            await anyio.sleep_forever()
        finally:
            for scope in scopes:
                scope.cancel()


@asynccontextmanager
async def _serving_on_asyncio(run: Callable[[Any], Awaitable[None]], options: dict[str, Any]) -> AsyncIterator[int]:
    from websockets.asyncio.server import serve as asyncio_serve

    server = await asyncio_serve(run, **options)
    try:
        yield next(iter(server.sockets)).getsockname()[1]
    finally:
        server.close(close_connections=False)
        with anyio.CancelScope(shield=True):
            await server.wait_closed()


@asynccontextmanager
async def _serving_on_trio(run: Callable[[Any], Awaitable[None]], options: dict[str, Any]) -> AsyncIterator[int]:
    import trio
    from websockets.trio.server import serve as trio_serve

    # Opened here, since the nursery would wrap what can go wrong.
    listeners = await trio.open_tcp_listeners(options.pop("port"), host=options.pop("host"))

    async def shielded(task_status: Any) -> None:
        with trio.CancelScope(shield=True):
            await trio_serve(run, listeners=listeners, **options, task_status=task_status)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(shielded)
        try:
            yield listeners[0].socket.getsockname()[1]
        finally:
            with trio.CancelScope(shield=True):
                await server.aclose(close_connections=False)


@asynccontextmanager
async def accept(
    stream: ByteStream,
    path: str,
    headers: Iterable[tuple[str, str]],
    *,
    early: bytes = b"",
    max_message: int = MAX_MESSAGE,
) -> AsyncIterator[WebSocket]:
    """Answer the upgrade request that an HTTP listener took from ``stream``; leaving the block closes.

    ``early`` is what came behind the request already.  A request that is no proper WebSocket handshake is answered with
    the HTTP status that says so, and ``Refused`` is raised.
    """
    request = Request(path, Headers(headers))
    protocol = ServerProtocol(max_size=max_message, logger=_logger)
    protocol.receive_data(request.serialize())
    protocol.events_received()
    response = protocol.accept(request)
    response.headers["Server"] = "mediaflow"
    protocol.send_response(response)
    await stream.send(protocol.data_to_send()[0])
    if response.status_code != 101:
        raise Refused(response.status_code)
    connection = StreamConnection(stream, protocol, request, MAX_WAITING, CLOSE_TIMEOUT)
    websocket = WebSocket(connection)
    code = 1001  # going away: the block was cancelled
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(connection.read, early)
        tasks.start_soon(connection.keep_alive, PING_INTERVAL, PING_TIMEOUT)
        try:
            yield websocket
            code = 1000
        except Exception as error:
            failure, code = error, 1011
        finally:
            with anyio.move_on_after(CLOSE_TIMEOUT if code == 1000 else ABORT_TIMEOUT, shield=code != 1000):
                await websocket.close(code)
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure  # here, where the task group does not wrap it
