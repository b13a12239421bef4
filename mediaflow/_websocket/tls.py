"""TLS of one connection, between its socket and who reads it.  No I/O: OpenSSL works on buffers in memory."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import cast


class Tls:
    """The client's side if ``hostname`` is given, else the server's.  All methods raise ``ssl.SSLError``."""

    def __init__(self, context: ssl.SSLContext, hostname: str | None) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = hostname is None
        self._object = context.wrap_bio(self._incoming, self._outgoing, server, server_hostname=hostname)
        self._early: list[bytes] | None = []  # what is written before the handshake is done; None behind it
        self.ended = False
        """True once the peer has ended its direction."""

    def feed(self, data: memoryview) -> None:
        """Take what came from the socket."""
        self._incoming.write(data)

    def read(self, buffer: memoryview) -> int:
        """Put what was fed into ``buffer``, in plain; return how many bytes, 0 if there is no more for now."""
        if self._early is not None and not self.shake_hands():
            return 0
        try:
            size = cast(int, self._object.read(len(buffer), buffer))
        except ssl.SSLWantReadError:
            return 0
        except ssl.SSLZeroReturnError:
            size = 0
        self.ended = not size
        return size

    def shake_hands(self) -> bool:
        """Go on with the handshake as far as it goes; True if it is done."""
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        early, self._early = self._early, None
        for data in early or ():
            self._object.write(data)
        return True

    def write(self, data: bytes) -> None:
        """Take what is to be sent."""
        if self._early is not None:
            self._early.append(data)
        else:
            self._object.write(data)

    def end(self) -> None:
        """Say that no more will be sent."""
        with suppress(ssl.SSLWantReadError):  # the peer has not said so; it need not (RFC 8446, section 6.1)
            self._object.unwrap()

    def pending(self) -> bytes:
        """Return what is to go out to the socket."""
        return self._outgoing.read()
