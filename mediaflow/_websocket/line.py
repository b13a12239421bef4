"""The line of a WebSocket on a socket of our own, plain or with TLS; the same on every event loop.

No task and no future stands between the poller and the WebSocket, nor an object of the event loop: what is ready is
read, given on, and what was sent for it is written when the turn is over (``hub``).  All connections of an event loop
read into one buffer; what was read is copied out within that call.  What the kernel does not take waits here, and goes
out when there is room.

A line has one reader at a time: first the opening handshake, whose leftovers the connection does not carry along, then
the WebSocket.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import Protocol

import anyio

from .._wire.poller import BROKEN, NOTHING
from .acks import FIRST, acknowledge_less
from .core import CLOSE_TIMEOUT, WRITE_LIMIT, WebSocket
from .hub import Hub, Member
from .tls import Tls


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
        self._backlog: list[bytes] | None = None  # nearly always
        self._waiting = 0  # bytes of it
        self._room: anyio.Event | None = None
        self._reads = FIRST
        self._reads_left = FIRST // 4 + fd % FIRST  # those that begin together need not be tended together
        self._tended = 0
        self._look_at = 1  # how often tended it looks around next
        self._paused = self._ending = self._ended = self._broken = self._over = self._lost = False
        self.full = False

    def open(self, reader: Reader) -> None:
        """Begin to read; a client begins with TLS too.  Closes and raises OSError if the socket cannot be watched."""
        try:
            self.hub.enter(self)
        except OSError:
            self._over = self._lost = True
            self._sock.close()
            raise
        self._reader = reader
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
        if writable and self._backlog is not None:
            self._write_on(self._backlog)
        if not readable or self._lost or not self.readable:  # a peer that has gone is told anew to who reads on
            return
        size = self._poller.receive(self)
        if size > 0:
            self._reads_left -= 1
            if not self._reads_left:
                self.hub.put_off(self)
            if self._tls is None:
                self._give(size)
            else:
                self._decrypt(self._tls, size)
        elif size != NOTHING:
            self._end_reading()

    def tend(self) -> None:
        """Do what is worth its time, 50 µs, once a connection is used for much, and again now and then."""
        self._reads = self._reads_left = acknowledge_less(self._sock, self._reads)
        self._tended += 1
        if self._tended == self._look_at:
            # Soon again, for the sinks of a call may not have been open yet; then rarely, for it hardly changes: of 60
            # calls no cache line was missing 10 s later.
            self._look_at *= 2 if self._look_at == 1 else 8
            self.look_around()

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
        if self._backlog is None or self._broken:
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
        self._backlog = None
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
        if self._backlog is None:
            sent = self._poller.send(self, data)
            if sent == len(data):
                return
            if sent == BROKEN:
                self._break()
                return
            if sent > 0:
                data = data[sent:]
            self._poller.watch(self, self.readable, True)
            self._backlog = []
        self._backlog.append(data)
        self._waiting += len(data)
        self.full = self._waiting > WRITE_LIMIT

    def _write_on(self, backlog: list[bytes]) -> None:
        data = b"".join(backlog)
        sent = self._poller.send(self, data)
        if sent == BROKEN:
            self._break()
            return
        data = data[max(sent, 0) :]
        self._waiting = len(data)
        self._backlog = [data] if data else None
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
        self._backlog = None
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
        if self._backlog is None:
            self._shut()

    def _shut(self) -> None:
        with suppress(OSError):  # of one that is broken, which the poller will tell
            self._sock.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Cut the line; ``lost`` follows in the next turn, for a socket that is shut down is ready."""
        if self._over:
            return
        self._over = self.full = True
        self._backlog = None
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
