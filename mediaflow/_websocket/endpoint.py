"""Both ends of a WebSocket on a line of our own: who listens and accepts, and who connects.

The opening handshake is the line's reader until it is done; the connection does not carry its leftovers along.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
from anyio.abc import TaskGroup

from ..listening import serve as accept
from .core import OPEN_TIMEOUT, WebSocket
from .hub import current
from .line import Line
from .opening import Admit, ClientOpening, Outcome, ServerOpening, parse
from .tls import Tls

CONNECT_TIMEOUT = 3.0
"""Seconds for an address of a host that has another: behind one that does not answer there may be one that does."""


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
    failure = OSError("the host has no address")
    left = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    while left:
        family, kind, protocol, _, address = left.pop(0)
        try:
            with anyio.fail_after(CONNECT_TIMEOUT if left else None):
                return await _reach(socket.socket(family, kind, protocol), address)
        except OSError as error:
            failure = error
    raise failure


async def _reach(sock: socket.socket, address: Any) -> socket.socket:
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = sock.connect_ex(address)
        if code == errno.EINPROGRESS:
            await anyio.wait_writable(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


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
    """Take connections until cancelled, and give each to ``run`` in a task of its own; carried ones outlast it."""

    async def connected(sock: socket.socket) -> WebSocket | None:
        opened = await _accept(sock, tls, admit, max_message)
        if opened is None:
            return None
        await run(opened)
        return opened if opened.carried else None

    await accept(connected, host, port, listening)


async def _accept(sock: socket.socket, tls: ssl.SSLContext | None, admit: Admit, max_message: int) -> WebSocket | None:
    hub = current()
    line = Line(sock.fileno(), hub, sock, None if tls is None else Tls(tls, None))
    accepted = _Accepted(line, admit, max_message)
    line.open(accepted)
    line.set_deadline(hub.now() + OPEN_TIMEOUT)
    return await accepted.socket()
