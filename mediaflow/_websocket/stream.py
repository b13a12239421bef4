"""The line of a WebSocket over an anyio byte stream: behind an HTTP listener, and where there is no epoll.

One task reads and minds the deadline; a second one writes, and lives only while something waits to be written.  Where
the stream is a plain socket that can be had (trio), the reading task waits until it is readable and then reads, and
what is written goes into the kernel at once as long as it takes it: one system call each per frame.
"""

from __future__ import annotations

import logging
import math
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import anyio
from anyio.abc import ByteStream, SocketAttribute, TaskGroup, UNIXSocketStream
from anyio.streams.tls import TLSStream

from ..errors import report
from ..listening import serve_streams
from .acks import FIRST, acknowledge_less
from .core import CLOSE_TIMEOUT, OPEN_TIMEOUT, WRITE_LIMIT, WebSocket
from .opening import Admit, ClientOpening, Outcome, ServerOpening, parse

LOST = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)

_READ_SIZE = 64 * 1024

logger = logging.getLogger(__name__)


class StreamLine:
    """An open connection; ``read`` has to run as a task of ``tasks``."""

    def __init__(self, stream: ByteStream, tasks: TaskGroup, path: str, server: bool, max_message: int) -> None:
        self._stream, self._tasks = stream, tasks
        raw = stream.extra(SocketAttribute.raw_socket, None) if not isinstance(stream, TLSStream) else None
        self._raw = raw if isinstance(raw, socket.socket) else None
        self._reads = self._reads_left = FIRST
        self._deadline = math.inf
        self._scope: anyio.CancelScope | None = None  # of the reading, up to the deadline
        self._writer: anyio.CancelScope | None = None
        self._backlog: list[bytes] = []
        self._waiting = 0  # bytes of it, and of what is being written
        self._room: anyio.Event | None = None
        self._resumed: anyio.Event | None = None
        self._ending = self._aborted = self._broken = False
        self.full = False
        self.socket = WebSocket(self, path, server=server, max_message=max_message)

    async def read(self, early: bytes) -> None:
        """Read until the connection has ended, also while its user finishes cancelled."""
        with anyio.CancelScope(shield=True):
            try:
                if early:
                    self.socket.received(early)
                while not self._aborted:
                    with anyio.CancelScope(deadline=self._deadline) as self._scope:
                        await self._read_on()
                        break
                    if not self._aborted:
                        self.socket.expired()
            except LOST:
                pass
            finally:
                self._aborted = True
                if self._writer is not None:
                    self._writer.cancel()
                self._backlog.clear()
                self.full = False
                self._let_go()
                self.socket.lost()
                await anyio.aclose_forcefully(self._stream)

    async def _read_on(self) -> None:
        while True:
            if self._resumed is not None:
                await self._resumed.wait()
            try:
                data = await self._receive()
            except BlockingIOError:
                continue
            except anyio.EndOfStream:
                data = b""
            if not data:
                with anyio.move_on_after(CLOSE_TIMEOUT):
                    while self._writer is not None:
                        await self._wait_room()
                return
            self.socket.received(data)

    async def _receive(self) -> bytes:
        if self._raw is None:
            return await self._stream.receive(_READ_SIZE)
        await anyio.wait_readable(self._raw)
        self._reads_left -= 1
        if not self._reads_left:
            self._reads = self._reads_left = acknowledge_less(self._raw, self._reads)
        return self._raw.recv(_READ_SIZE)

    def write(self, data: bytes) -> None:
        """Write, now or as soon as it goes."""
        if self._aborted or self._ending or self._broken:
            return
        if self._raw is not None and self._writer is None:
            try:
                sent = self._raw.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._break()
                return
            if sent == len(data):
                return
            data = data[sent:]
        self._backlog.append(data)
        self._waiting += len(data)
        self.full = self._waiting > WRITE_LIMIT
        self._start_writing()

    def _start_writing(self) -> None:
        if self._writer is None:
            self._writer = anyio.CancelScope(shield=True)
            self._tasks.start_soon(self._write_on, self._writer)

    async def _write_on(self, scope: anyio.CancelScope) -> None:
        with scope:
            try:
                while self._backlog:
                    data = b"".join(self._backlog)
                    self._backlog.clear()
                    await self._send(data)
                    self._waiting -= len(data)
                    if self.full and self._waiting <= WRITE_LIMIT:
                        self.full = False
                        self._let_go()
                if self._ending:
                    await self._stream.send_eof()
            except NotImplementedError:  # a TLS stream cannot end one direction only
                self.abort()
            except LOST:
                self._break()
        self._writer = None
        self._let_go()

    async def _send(self, data: bytes) -> None:
        if self._raw is None:
            await self._stream.send(data)
            return
        rest = memoryview(data)
        while rest:
            await anyio.wait_writable(self._raw)
            try:
                rest = rest[self._raw.send(rest) :]
            except BlockingIOError:
                continue

    def _break(self) -> None:
        # The reading task may find more to read, and then the end; one that is paused finds nothing.
        self._broken = self.full = True
        if self._resumed is not None:
            self.abort()

    def end(self) -> None:
        """End our direction behind what is written; a TLS connection is cut instead."""
        if not self._ending:
            self._ending = True
            self._start_writing()

    def abort(self) -> None:
        """Cut the line."""
        self._aborted = True
        if self._scope is not None:
            self._scope.cancel()

    def pause(self) -> None:
        """Stop reading."""
        if self._broken:
            self.abort()
        elif self._resumed is None:
            self._resumed = anyio.Event()

    def resume(self) -> None:
        """Go on reading."""
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None

    def now(self) -> float:
        """Return the backend's time."""
        return anyio.current_time()

    def set_deadline(self, deadline: float) -> None:
        """Call ``expired`` at that time."""
        self._deadline = deadline
        if self._scope is not None:
            self._scope.deadline = deadline

    async def drain(self) -> None:
        """Wait until the line is not full, or lost."""
        while self.full:
            await self._wait_room()

    async def _wait_room(self) -> None:
        if self._room is None:
            self._room = anyio.Event()
        await self._room.wait()

    def _let_go(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None


@asynccontextmanager
async def over(
    stream: ByteStream, path: str, *, server: bool, early: bytes, max_message: int
) -> AsyncIterator[WebSocket]:
    """Speak WebSocket over a stream whose handshake is done; leaving the block closes."""
    code = 1001  # going away: the block was cancelled
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        line = StreamLine(stream, tasks, path, server, max_message)
        tasks.start_soon(line.read, early)
        try:
            yield line.socket
            code = 1000
        except Exception as error:
            failure, code = error, 1011 if server else 1001
        finally:
            await line.socket.leave(code)
    if failure is not None:
        raise failure  # here, where the task group does not wrap it


async def open_url(
    url: str, headers: Mapping[str, str], tls: ssl.SSLContext | None, max_message: int
) -> AbstractAsyncContextManager[WebSocket]:
    """Open a connection, to be closed by leaving the block; raises OSError, ``Refused`` or ``Unreachable``."""
    stream, path, early = await _shake_hands(url, headers, tls)
    return over(stream, path, server=False, early=early, max_message=max_message)


async def open_in(
    tasks: TaskGroup | None, url: str, headers: Mapping[str, str], tls: ssl.SSLContext | None, max_message: int
) -> WebSocket:
    """Open a connection that a task of ``tasks`` reads, to be closed with ``leave``; raises as ``open_url``."""
    assert tasks is not None, "connections are read by tasks here"
    stream, path, early = await _shake_hands(url, headers, tls)
    line = StreamLine(stream, tasks, path, False, max_message)
    tasks.start_soon(line.read, early)
    return line.socket


async def _shake_hands(
    url: str, headers: Mapping[str, str], tls: ssl.SSLContext | None
) -> tuple[ByteStream, str, bytes]:
    """Connect; return the stream, the path of the request, and what came behind the answer."""
    uri = parse(url)
    opening = ClientOpening(uri, headers)
    stream: ByteStream = await anyio.connect_tcp(uri.host, uri.port)
    try:
        if uri.secure:
            context = tls or ssl.create_default_context()
            stream = await TLSStream.wrap(stream, hostname=uri.host, ssl_context=context, standard_compatible=False)
        await stream.send(opening.request)
        while (early := opening.receive(await stream.receive())) is None:
            pass
    except BaseException as error:
        await anyio.aclose_forcefully(stream)
        if isinstance(error, anyio.EndOfStream | anyio.BrokenResourceError):
            raise ConnectionError("the connection was closed before the answer") from None
        raise
    return stream, opening.path, early


async def over_line(line: socket.socket, server: bool, max_message: int) -> AbstractAsyncContextManager[WebSocket]:
    """Speak WebSocket, without a handshake, over a Unix socket; leaving the block closes."""
    stream = await UNIXSocketStream.from_socket(line)
    return over(stream, "", server=server, early=b"", max_message=max_message)


async def serve(
    run: Callable[[WebSocket], Coroutine[Any, Any, None]],
    host: str,
    port: int,
    admit: Admit,
    listening: Callable[[int], None],
    tls: ssl.SSLContext | None,
    max_message: int,
) -> None:
    """Take connections until cancelled, and give each to ``run`` in a task of its own, which carried ones keep."""

    async def connected(stream: ByteStream) -> None:
        try:
            with anyio.fail_after(OPEN_TIMEOUT):
                if tls is not None:
                    stream = await TLSStream.wrap(stream, ssl_context=tls, standard_compatible=False)
                outcome = await _open(stream, ServerOpening(admit))
            if outcome is not None:
                early = outcome.early
                async with over(stream, outcome.path, server=True, early=early, max_message=max_message) as socket:
                    await run(socket)
                    await socket.see_off()
        except LOST:
            pass  # the peer left, or was too slow: TimeoutError is an OSError
        except Exception as error:
            report(logger, "a connection", error)
        finally:
            await anyio.aclose_forcefully(stream)

    await serve_streams(connected, host, port, listening)


async def _open(stream: ByteStream, opening: ServerOpening) -> Outcome | None:
    """Answer the request that comes; None if it does not become a WebSocket."""
    while (outcome := opening.receive(await stream.receive())) is None:
        pass
    await stream.send(outcome.answer)
    if outcome.status == 101:
        return outcome
    # A socket closed with unread bytes resets the connection, which may overtake the answer.
    with suppress(NotImplementedError):
        await stream.send_eof()
        while True:
            await stream.receive()
    return None
