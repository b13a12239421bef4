"""How often the kernel acknowledges what a connection reads.

TCP acknowledges every second segment, or after 40 ms at the latest; Linux does so while it takes a connection for a
conversation, whose answers carry the acknowledgements along.  A call whose audio only comes is none: as soon as the
40 ms have once been over, every read sends a packet with nothing but an acknowledgement in it, which takes 1.7 of the
12 µs of a frame.  ``TCP_QUICKACK`` turned off (tcp(7)) leads back to every second one; it does not last, so it has to
be looked at from time to time.

It lasts shortest where it hurts: a carrier that has not turned Nagle's algorithm off (RFC 896) keeps its next frame
back until the last one is acknowledged, so the 40 ms are over at once.  Each time that it did not last we therefore
wait twice as long, up to more than a minute of frames.
"""

from __future__ import annotations

import socket
from typing import Protocol

FIRST, LAST = 64, 4096
"""After how many reads a connection is looked at first, and at most."""

NEVER = -1

_QUICK = getattr(socket, "TCP_QUICKACK", None)  # Linux only


class Options(Protocol):
    """What sockets have, and what event loops give out in their place."""

    def getsockopt(self, level: int, option: int, /) -> int: ...

    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...


def acknowledge_less(sock: Options, reads: int) -> int:
    """Have ``sock`` acknowledge every second segment; return after how many reads to ask again, it having been so many.

    The answer is ``NEVER`` where the system, or the socket, does not know it.
    """
    if _QUICK is None:
        return NEVER
    try:
        if not sock.getsockopt(socket.IPPROTO_TCP, _QUICK):
            return reads
        sock.setsockopt(socket.IPPROTO_TCP, _QUICK, 0)
    except OSError:
        return NEVER
    return min(2 * reads, LAST)
