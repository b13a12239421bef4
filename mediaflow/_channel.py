"""Messages, and open sockets with them, between a supervisor and a worker, over one Unix socket.

A message is a head of five bytes, which says how long it is and how many sockets come with it, and JSON::

    ┌─ 4 bytes ─┬─ 1 ──────┬─ length ─────────────────────┐
    │ length    │ sockets  │ {"type": "Listen", …}        │   the sockets travel beside its first byte (SCM_RIGHTS)
    └───────────┴──────────┴──────────────────────────────┘

The kernel hands sockets over no later than the byte that they were sent with, so a queue of those that have come, and
the number in the head, say which message each belongs to, however the reads are cut.

    worker → supervisor                                     supervisor → worker
    Listen    sockets for an address, please                Bound     here they are, or why not
    Claim     this name is mine; and a socket for its owner  Granted  it is yours now, or its owner has the socket
    Release   … no longer                                   Handed    a connection of what you own, from a fellow
    Tell      for all the others                            Tell      one of the others says
    Publish   my numbers                                    Others    the numbers of the others, added up
    Up        I take calls at this address                  Stop      finish; from 2 on: cut off what has not finished
    Report    what the screen and the end show
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import msgspec

_HEAD = struct.Struct("!IB")
_READ_SIZE = 64 * 1024
_MOST_SOCKETS = 253
"""As many as Linux takes with one message (SCM_MAX_FD)."""

_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Message(msgspec.Struct, tag=True, frozen=True):
    """What is said."""


class Listen(Message, frozen=True):
    """``ask`` numbers the question, and its answer."""

    ask: int
    host: str
    port: int


class Bound(Message, frozen=True):
    """Comes with the sockets, or with the number and text of an OSError."""

    ask: int
    errno: int = 0
    text: str = ""


class Claim(Message, frozen=True):
    """May come with a socket, which is for whoever has the name."""

    ask: int
    name: str


class Granted(Message, frozen=True):
    """``ours``: the name is the asker's, until as many ``Release`` as ``Claim`` were said."""

    ask: int
    ours: bool


class Release(Message, frozen=True):
    """Takes a granted claim back."""

    name: str


class Handed(Message, frozen=True):
    """Comes with a socket."""


class Tell(Message, frozen=True):
    """``news`` is the affair of who tells and who hears."""

    news: str


class Publish(Message, frozen=True):
    """All numbers of a worker, by name."""

    numbers: dict[str, int]


class Others(Message, frozen=True):
    """The sums over all other workers."""

    numbers: dict[str, int]


class Up(Message, frozen=True):
    """The worker takes calls."""

    url: str


class Report(Message, frozen=True):
    """What a worker shows: figures since its last report, and accounts of calls (``delivery.account``)."""

    ended: int
    failed: int
    counts: dict[str, int]
    live: list[dict[str, Any]]
    """Some of the calls that are live."""
    over: list[dict[str, Any]]
    """Of those that ended since the last report, as many as are shown."""


class Stop(Message, frozen=True):
    """``level`` counts up: told twice, the same level is one wish."""

    level: int


Said = Listen | Bound | Claim | Granted | Release | Handed | Tell | Publish | Others | Up | Report | Stop

_decoder = msgspec.json.Decoder(Said)
_encoder = msgspec.json.Encoder()

Take = Callable[[Said, list[socket.socket]], Awaitable[None]]


class Channel:
    """One end.  ``serve`` has to run for anything to come or go."""

    def __init__(self, line: socket.socket) -> None:
        line.setblocking(False)
        self._line = line
        self._out: deque[tuple[bytes, tuple[socket.socket, ...]]] = deque()
        self._changed = anyio.Event()
        self._came: deque[socket.socket] = deque()
        self._rest = bytearray()
        self.over = False
        """True once the other side is gone."""

    def post(self, message: Said, *sockets: socket.socket) -> None:
        """Send ``message``, without waiting; ``sockets`` are closed here once they are on their way."""
        data = _encoder.encode(message)
        if self.over:
            _close(sockets)
            return
        self._out.append((_HEAD.pack(len(data), len(sockets)) + data, sockets))
        self._wake()

    @property
    def waiting(self) -> int:
        """How many messages have not left yet."""
        return len(self._out)

    async def flushed(self) -> None:
        """Wait until everything that was posted has left, or the other side is gone."""
        while self._out and not self.over:
            await self._changed.wait()

    async def serve(self, take: Take) -> None:
        """Give every message that comes to ``take``, and send what is posted, until the other side is gone."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write)
                await self._read(take)
                tasks.cancel_scope.cancel()
        finally:
            self.over = True
            self._line.close()
            _close(self._came)
            for _, sockets in self._out:
                _close(sockets)
            self._out.clear()
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def _read(self, take: Take) -> None:
        while True:
            await anyio.wait_readable(self._line)
            try:
                data, numbers, _, _ = socket.recv_fds(self._line, _READ_SIZE, _MOST_SOCKETS, _CLOSE_ON_EXEC)
            except BlockingIOError:
                continue
            except OSError:  # reset: it died with something of ours unread
                return
            if not data:
                return
            self._came += [socket.socket(fileno=number) for number in numbers]
            self._rest += data
            while len(self._rest) >= _HEAD.size:
                length, sockets = _HEAD.unpack_from(self._rest)
                end = _HEAD.size + length
                if len(self._rest) < end:
                    break
                message = _decoder.decode(memoryview(self._rest)[_HEAD.size : end].tobytes())
                del self._rest[:end]
                await take(message, [self._came.popleft() for _ in range(sockets)])

    async def _write(self) -> None:
        while True:
            while not self._out:
                await self._changed.wait()
            data, sockets = self._out[0]
            try:
                while data:
                    await anyio.wait_writable(self._line)
                    try:
                        sent = socket.send_fds(self._line, [data], [each.fileno() for each in sockets])
                    except BlockingIOError:
                        continue
                    _close(sockets)
                    data, sockets = data[sent:], ()
            except OSError:  # it is gone; the reading side sees it too, and ends
                await anyio.sleep_forever()
            self._out.popleft()
            self._wake()


def _close(sockets: tuple[socket.socket, ...] | deque[socket.socket]) -> None:
    for each in sockets:
        each.close()
