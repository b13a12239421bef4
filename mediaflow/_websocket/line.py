"""The line of a WebSocket on a socket of our own, plain or with TLS; the same on every event loop.

No task and no future stands between the poller and the WebSocket, nor an object of the event loop: what is ready is
read, given on, and what was sent for it is written when the turn is over (``hub``).  All connections of an event loop
read into one buffer; what was read is copied out within that call.  What the kernel does not take waits here, and goes
out when there is room.

A line has one reader at a time: first the opening handshake, whose leftovers the connection does not carry along, then
the WebSocket.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Protocol

import anyio
from anyio.abc import TaskGroup

from .._wire.poller import BROKEN, NOTHING
from ..listening import serve as accept
from .acks import FIRST, acknowledge_less
from .core import CLOSE_TIMEOUT, OPEN_TIMEOUT, WRITE_LIMIT, WebSocket
from .hub import Hub, Member, current
from .opening import Admit, ClientOpening, Outcome, ServerOpening, parse
from .tls import Tls

CONNECT_TIMEOUT = 3.0
"""Seconds for one address of a host: behind one that does not answer there may be one that does."""


class Reader(Protocol):
    """Who is given what a line reads."""

    def received(self, data: bytearray, size: int, /) -> None:
        """Take the first ``size`` bytes of ``data``, which is used again."""

    def expired(self) -> None:
        """The deadline has come."""

    def lost(self) -> None:
        """The line has ended."""


class Line(Member):
    """An open connection; ``sock`` is non-blocking and becomes the line's."""

    def __init__(self, fd: int, hub: Hub, sock: socket.socket, tls: Tls | None) -> None:
        super().__init__(fd, hub)
        self._sock, self._tls = sock, tls
        self._poller, self._buffer = hub.poller, hub.poller.buffer
        self._reader: Reader | None = None
        self.socket: WebSocket | None = None
        self.failure: Exception | None = None
        """What was wrong with TLS."""
        self._backlog: list[bytes] = []
        self._waiting = 0  # bytes of it
        self._room: anyio.Event | None = None
        self._reads = self._reads_left = FIRST
        self._paused = self._ending = self._ended = self._broken = self._over = self._lost = False
        self.full = False

    def open(self, reader: Reader) -> None:
        """Begin to read; a client begins with TLS too."""
        self._reader = reader
        self.hub.enter(self)
        if self._tls is not None:
            self._tls.shake_hands()
            self._send(self._tls.pending())

    def become(self, path: str, server: bool, max_message: int) -> WebSocket:
        """Return the WebSocket that reads from now on."""
        self.socket = WebSocket(self, path, server=server, max_message=max_message, cork=self.hub.cork)
        self._reader = self.socket
        return self.socket

    # What the hub calls.

    def happened(self, readable: bool, writable: bool) -> None:
        if self._over:
            self._lose()
            return
        if writable and self._backlog:
            self._write_on()
        if not readable or self._lost:
            return
        if not self.readable:
            # The peer has gone and nobody wants to read for now: it is not to be told over and over.
            if not self._backlog:
                self._poller.leave(self)
            return
        size = self._poller.receive(self)
        if size > 0:
            self._reads_left -= 1
            if not self._reads_left:
                self._reads = self._reads_left = acknowledge_less(self._sock, self._reads)
            if self._tls is None:
                self._give(size)
            else:
                self._decrypt(self._tls, size)
        elif size != NOTHING:
            self._end_reading()

    def expired(self) -> None:
        if self._ended:
            self.abort()
        elif self._reader is not None:
            self._reader.expired()

    def _give(self, size: int) -> None:
        if self.socket is not None:
            self.socket.received(self._buffer, size)
        elif self._reader is not None:
            self._reader.received(self._buffer, size)

    def _decrypt(self, tls: Tls, size: int) -> None:
        view = memoryview(self._buffer)
        try:
            tls.feed(view[:size])
            while not self._over and (size := tls.read(view)):
                self._give(size)
        except ssl.SSLError as error:
            self._fail(tls, error)
            return
        self._send(tls.pending())
        if tls.ended:
            self._end_reading()

    def _fail(self, tls: Tls, error: ssl.SSLError) -> None:
        self.failure = error
        self._send(tls.pending())  # the alert that tells the peer
        self.abort()

    def _end_reading(self) -> None:
        """The peer has ended; what still waits to be written has some time, but nothing is added to it."""
        if self._ended:
            return
        self._ended = self.full = True
        if not self._backlog or self._broken:
            self._lose()
        else:
            self._poller.watch(self, False, True)
            self.set_deadline(self.now() + CLOSE_TIMEOUT)

    def _lose(self) -> None:
        if self._lost:
            return
        self._lost = self._over = True
        self.hub.leave(self)
        self._sock.close()
        self._backlog.clear()
        self.full = False
        self._let_go()
        reader, self._reader, self.socket = self._reader, None, None
        if reader is not None:
            reader.lost()

    def broke(self, error: Exception) -> None:
        super().broke(error)
        self.abort()

    # What the WebSocket calls.

    def write(self, data: bytes) -> None:
        """Write, now or as soon as it goes."""
        if self._over or self._ending or self._ended or self._broken:
            return
        if self._tls is not None:
            self._encrypt(self._tls, data)
        else:
            self._send(data)

    def _encrypt(self, tls: Tls, data: bytes) -> None:
        try:
            tls.write(data)
        except ssl.SSLError as error:
            self._fail(tls, error)
        else:
            self._send(tls.pending())

    def _send(self, data: bytes) -> None:
        if self._over or self._broken or not data:
            return
        if not self._backlog:
            sent = self._poller.send(self, data)
            if sent == len(data):
                return
            if sent == BROKEN:
                self._break()
                return
            if sent > 0:
                data = data[sent:]
            self._poller.watch(self, self.readable, True)
        self._backlog.append(data)
        self._waiting += len(data)
        self.full = self._waiting > WRITE_LIMIT

    def _write_on(self) -> None:
        data = b"".join(self._backlog)
        sent = self._poller.send(self, data)
        if sent == BROKEN:
            self._break()
            return
        data = data[max(sent, 0) :]
        self._waiting = len(data)
        self._backlog[:] = [data] if data else []
        if self.full and self._waiting <= WRITE_LIMIT and not self._ended:
            self.full = False
            self._let_go()
        if not data:
            self._poller.watch(self, self.readable, False)
            if self._ended:
                self._lose()
            elif self._ending:
                self._shut()

    def _break(self) -> None:
        """Nothing can be written any more, but there may be something to read, and then the end."""
        self._broken = self.full = True
        self._backlog.clear()
        self._waiting = 0
        if self._paused or self._ended:
            self.abort()
        else:
            self._poller.watch(self, True, False)

    def end(self) -> None:
        """End our direction behind what is written."""
        if self._ending or self._ended or self._over or self._broken:
            return
        self._ending = True
        if self._tls is not None:
            with suppress(ssl.SSLError):
                self._tls.end()
            self._send(self._tls.pending())
        if not self._backlog:
            self._shut()

    def _shut(self) -> None:
        with suppress(OSError):  # of one that is broken, which the poller will tell
            self._sock.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Cut the line; ``lost`` follows in the next turn, for a socket that is shut down is ready."""
        if self._over:
            return
        self._over = self.full = True
        self._backlog.clear()
        self._poller.watch(self, True, False)
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def pause(self) -> None:
        """Stop reading."""
        self._paused = True
        if self._broken:
            self.abort()
        elif not self._over and not self._ended:
            self._poller.watch(self, False, self.writable)

    def resume(self) -> None:
        """Go on reading."""
        self._paused = False
        if not self._over and not self._ended:
            self._poller.watch(self, True, self.writable)

    def now(self) -> float:
        """Return the event loop's time."""
        return self.hub.now()

    async def drain(self) -> None:
        """Wait until the line is not full, or lost."""
        while self.full:
            if self._room is None:
                self._room = anyio.Event()
            await self._room.wait()

    def _let_go(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None


class _Accepted:
    """The server's side of a handshake."""

    def __init__(self, line: Line, admit: Admit, max_message: int) -> None:
        self._line, self._max_message = line, max_message
        self._opening = ServerOpening(admit)
        self._answered = False
        self._socket: WebSocket | None = None
        self._decided = anyio.Event()

    def received(self, data: bytearray, size: int) -> None:
        if not self._answered and (outcome := self._opening.receive(bytes(data[:size]))) is not None:
            self._answer(outcome)

    def _answer(self, outcome: Outcome) -> None:
        self._answered = True
        self._line.write(outcome.answer)
        if outcome.status != 101:
            self._line.end()  # and read on: a socket closed with unread bytes resets the connection
            return
        self._socket = self._line.become(outcome.path, True, self._max_message)
        self._decided.set()
        if outcome.early:
            self._socket.received(outcome.early)

    def expired(self) -> None:
        self._line.abort()

    def lost(self) -> None:
        self._decided.set()

    async def socket(self) -> WebSocket | None:
        """Wait for what becomes of it: None if it was refused, or is lost."""
        try:
            await self._decided.wait()
        except BaseException:
            self._line.abort()
            raise
        return self._socket


class _Connecting:
    """The client's side of a handshake."""

    def __init__(self, line: Line, opening: ClientOpening, max_message: int) -> None:
        self._line, self._opening, self._max_message = line, opening, max_message
        self._failure: Exception | None = None
        self._answered = anyio.Event()
        self._socket: WebSocket | None = None

    def received(self, data: bytearray, size: int) -> None:
        if self._answered.is_set():
            return
        try:
            early = self._opening.receive(bytes(data[:size]))
        except Exception as error:
            self._failure = error
            self._answered.set()
            return
        if early is not None:
            self._answered.set()
            self._socket = self._line.become(self._opening.path, False, self._max_message)
            if early:
                self._socket.received(early)

    def expired(self) -> None:
        self._line.abort()

    def lost(self) -> None:
        if not self._answered.is_set():
            self._failure = self._line.failure or ConnectionError("the connection was closed before the answer")
            self._answered.set()

    async def socket(self) -> WebSocket:
        """Wait for the answer."""
        await self._answered.wait()
        if self._failure is not None:
            raise self._failure
        assert self._socket is not None
        return self._socket


async def _connect(host: str, port: int) -> socket.socket:
    """Connect to the first address of ``host`` that answers; raise OSError."""
    failure: OSError | None = None
    for family, kind, protocol, _, address in await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = sock.connect_ex(address)
            if code == errno.EINPROGRESS:
                with anyio.fail_after(CONNECT_TIMEOUT):
                    await anyio.wait_writable(sock)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
            return sock
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    raise failure or OSError("the host has no address")


async def open_url(
    url: str, headers: Mapping[str, str], tls: ssl.SSLContext | None, max_message: int
) -> AbstractAsyncContextManager[WebSocket]:
    """Open a connection, to be closed by leaving the block; raises OSError, ``Refused`` or ``Unreachable``."""
    return _leaving(await open_in(None, url, headers, tls, max_message))


async def open_in(
    tasks: TaskGroup | None, url: str, headers: Mapping[str, str], tls: ssl.SSLContext | None, max_message: int
) -> WebSocket:
    """Open a connection, to be closed with ``leave``; it needs no task of ``tasks``.  Raises as ``open_url``."""
    uri = parse(url)
    secure = Tls(tls or ssl.create_default_context(), uri.host) if uri.secure else None
    opening = ClientOpening(uri, headers)
    sock = await _connect(uri.host, uri.port)
    line = Line(sock.fileno(), current(), sock, secure)
    connecting = _Connecting(line, opening, max_message)
    try:
        line.open(connecting)
        line.write(opening.request)
        return await connecting.socket()
    except BaseException:
        line.abort()
        raise


@asynccontextmanager
async def _leaving(socket: WebSocket) -> AsyncIterator[WebSocket]:
    code = 1001  # going away: the block was cancelled, or left by an exception
    try:
        yield socket
        code = 1000
    finally:
        await socket.leave(code)


async def over_line(sock: socket.socket, server: bool, max_message: int) -> AbstractAsyncContextManager[WebSocket]:
    """Speak WebSocket, without a handshake, over a Unix socket; leaving the block closes."""
    sock.setblocking(False)
    line = Line(sock.fileno(), current(), sock, None)
    line.open(line.become("", server, max_message))
    assert line.socket is not None
    return _leaving(line.socket)


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

    async def connected(sock: socket.socket) -> None:
        opened = await _accept(sock, tls, admit, max_message)
        if opened is not None:
            await run(opened)

    await accept(connected, host, port, listening)


async def _accept(sock: socket.socket, tls: ssl.SSLContext | None, admit: Admit, max_message: int) -> WebSocket | None:
    hub = current()
    line = Line(sock.fileno(), hub, sock, None if tls is None else Tls(tls, None))
    accepted = _Accepted(line, admit, max_message)
    line.open(accepted)
    line.set_deadline(hub.now() + OPEN_TIMEOUT)
    return await accepted.socket()
