"""A WebSocket between its two sides: the frames (``_wire``), and the line that carries the bytes.

``WebSocket`` is the same for all lines; a ``Line`` is made by one of two:

    line       a socket of our own: read in the turns of the event loop, without a task per connection
    stream     a stream that an HTTP listener took, and any where there is no epoll: a task per connection reads

What comes in is given on in the same call that read it.  Nobody is woken for a message unless somebody waits for it::

    line ── received ──▶ Decoder ──▶ take                         `carry`: the consumer is called, and may send at once
                            │  └───▶ inbox ──▶ recv               else: up to MAX_WAITING messages
                            └ what nobody takes yet, and no reading meanwhile

    state      peer's close comes                we close                     line lost
    open       answer it; closed by the peer     send it, await the answer    closed, broken (1006)
    closing    closed by us                      —                            closed by us
    closed     a server ends its direction, a client waits until the server has; after CLOSE_TIMEOUT the line is cut

That a server only ends its own direction matters: a socket closed with unread bytes resets the connection, and a reset
may overtake our close frame.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Literal, Protocol

import anyio

from .._wire.frames import Decoder, FrameError, encode
from ..errors import MediaflowError, report

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

WRITE_LIMIT = 64 * 1024
"""Bytes that may wait in the line before ``send_nowait`` refuses: two seconds of 16 kHz PCM."""

PING_INTERVAL, PING_TIMEOUT, OPEN_TIMEOUT, CLOSE_TIMEOUT = 20.0, 60.0, 10.0, 10.0

ABORT_TIMEOUT = 1.0
"""Seconds for the closing handshake when the block of a connection is left by an exception."""

MAX_WAITING = 16
"""Messages that may wait for ``recv`` before we stop reading."""

logger = logging.getLogger(__name__)


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


class Line(Protocol):
    """What carries the bytes of one connection.  It calls ``received``, ``expired`` and ``lost`` of its WebSocket."""

    full: bool
    """True while more than WRITE_LIMIT bytes wait to be written, and where nothing can be any more but ``lost`` was not
    called yet."""

    def write(self, data: bytes) -> None:
        """Write, now or as soon as it goes."""

    def end(self) -> None:
        """End our direction behind what is written; close where there is no ending one only."""

    def abort(self) -> None:
        """Cut the line; ``lost`` follows."""

    def pause(self) -> None:
        """Stop reading."""

    def resume(self) -> None:
        """Go on reading."""

    def now(self) -> float:
        """Return the clock's time in seconds."""

    def set_deadline(self, deadline: float) -> None:
        """Call ``expired`` at that time of the clock, in the place of the time said before."""

    async def drain(self) -> None:
        """Wait until the line is not full, or lost."""


class Consumer(Protocol):
    """Who is given what comes, in the very calls that read it: so it neither waits nor raises, but for ``take``."""

    @property
    def take(self) -> Callable[[bytes], bool]:
        """What a message is given to; a text as its bytes, which are UTF-8.

        When it returns False it has taken that message and wants no more for now: reading stops, and ``refused`` is
        called.  What it sends with ``send_nowait``, on any WebSocket of this event loop, leaves at once if the message
        came alone, and else when all that was read together was given on, in one write per socket.
        """

    def refused(self) -> None:
        """Go on with ``go_on`` when there is room, but not in this call; or give the socket back with ``release``."""

    def ended(self, error: Exception) -> None:
        """Take note, once, that nothing more comes: ``Closed``, or what ``take`` raised of a message it was given."""


class Cork:
    """Holds what sockets send while it is in, and lets it go when it is pulled: in one write per socket.

    It is in while several messages that came together are given on, of one read, or of many sockets in one turn of the
    event loop: all reads, then all writes.  A peer that is written to in a row need not be woken for each, which would
    take the kernel another 1.5 µs for a send of 5.  A message that came alone is answered out of ``take``, before what
    else there is to do for it: at 100 calls half of them leave 3 µs earlier, and one of ten 5.
    """

    def __init__(self) -> None:
        self.is_in = False
        self._sockets: list[WebSocket] = []

    def pull(self) -> None:
        """Write all that is held."""
        self.is_in = False
        if not self._sockets:
            return
        sockets, self._sockets = self._sockets, []
        for socket in sockets:
            try:
                socket._flush()
            except Exception as error:  # of one line: what the others hold must go out all the same
                report(logger, "a connection", error)
                socket._line.abort()

    def hold(self, socket: WebSocket) -> None:
        """Have ``socket`` write when the cork is pulled."""
        self._sockets.append(socket)


class _Thread(threading.local):
    """One cork for all connections that have none of their event loop's."""

    def __init__(self) -> None:
        self.cork = Cork()


