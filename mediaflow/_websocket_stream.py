"""The server's end of a WebSocket over an anyio byte stream, after some HTTP listener has read the request.

The library's protocol core turns bytes into frames and back and does no I/O.  Around it stand one task that reads, so
that pings and closing handshakes are answered while the handler is busy, and one that pings.  The methods are those of
the library's own connections, as far as ``mediaflow.websocket`` uses them, and raise the library's errors.

    state      peer sends close            we close                      line lost
    OPEN       answer it, send EOF, drain  send it, wait for the answer  1006
    CLOSING    send EOF, drain             —                             CLOSED
    CLOSED     the stream is closed, ``recv`` raises

Draining matters: a socket closed with unread bytes resets the connection, and a reset may overtake our close frame.
"""

from __future__ import annotations

import itertools
from collections import deque
from contextlib import suppress

import anyio
from anyio.abc import ByteStream
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

_LOST = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)


class StreamConnection:
    """A connection whose handshake is done; ``read`` and ``keep_alive`` have to run as tasks."""

    def __init__(
        self, stream: ByteStream, protocol: ServerProtocol, request: Request, max_waiting: int, close_timeout: float
    ) -> None:
        self.request, self.protocol = request, protocol
        self._stream = stream
        self._close_timeout = close_timeout
        self._messages: deque[str | bytes] = deque()
        self._max_waiting = max_waiting
        self._changed = anyio.Event()
        self._closing = False
        self._writing = anyio.Lock()
        self._ended = anyio.Event()
        self._pings = itertools.count()
        self._pongs: dict[bytes, anyio.Event] = {}
        self._parts, self._is_text = bytearray(), False

    async def recv(self) -> str | bytes:
        """Return the next message."""
        while not self._messages:
            if self._ended.is_set():
                raise await self._closed()
            await self._changed.wait()
        message = self._messages.popleft()
        self._notify()
        return message

    async def send(self, message: str | bytes) -> None:
        """Send a message, waiting for room."""
        if self.protocol.state is not State.OPEN:
            raise await self._closed()
        if isinstance(message, str):
            self.protocol.send_text(message.encode())
        else:
            self.protocol.send_binary(message)
        await self.flush()

    async def ping(self, *, ack_on_close: bool) -> anyio.Event:
        """Send a ping; the event is set by its pong, or by the end of the connection."""
        if self.protocol.state is not State.OPEN:
            raise await self._closed()
        data = next(self._pings).to_bytes(4, "big")
        self._pongs[data] = pong = anyio.Event()
        self.protocol.send_ping(data)
        await self.flush()
        return pong

    async def aclose(self, code: int, reason: str) -> None:
        """Close with a handshake, or without one where the peer does not answer in time."""
        self._closing = True  # messages that nobody takes must not hold the peer's answer up
        self._notify()
        try:
            if self.protocol.state is State.OPEN:
                self.protocol.send_close(code, reason)
            with anyio.move_on_after(self._close_timeout):
                await self.flush()
                await self._ended.wait()
        finally:
            if not self._ended.is_set():
                await anyio.aclose_forcefully(self._stream)

    async def wait_closed(self) -> None:
        """Wait until the connection has ended."""
        await self._ended.wait()

    async def flush(self) -> None:
        """Write what the protocol wants written; a lost line shows in the reading task."""
        async with self._writing:
            for data in self.protocol.data_to_send():
                try:
                    if data:
                        await self._stream.send(data)
                    else:
                        await self._stream.send_eof()
                except _LOST:
                    return
                except NotImplementedError:  # a TLS stream cannot close one direction only
                    await anyio.aclose_forcefully(self._stream)
                except anyio.get_cancelled_exc_class():
                    # A message may be written half: nothing can follow it.
                    await anyio.aclose_forcefully(self._stream)
                    raise

    async def read(self, early: bytes) -> None:
        """Take what the peer sends until the connection has ended, also while the handler finishes cancelled."""
        with anyio.CancelScope(shield=True) as scope:
            try:
                data = early
                while True:
                    if data:
                        await self._take(data)
                    if self.protocol.close_expected() and scope.deadline == float("inf"):
                        scope.deadline = anyio.current_time() + self._close_timeout
                    data = await self._stream.receive()
            except _LOST:
                pass
            finally:
                self.protocol.receive_eof()
                self._ended.set()
                self._notify()
                for pong in self._pongs.values():
                    pong.set()
                await anyio.aclose_forcefully(self._stream)

    async def _take(self, data: bytes) -> None:
        self.protocol.receive_data(data)
        frames = self.protocol.events_received()
        await self.flush()
        for frame in frames:
            assert isinstance(frame, Frame)
            if frame.opcode is Opcode.PONG:
                self._take_pong(bytes(frame.data))
            elif frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                await self._take_part(frame)

    def _take_pong(self, data: bytes) -> None:
        # A pong answers the pings before its own too (RFC 6455, section 5.5.3).
        if data in self._pongs:
            for sent in list(self._pongs):
                self._pongs.pop(sent).set()
                if sent == data:
                    break

    async def _take_part(self, frame: Frame) -> None:
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
        self._parts += frame.data
        if not frame.fin:
            return
        data, self._parts = bytes(self._parts), bytearray()
        try:
            message = data.decode() if self._is_text else data
        except UnicodeDecodeError:
            self.protocol.fail(1007, "text is not UTF-8")
            await self.flush()
            return
        while len(self._messages) >= self._max_waiting and not self._closing:
            await self._changed.wait()
        if not self._closing:
            self._messages.append(message)
            self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def keep_alive(self, interval: float, timeout: float) -> None:
        """Ping the peer from time to time and end the connection if it does not answer."""
        with suppress(ConnectionClosed):
            while not self._ended.is_set():
                with anyio.move_on_after(interval):
                    await self._ended.wait()
                with anyio.move_on_after(timeout) as answer:
                    await (await self.ping(ack_on_close=True)).wait()
                if answer.cancelled_caught:
                    self.protocol.fail(1011, "keepalive ping timeout")
                    await anyio.aclose_forcefully(self._stream)

    async def _closed(self) -> ConnectionClosed:
        await self._ended.wait()
        return self.protocol.close_exc
