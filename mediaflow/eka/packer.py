"""Audio joined to messages of a least size: a message costs more than what is in it, for us and for the service.

Every frame of every call goes through here, so this module is compiled as it stands (``packer.pxd`` has its types).
"""

from __future__ import annotations

from collections.abc import Callable


class Packer:
    """Gathers audio and gives it to ``send``, which says whether it took it, in messages of ``size`` bytes or more.

    A message is at most twice as long, and begins with the beginning of a piece where pieces and messages allow it.
    """

    def __init__(self, send: Callable[[bytes], bool], size: int) -> None:
        self.size = size
        self.sent = 0
        """Bytes that went into messages."""
        self.pending = bytearray()
        """What waits for its message to be full."""
        self._send = send

    def put(self, data: bytes) -> bool:
        """Take ``data`` without waiting; False, and nothing is taken, if a message is full and cannot be sent."""
        size = len(data)
        if self.pending:
            if len(self.pending) + size < self.size:
                self.pending += data
                return True
            data = bytes(self.pending) + data
            size = len(data)
        elif size < self.size:
            self.pending += data
            return True
        if size >= 2 * self.size:
            return self._split(data)
        if not self._send(data):
            return False
        self.sent += size
        if self.pending:
            self.pending.clear()
        return True

    def _split(self, data: bytes) -> bool:
        done = 0
        while len(data) - done >= self.size and self._send(data[done : done + self.size]):
            done += self.size
        if not done:
            return False
        self.sent += done
        self.pending = bytearray(data[done:])
        return True

    def head(self) -> bytes:
        """Return the next message, as far as there is one; ``sent_head`` tells that it is on its way."""
        return bytes(self.pending[: self.size])

    def sent_head(self, size: int) -> None:
        """Let go of the ``size`` bytes that ``head`` gave."""
        del self.pending[:size]
        self.sent += size
