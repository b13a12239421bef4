"""Listening sockets: the one place where an address is bound, and connections are accepted.

With several workers the supervisor binds, and every worker gets the same sockets (``fellows``): the kernel holds the
connections, also while a worker is replaced, and wakes all workers for each; who is first has it.  Left at that, one
that is awake already would take all of a burst, and calls are long.  So a worker that has more connections than the
others have on the average leaves them ``HEAD_START_S``, or less if they take one meanwhile.  It does not wait for ever:
one of the others may hang.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Protocol

import anyio
from anyio.abc import SocketAttribute, SocketStream, TaskGroup

from . import fellows
from .errors import report

BACKLOG = 65536
"""Connections that may wait to be accepted; the kernel has a limit of its own (``net.core.somaxconn``)."""

HEAD_START_S = 0.05
"""More than the event loop of a worker is late under full load (40 ms at p99, docs/capacity.md)."""

AGAIN_S = 1.0
"""When accepting is tried again after an error: no more files, no memory."""

logger = logging.getLogger(__name__)


class Lasting(Protocol):
    """A connection that is open without a task."""

    def when_gone(self, tell: Callable[[Lasting], None], /) -> None:
        """Have ``tell`` called, once, when it is closed."""

    async def see_off(self) -> None:
        """Wait until it is closed; cancelled, close it."""


async def listen(host: str, port: int) -> list[socket.socket]:
    """Return sockets that listen at ``host``, one per address that it stands for, all on one port; 0 chooses it.

    They are the caller's to close.  Raises OSError if they cannot be had.
    """
    here = fellows.here()
    return await (bind(host, port) if here.alone else here.sockets(host, port))


async def bind(host: str, port: int) -> list[socket.socket]:
    """``listen``, by this process itself."""
    async with await anyio.create_tcp_listener(local_host=host, local_port=port, backlog=BACKLOG) as bound:
        raw = [each.extra(SocketAttribute.raw_socket) for each in bound.listeners]
        sockets = [socket.socket(fileno=os.dup(each.fileno())) for each in raw]
    for each in sockets:
        each.setblocking(False)  # which all copies of it share: one that `dup` takes for blocking makes all so
    return sockets


@contextmanager
def reserved(host: str) -> Iterator[int]:
    """Give a port of ``host``, an IP address, that is given to nobody else while in the block, and can be listened at.

    For those who have to be told the address before we listen there.  On Linux a port that is bound, though nobody
    listens, goes neither to who leaves the choice to the kernel nor to a connection; elsewhere it may.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(address)
        port = int(holder.getsockname()[1])
        if sys.platform != "linux":  # where two may not be bound to one address
            holder.close()
        yield port


Handle = Callable[[socket.socket], Awaitable[Lasting | None]]


async def serve(handle: Handle, host: str, port: int, listening: Callable[[int], None]) -> None:
    """Run ``handle``, in a task of its own, for each connection to ``host``, until cancelled.

    The socket is its own to close.  A connection is over when ``handle`` returns, or it returns what tells when.  What
    it raises is logged, and ends that connection alone.
    ``listening`` is called with the port once connections are taken.  Raises OSError if it cannot listen there.
    """
    sockets = await listen(host, port)
    port = sockets[0].getsockname()[1]
    with ExitStack() as stack:
        for each in sockets:
            stack.enter_context(each)
        turns = _Turns(port)
        try:
            async with anyio.create_task_group() as tasks:
                for each in sockets:
                    tasks.start_soon(_accept, each, turns, tasks, handle)
                listening(port)
        finally:
            async with anyio.create_task_group() as tasks:
                for lasting in turns.lasting:
                    tasks.start_soon(lasting.see_off)
                tasks.cancel_scope.cancel()


async def serve_streams(
    handle: Callable[[SocketStream], Awaitable[None]], host: str, port: int, listening: Callable[[int], None]
) -> None:
    """``serve`` with streams."""

    async def taken(connection: socket.socket) -> None:
        try:
            stream = await SocketStream.from_socket(connection)
        except (OSError, ValueError):  # the peer has left already
            connection.close()
        else:
            await handle(stream)

    await serve(taken, host, port, listening)


async def _accept(listener: socket.socket, turns: _Turns, tasks: TaskGroup, handle: Handle) -> None:
    with listener:  # closed before those that were accepted have come to their end
        while True:
            await anyio.wait_readable(listener)
            await turns.mine()
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                continue  # a fellow was quicker, or the peer has left already
            except OSError as error:
                logger.error("connections cannot be accepted: %s", error.strerror)
                await anyio.sleep(AGAIN_S)
                continue
            connection.setblocking(False)
            with suppress(OSError):  # of a peer that has left already, as macOS tells here; Linux when it is read
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            turns.count(1)
            tasks.start_soon(_handle, connection, turns, handle)


async def _handle(connection: socket.socket, turns: _Turns, handle: Handle) -> None:
    lasting = None
    try:
        lasting = await handle(connection)
    except Exception as error:  # one that cannot be served must not end the listener, and with it all that are
        report(logger, "a connection", error)
    finally:
        if lasting is None:
            turns.count(-1)
        else:
            turns.keep(lasting)


class _Turns:
    """Whose turn it is to accept, as far as this worker knows."""

    def __init__(self, port: int) -> None:
        self._here = fellows.here()
        self._takers, self._taken = f"takers at {port}", f"taken at {port}"
        self._own = 0
        self.lasting: set[Lasting] = set()
        """Connections that are open without a task."""
        self._gone = self._let_go  # one for all of them
        self._here.publish(self._takers, 1)

    def count(self, more: int) -> None:
        self._own += more
        self._here.publish(self._taken, self._own)

    def keep(self, connection: Lasting) -> None:
        """Count ``connection`` for as long as it is open."""
        self.lasting.add(connection)
        connection.when_gone(self._gone)

    def _let_go(self, connection: Lasting) -> None:
        self.lasting.remove(connection)
        self.count(-1)

    async def mine(self) -> None:
        """Wait while it is the turn of the others, and they may take it."""
        with anyio.move_on_after(HEAD_START_S):
            while self._own * self._here.others(self._takers) > self._here.others(self._taken):
                await self._here.changed()
