"""The line of a WebSocket on asyncio: a protocol that the event loop calls with what it read.

No task and no future stands between the loop and the WebSocket, and there is one timer per connection for all
deadlines.  The opening handshake has a protocol of its own, so an open connection does not carry its leftovers along.
TLS is the loop's; stock asyncio and uvloop both do.

All connections of a thread read into one buffer: the loop asks for it, reads, and says so in one go, and what was read
is copied out within that call.  Left to itself, stock asyncio makes 256 KiB of new memory for every read, which took
14 µs with the read where this takes 2.
"""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, cast

from ._websocket_core import OPEN_TIMEOUT, WRITE_LIMIT, WebSocket
from ._websocket_opening import Admit, ClientOpening, Outcome, ServerOpening, parse
from .listening import serve as accept


class _Shared(threading.local):
    def __init__(self) -> None:
        self.buffer = bytearray(64 * 1024)
        self.view = memoryview(self.buffer)  # what loops are given: asyncio's TLS reads into slices of it


_shared = _Shared()


class _Line:
    """An open connection, but for the name of its base."""

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, path: str, server: bool, max_message: int
    ) -> None:
        self._transport, self._loop = transport, loop
        self._is_closing, self._write = transport.is_closing, transport.write
        self._buffer, self._view = _shared.buffer, _shared.view
        self._room: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf
        self.full = False
        self.socket = WebSocket(self, path, server=server, max_message=max_message)
        transport.set_write_buffer_limits(high=WRITE_LIMIT)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        self.socket.received(self._buffer, nbytes)

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        self._let_go()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.full = False
        self._let_go()
        self.socket.lost()

    def _let_go(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def write(self, data: bytes) -> None:
        """Write, now or as soon as it goes."""
        if self._is_closing():
            self.full = True  # up to `connection_lost`
        else:
            self._write(data)

    def end(self) -> None:
        """End our direction; a TLS connection closes as a whole."""
        if self._transport.is_closing():
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def abort(self) -> None:
        """Cut the line."""
        self._transport.abort()

    def pause(self) -> None:
        """Stop reading."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Go on reading."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def now(self) -> float:
        """Return the loop's time."""
        return self._loop.time()

    def set_deadline(self, deadline: float) -> None:
        """Call ``expired`` at that time."""
        self._due = deadline
        if self._timer is None or deadline < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(deadline, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        if self._loop.time() < self._due:
            self.set_deadline(self._due)
        else:
            self.socket.expired()

    async def drain(self) -> None:
        """Wait until the line is not full, or lost."""
        while self.full:
            if self._room is None or self._room.done():
                self._room = self._loop.create_future()
            await asyncio.shield(self._room)  # others may wait for it too


class TransportLine(_Line, asyncio.BufferedProtocol):
    """An open connection."""

    __slots__ = ()

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, path: str, server: bool, max_message: int
    ) -> None:
        super().__init__(transport, loop, path, server, max_message)
        transport.set_protocol(self)


class _Opening(asyncio.Protocol):
    """A connection up to its handshake."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def abort(self) -> None:
        """Cut the line."""
        if self._transport is not None:
            self._transport.abort()


class _ServerOpening(_Opening):
    def __init__(self, admit: Admit, max_message: int) -> None:
        super().__init__()
        self._opening = ServerOpening(admit)
        self._max_message = max_message
        self._answered = False
        self._opened: asyncio.Future[WebSocket | None] = self._loop.create_future()
        self._timer = self._loop.call_later(OPEN_TIMEOUT, self.abort)

    async def outcome(self) -> WebSocket | None:
        """Wait for what becomes of it: None if it was refused, or is lost."""
        try:
            return await self._opened
        except BaseException:
            if self._opened.cancelled():
                self.abort()
            elif (socket := self._opened.result()) is not None:  # in this very moment
                await socket.leave(1001)
            raise

    def data_received(self, data: bytes) -> None:
        if not self._answered and (outcome := self._opening.receive(data)) is not None:
            self._answer(outcome)

    def _answer(self, outcome: Outcome) -> None:
        assert self._transport is not None
        self._answered = True
        self._transport.write(outcome.answer)
        if outcome.status == 101:
            self._timer.cancel()
            line = TransportLine(self._transport, self._loop, outcome.path, True, self._max_message)
            self._end(line.socket)
            if outcome.early:
                line.socket.received(outcome.early)
        elif self._transport.can_write_eof():
            self._transport.write_eof()  # and read on: a socket closed with unread bytes resets the connection
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._end(None)

    def _end(self, outcome: WebSocket | None) -> None:
        if not self._opened.done():
            self._opened.set_result(outcome)


class _ClientOpening(_Opening):
    def __init__(self, opening: ClientOpening, max_message: int) -> None:
        super().__init__()
        self._opening, self._max_message = opening, max_message
        self.opened: asyncio.Future[WebSocket] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        cast(asyncio.Transport, transport).write(self._opening.request)

    def data_received(self, data: bytes) -> None:
        if self.opened.done():
            return
        assert self._transport is not None
        try:
            early = self._opening.receive(data)
        except Exception as error:
            self.opened.set_exception(error)
            return
        if early is not None:
            line = TransportLine(self._transport, self._loop, self._opening.path, False, self._max_message)
            self.opened.set_result(line.socket)
            if early:
                line.socket.received(early)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(exc or ConnectionError("the connection was closed before the answer"))
            self.opened.exception()  # whoever connects may have been cancelled before it waits: asyncio would complain


async def open_url(
    url: str, headers: Mapping[str, str], tls: ssl.SSLContext | None, max_message: int
) -> AbstractAsyncContextManager[WebSocket]:
    """Open a connection, to be closed by leaving the block; raises OSError, ``Refused`` or ``Unreachable``."""
    uri = parse(url)
    secure: dict[str, Any] = {}
    if uri.secure:
        secure = {"ssl": tls or ssl.create_default_context(), "server_hostname": uri.host}
    opening = ClientOpening(uri, headers)
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_connection(
        lambda: _ClientOpening(opening, max_message), uri.host, uri.port, **secure
    )
    try:
        return _leaving(await protocol.opened)
    except BaseException:
        protocol.abort()
        raise


@asynccontextmanager
async def _leaving(socket: WebSocket) -> AsyncIterator[WebSocket]:
    code = 1001  # going away: the block was cancelled, or left by an exception
    try:
        yield socket
        code = 1000
    finally:
        await socket.leave(code)


class _Joining(_Opening):
    """A line between two processes of ours, which is open from the beginning."""

    def __init__(self, server: bool, max_message: int) -> None:
        super().__init__()
        self._server, self._max_message = server, max_message
        self.socket: WebSocket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        line = TransportLine(cast(asyncio.Transport, transport), self._loop, "", self._server, self._max_message)
        self.socket = line.socket


async def over_line(line: socket.socket, server: bool, max_message: int) -> AbstractAsyncContextManager[WebSocket]:
    """Speak WebSocket, without a handshake, over a Unix socket; leaving the block closes."""
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_unix_connection(lambda: _Joining(server, max_message), sock=line)
    return _leaving(protocol.socket)


async def serve(
    run: Callable[[WebSocket], Coroutine[Any, Any, None]],
    host: str,
    port: int,
    admit: Admit,
    listening: Callable[[int], None],
    tls: ssl.SSLContext | None,
    max_message: int,
) -> None:
    """Take connections until cancelled, and give each to ``run`` in a task of its own."""
    loop = asyncio.get_running_loop()
    secure: dict[str, Any] = {} if tls is None else {"ssl": tls, "ssl_handshake_timeout": OPEN_TIMEOUT}

    async def opened(connection: socket.socket) -> WebSocket | None:
        opening = _ServerOpening(admit, max_message)  # behind TLS uvloop returns another protocol
        try:
            await loop.connect_accepted_socket(lambda: opening, connection, **secure)
        except OSError:  # of which SSLError is one: the peer has left already, or speaks no TLS
            opening.connection_lost(None)
            return None
        return await opening.outcome()

    async def connected(connection: socket.socket) -> None:
        socket = await opened(connection)
        if socket is not None:
            await run(socket)

    await accept(connected, host, port, listening)
