"""Listening sockets: the one place where an address is bound.

With several workers the supervisor binds, and every worker gets the same sockets (``fellows``): the kernel gives each
connection to one of those that accept, and holds it for the others while a worker is replaced.
"""

from __future__ import annotations

import os
import socket

import anyio
from anyio.abc import SocketAttribute, SocketListener, SocketStream
from anyio.streams.stapled import MultiListener

from . import fellows

BACKLOG = 65536
"""Connections that may wait to be accepted; the kernel has a limit of its own (``net.core.somaxconn``).

They wait while all workers are busy or replaced.  Who accepts sets it anew, so it is for all of them to say."""


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
        return [socket.socket(fileno=os.dup(each.fileno())) for each in raw]


async def listener(host: str, port: int) -> MultiListener[SocketStream]:
    """Return ``listen`` as a listener of anyio."""
    return MultiListener([await SocketListener.from_socket(each) for each in await listen(host, port)])
