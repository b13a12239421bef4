"""WebSockets on asyncio and on trio, behind one small interface.

There are three ways to a ``WebSocket``:

    connect(url)            we open it
    serve(handler, …)       a port of its own
    accept(stream, …)       a request that our HTTP listener took asks to become one

and a fourth where several processes take connections: one that another took is passed on, and adopted.

The data path is ours, from the socket on (``_websocket`` says how), and takes as much on asyncio as on trio.  The
``websockets`` library does the opening handshakes.

What differs from that library's defaults, and why:

* no compression: deflating one 20 ms frame costs 18 µs, twice what carrying it costs, and saves nothing on base64;
* pings wait 60 s for their answer: a service that stores a chunk inside its receive loop does not answer meanwhile;
* no proxy from the environment, and no redirects: where calls go is said in the pipeline and nowhere else;
* no debug log: it would show every message, and paths that are capabilities.

``carry`` and ``send_nowait`` are the way of the hot path: messages are given on in the call that read them, and written
without a task switch; ``send_nowait`` refuses once the kernel no longer takes the bytes, so that the caller can queue.
A connection that is carried needs no task, and what is open without one costs its objects alone.
"""

from __future__ import annotations

import logging
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import anyio
from anyio.abc import ByteStream, TaskGroup

from ._websocket import opening, stream as streams
from ._websocket.core import (
    CLOSE_TIMEOUT as CLOSE_TIMEOUT,
    OPEN_TIMEOUT as OPEN_TIMEOUT,
    Closed as Closed,
    Consumer as Consumer,
    Refused as Refused,
    Unreachable as Unreachable,
    WebSocket as WebSocket,
    WebSocketError as WebSocketError,
)
from ._websocket.opening import Admit as Admit, Answer as Answer
from .errors import report

MAX_MESSAGE = 1 << 20
"""Longest message taken, in bytes.  The longest that a carrier sends is 100 kB (Exotel); a longer one closes 1009."""

LOOP: dict[str, Any]
"""The options of ``anyio.run`` for the event loop on which a frame costs least: ours, where there is epoll."""

if sys.platform == "linux":
    from ._websocket import endpoint as driver
    from ._websocket.loop import EventLoop

    LOOP = {"loop_factory": EventLoop}
else:
    driver, LOOP = streams, {}
"""What connects and listens: lines of our own need epoll."""

logger = logging.getLogger(__name__)


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
    with _opening(url, open_timeout):
        connection = await driver.open_url(url, headers or {}, tls, max_message)
    async with connection as socket:
        yield socket


def reads_in_tasks() -> bool:
    """Say whether a connection that is opened here is read by a task, as it is where there is no epoll."""
    return driver is streams


async def connect_in(
    tasks: TaskGroup | None,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    open_timeout: float = OPEN_TIMEOUT,
    max_message: int = MAX_MESSAGE,
) -> WebSocket:
    """Connect as ``connect`` does, for who closes in another task than he opens: always, and with ``leave``.

    ``tasks`` is where the connection is read if that takes a task; where ``reads_in_tasks`` is False None will do.
    """
    with _opening(url, open_timeout):
        return await driver.open_in(tasks, url, headers or {}, tls, max_message)


@contextmanager
def _opening(url: str, timeout: float) -> Iterator[None]:
    try:
        with anyio.fail_after(timeout):
            yield
    except (OSError, UnicodeError) as error:  # of which TimeoutError and SSLError are; the other is of a host's name
        raise Unreachable(f"{opening.place(url)}: {str(error) or type(error).__name__}") from None


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

    A connection is closed when its handler is done, unless that has it carried (``WebSocket.carry``): then it is for
    others to close.  ``listening`` is called with the port once connections are taken.  When this is cancelled, no more
    are, every handler is cancelled, and this returns when all of them are done, what they shield is finished, and
    nothing is open.
    """

    run = partial(_handle, handler)  # not a function around it, which would stay for as long as the connection
    await driver.serve(run, address.host, address.port, admit, listening, tls, max_message)


async def _handle(handler: Callable[[WebSocket], Awaitable[None]], socket: WebSocket) -> None:
    code: int | None = 1001  # going away: this was cancelled
    try:
        await handler(socket)
        code = None if socket.carried else 1000
    except Closed:
        code = 1000  # the peer left
    except Exception as error:
        report(logger, "a WebSocket handler", error)
        code = 1011
    finally:
        if code is not None:
            await socket.leave(code)


async def adopt(handler: Callable[[WebSocket], Awaitable[None]], line: socket.socket) -> None:
    """Run ``handler`` for a connection that another process has taken and passes on over ``line``."""
    async with await driver.over_line(line, True, MAX_MESSAGE) as adopted:
        await _handle(handler, adopted)
        await adopted.see_off()


@asynccontextmanager
async def adopted(line: socket.socket) -> AsyncIterator[WebSocket]:
    """Wait until the process at the other end of ``line`` adopts; raises ``Closed`` if it never will."""
    async with await driver.over_line(line, False, MAX_MESSAGE) as other:
        await other.ping()
        yield other


async def pass_on(taken: WebSocket, said: Iterable[str | bytes], other: WebSocket) -> None:
    """Pass the connection ``taken`` on to ``other``, who has ``adopted`` it, until either side ends it.

    ``said`` are the messages that were read already.  A message and a close with its code are there what they were
    here, and the other way round.  Where the peer's line breaks, the other process is told so behind all that came
    before; where that process dies, the peer's line breaks.  Raises ``Closed`` if that is before all of ``said`` is
    passed on: nothing more was read then.
    """
    for message in said:
        await other.send(message)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_pass, taken, other, lambda: other.close(1011, "its line broke"))
        tasks.start_soon(_pass, other, taken, taken.abort)


async def _pass(source: WebSocket, target: WebSocket, broken: Callable[[], Awaitable[None]]) -> None:
    """Send what ``source`` says, and end ``target`` as it ended; where it broke, by ``broken``."""
    try:
        while True:
            message = await source.recv()
            with suppress(Closed):  # then the other way sees it, and ends this one
                await target.send(message)
    except Closed as closed:
        if closed.code == 1006:
            await broken()
        else:
            await target.close(1000 if closed.code == 1005 else closed.code, closed.reason)


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
    outcome = opening.answer(path, headers, early)
    await stream.send(outcome.answer)
    if outcome.status != 101:
        raise Refused(outcome.status)
    async with streams.over(stream, path, server=True, early=early, max_message=max_message) as socket:
        yield socket