_thread = _Thread()


class WebSocket:
    """An open connection.  One task may receive while another sends, or a consumer, which needs none."""

    def __init__(self, line: Line, path: str, *, server: bool, max_message: int, cork: Cork | None = None) -> None:
        self._line, self._path = line, path
        self._write_line = line.write  # looked up once: for each frame that would be 130 instructions
        self._cork = _thread.cork if cork is None else cork
        self._masks = not server
        self._decoder = Decoder(server, max_message)
        self._take: Callable[[bytes], bool] = self._keep
        self._inbox: list[tuple[int, bytes]] | None = None  # of a few: an empty deque takes 760 bytes
        self._refused = False  # what the decoder holds is wanted by nobody yet, and the line is paused
        self._receiving = False
        self._waiter: anyio.Event | None = None  # of who receives
        self._consumer: Consumer | None = None
        self._out = b""  # what is under a cork
        self._more: list[bytes] | None = None  # and behind it
        self._out_size, self._out_limit = 0, WRITE_LIMIT
        self._closing: tuple[int, str] | None = None  # what we said
        self._end: tuple[int, str, Literal["us", "peer", "broken"]] | None = None
        self._lost = False
        self._gone: anyio.Event | None = None  # set when the line is lost
        self._tell_gone: Callable[[WebSocket], None] | None = None  # called then
        self._pings = 0
        self._along = b""  # what leaves in front of the next frame
        self.ponged = 0
        """The number of the last of our pings that was answered: the peer has read all that was sent before it."""
        self._pong: anyio.Event | None = None  # set by the next one that is, and at the end
        self._pinged: float | None = None  # when the keepalive ping went out that is not answered yet
        line.set_deadline(line.now() + PING_INTERVAL)

    @property
    def path(self) -> str:
        """Path and query of the request that opened the connection."""
        return self._path

    # Receiving

    async def recv(self) -> str | bytes:
        """Return the next message; raise ``Closed`` at the end."""
        self._begin_receiving()
        try:
            while self._inbox is None:
                if self._refused:
                    self._go_on()
                elif self._end is not None:
                    raise Closed(*self._end)
                else:
                    await self._wait()
        finally:
            self._receiving = False
        opcode, message = self._first()
        if self._refused and (self._inbox is None or len(self._inbox) <= MAX_WAITING // 4):
            self._go_on()
        return message.decode() if opcode == TEXT else message

    def carry(self, consumer: Consumer) -> None:
        """Hand over to ``consumer``, which needs no task: it is called with every message, and with the end.

        The first comes with ``go_on``; until then nothing is read.  A server keeps the connection of a handler that has
        handed it over.  After ``ended``, or ``release``, the next message is there for ``recv`` or another ``carry``.
        """
        self._begin_receiving()
        self._consumer = consumer
        self._hold()

    @property
    def carried(self) -> bool:
        """True while there is a consumer."""
        return self._consumer is not None

    def go_on(self) -> None:
        """Give the consumer what waits, and read on if it takes all of it."""
        consumer = self._consumer
        assert consumer is not None
        self._take = consumer.take
        while self._inbox is not None:
            _, message = self._first()
            try:
                room = self._take(message)
            except Exception as error:
                self.release()
                consumer.ended(error)
                return
            if not room:
                consumer.refused()
                return
        self._go_on()

    def release(self) -> None:
        """Take the socket back from its consumer, if it has one; not to be called by ``take``."""
        if self._consumer is not None:
            self._consumer, self._take, self._receiving = None, self._keep, False

    def _begin_receiving(self) -> None:
        if self._receiving:
            raise anyio.BusyResourceError("receiving from")
        self._receiving = True

    async def _wait(self) -> None:
        self._waiter = anyio.Event()
        try:
            await self._waiter.wait()
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None:
            self._waiter.set()

    def _first(self) -> tuple[int, bytes]:
        """Take the first message out of the inbox, and that away with the last."""
        assert self._inbox is not None
        first = self._inbox.pop(0)
        if not self._inbox:
            self._inbox = None
        return first

    def _keep(self, message: bytes) -> bool:
        if self._inbox is None:
            self._inbox = []
        self._inbox.append((self._decoder.opcode, message))
        self._wake()
        return len(self._inbox) < MAX_WAITING

    def _go_on(self) -> None:
        """Give on what the decoder still holds, and read again if it was taken."""
        self._refused = False
        self._deliver()
        if not self._refused:
            self._line.resume()

    def received(self, data: bytes | bytearray | memoryview, size: int = -1) -> None:
        """Take what the line has read: bytes, or the first ``size`` bytes of a buffer that it uses again."""
        self._decoder.feed(data, size)
        if not self._refused:
            self._deliver()

    def _deliver(self) -> None:
        pulls = not self._cork.is_in and not self._decoder.ends_here()
        self._cork.is_in = self._cork.is_in or pulls
        failure: Exception | None = None
        try:
            while event := self._decoder.deliver(self._take):
                if event <= BINARY:
                    self._hold()
                    break
                self._take_control(event, self._decoder.payload)
        except FrameError as error:
            self._fail(error.code, str(error))
        except Exception as error:
            failure = error
            self._hold()
        finally:
            if pulls:
                self._cork.pull()
        if self._refused:
            self._tell_refused(failure)
        elif self._lost and self._end is None:
            self._end_by_loss()
        if self._end is not None:
            self._tell_end()

    def _tell_refused(self, failure: Exception | None) -> None:
        consumer = self._consumer
        if consumer is None:
            return
        if failure is None:
            consumer.refused()
        else:
            self.release()
            consumer.ended(failure)

    def _tell_end(self) -> None:
        """Tell the consumer that the WebSocket is closed, behind all that it is still to be given."""
        consumer = self._consumer
        if consumer is not None and self._end is not None and not self._refused:
            self.release()
            consumer.ended(Closed(*self._end))

    def _hold(self) -> None:
        self._refused = True
        self._line.pause()
        self._wake()

    def _take_control(self, opcode: int, data: bytes) -> None:
        if opcode == PING:
            self._write(encode(PONG, data, self._masks))
        elif opcode == PONG:
            self._pinged = None
            number = int.from_bytes(data, "big")
            # A pong answers the pings before its own too (RFC 6455, section 5.5.3).
            if self.ponged < number <= self._pings:
                self.ponged = number
                self._tell_pong()
        elif self._closing is None:
            code = int.from_bytes(data[:2], "big") if data else 1005  # the code that stands for none
            self._write(encode(CLOSE, data, self._masks))
            self._finish(code, data[2:].decode(), "peer")
        else:
            self._finish(*self._closing, "us")

    # Sending

    async def send(self, message: str | bytes) -> None:
        """Send a text message (str) or a binary one (bytes), waiting for room; raise ``Closed`` at the end."""
        self._check()
        self._write(encode(TEXT if isinstance(message, str) else BINARY, message, self._masks))
        if self._line.full:
            await self._line.drain()
            if self._lost:
                self._check()

    def send_nowait(self, message: str | bytes) -> bool:
        """Send a message if that needs no waiting, else return False."""
        if self._line.full or self._lost or self._closing is not None or self._end is not None:
            return False
        self._write(encode(TEXT if isinstance(message, str) else BINARY, message, self._masks))
        return True

    async def ping(self) -> None:
        """Send a ping and wait for its pong: the peer has then read everything sent before."""
        number = self.ping_nowait()
        while self.ponged < number:
            if self._end is not None or self._lost:
                self._check()
            if self._pong is None:
                self._pong = anyio.Event()
            await self._pong.wait()

    def ping_nowait(self) -> int:
        """Send a ping and return its number, which ``ponged`` reaches with its pong; raise ``Closed`` at the end."""
        number = self.ping_along()
        self.push_along()
        return number

    def ping_along(self) -> int:
        """``ping_nowait``, but it leaves in one write with what is sent next: alone it would cost as much as audio."""
        self._check()
        self._pings += 1
        self._along += encode(PING, self._pings.to_bytes(4, "big"), self._masks)
        return self._pings

    def push_along(self) -> None:
        """Send what still waits to leave with something else."""
        if self._along:
            self._write(b"")

    def _tell_pong(self) -> None:
        if self._pong is not None:
            self._pong.set()
            self._pong = None

    def _check(self) -> None:
        if self._end is not None:
            raise Closed(*self._end)
        if self._closing is not None or self._lost:
            raise Closed(*self._own_end())

    def _own_end(self) -> tuple[int, str, Literal["us", "peer", "broken"]]:
        """Return how it ends if the peer says nothing more."""
        return (1006, "", "broken") if self._closing is None else (*self._closing, "us")

    def _write(self, frame: bytes) -> None:
        if self._along:
            frame, self._along = self._along + frame, b""
        if not self._cork.is_in:
            self._write_line(frame)
            return
        if not self._out:
            self._cork.hold(self)
            self._out = frame
        elif self._more is None:
            self._more = [frame]
        else:
            self._more.append(frame)
        self._out_size += len(frame)
        if self._out_size > self._out_limit:
            self._flush()

    def _flush(self) -> None:
        if self._out:
            data, self._out, self._out_size = self._out, b"", 0
            if self._more is not None:
                data += b"".join(self._more)
                self._more = None
            self._write_line(data)

    # The end

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close with a handshake; no error if it is closed already.  Returns when the line is gone.

        What the peer still sends is thrown away, unless somebody receives: behind messages that nobody takes, the
        peer's answer would not be seen.
        """
        self.close_nowait(code, reason)
        await self.wait_gone()

    def close_nowait(self, code: int = 1000, reason: str = "") -> None:
        """Begin to close; the rest needs no task.  No error if it is closed already."""
        if self._lost:
            return
        if self._closing is None and self._end is None:
            self._send_close(code, reason)
            self._line.set_deadline(self._line.now() + CLOSE_TIMEOUT)
        if not self._receiving:
            self.ignore()

    def ignore(self) -> None:
        """Throw away what the peer sent and still sends, without a task that takes it; its pings are answered."""
        self._inbox = None
        self._take = _throw_away
        if self._refused:
            self._go_on()

    async def abort(self) -> None:
        """Cut the line without a handshake, as a crash does; no error if it is closed already."""
        if not self._lost:
            self._line.abort()
            await self.wait_gone()

    async def wait_closed(self) -> Closed:
        """Wait until the peer closes, ignoring what it still sends, and return how it did."""
        try:
            while True:
                await self.recv()
        except Closed as closed:
            return closed

    async def leave(self, code: int) -> None:
        """Close at the end of a block: in peace with 1000, else quickly and whatever cancels; cut what does not end."""
        peaceful = code == 1000
        try:
            with anyio.move_on_after(CLOSE_TIMEOUT if peaceful else ABORT_TIMEOUT, shield=not peaceful):
                await self.close(code)
        finally:
            if not self._lost:
                self._line.abort()
                with anyio.CancelScope(shield=True):
                    await self.wait_gone()

    async def wait_gone(self) -> None:
        """Wait until the line is gone, which it is some time behind the close."""
        if not self._lost:
            if self._gone is None:
                self._gone = anyio.Event()
            await self._gone.wait()

    def when_gone(self, tell: Callable[[WebSocket], None]) -> None:
        """Have ``tell`` called, once, when the line is gone."""
        if self._lost:
            tell(self)
        else:
            self._tell_gone = tell

    async def see_off(self) -> None:
        """Wait until the line is gone.  Cancelled, it goes away (1001), unless it is being closed already."""
        try:
            await self.wait_gone()
        finally:
            if self._closing is None and self._end is None:
                await self.leave(1001)
            else:
                with anyio.CancelScope(shield=True):
                    await self.wait_gone()

    def _send_close(self, code: int, reason: str) -> None:
        self._write(encode(CLOSE, code.to_bytes(2, "big") + reason.encode(), self._masks))
        self._closing = code, reason

    def _fail(self, code: int, reason: str) -> None:
        if self._closing is None:
            self._send_close(code, reason)
        assert self._closing is not None
        self._finish(*self._closing, "us")

    def _finish(self, code: int, reason: str, by: Literal["us", "peer", "broken"]) -> None:
        """The WebSocket is closed; what is left is the line's end."""
        self._end = code, reason, by
        if not self._lost:
            if not self._masks:
                self._flush()
                self._line.end()
            self._line.set_deadline(self._line.now() + CLOSE_TIMEOUT)
        self._wake_all()

    def lost(self) -> None:
        """The line has ended.  Messages that came before and were not wanted yet can still be had."""
        self._lost = True
        self._out, self._more, self._along = b"", None, b""
        if self._end is None and not self._refused:
            self._end_by_loss()
        self._wake_all()
        if self._gone is not None:
            self._gone.set()
        self._tell_end()
        tell, self._tell_gone = self._tell_gone, None
        if tell is not None:
            tell(self)

    def _end_by_loss(self) -> None:
        self._end = self._own_end()
        self._wake_all()

    def _wake_all(self) -> None:
        self._wake()
        self._tell_pong()

    def expired(self) -> None:
        """The deadline has passed: ping the peer, give it up, or cut the line behind a close."""
        now = self._line.now()
        if self._closing is not None or self._end is not None:
            self._line.abort()
            return
        if self._pinged is None:
            self._write(encode(PING, b"", self._masks))
            self._pinged = now
        elif self._refused:
            self._pinged = now  # we do not read: the pong may be here
        elif now >= self._pinged + PING_TIMEOUT:
            self._fail(1011, "keepalive ping timeout")
            self._tell_end()
            return
        self._line.set_deadline(min(now + PING_INTERVAL, self._pinged + PING_TIMEOUT))


def _throw_away(message: bytes) -> bool:
    return True
