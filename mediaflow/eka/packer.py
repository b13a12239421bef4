"""Audio joined to messages of a least size: a message costs more than what is in it, for us and for the service.

Every frame of every call goes through here, so this module is compiled as it stands (``packer.pxd`` has its types).
"""

from __future__ import annotations

from collections.abc import Callable


class Packer:
    """Gathers audio and gives it to ``send``, which says whether it took it, in messages of ``size`` bytes or more.

    A message is at most twice as long, and begins with the beginning of a piece where pieces and messages allow it.
    Pieces wait as they came: that takes only what they take, and the message is the one copy that is made of them.
    """

    def __init__(self, send: Callable[[bytes], bool], size: int) -> None:
        self.size = size
        self.sent = 0
        """Bytes that went into messages."""
        self.waiting = 0
        """Bytes that wait for their message to be full."""
        self._pieces: list[bytes] = []
        self._send = send

    def put(self, data: bytes) -> bool:
        """Take ``data`` without waiting; False, and nothing is taken, if a message is full and cannot be sent."""
        size = self.waiting + len(data)
        if size < self.size:
            self.keep(data)
            return True
        if self.waiting:
            data = b"".join([*self._pieces, data])
        if size >= 2 * self.size:
            return self._split(data)
        if not self._send(data):
            return False
        self._go_on(size, b"")
        return True

    def _split(self, data: bytes) -> bool:
        done = 0
        while len(data) - done >= self.size and self._send(data[done : done + self.size]):
            done += self.size
        if not done:
            return False
        self._go_on(done, data[done:])
        return True

    def _go_on(self, sent: int, rest: bytes) -> None:
        self.sent += sent
        if self._pieces:
            self._pieces.clear()
            self.waiting = 0
        if rest:
            self.keep(rest)

    def keep(self, data: bytes) -> None:
        """Take ``data`` and send nothing."""
        self._pieces.append(data)
        self.waiting += len(data)

    def rest(self) -> bytes:
        """Let go of all that waits, and return it."""
        rest = b"".join(self._pieces)
        self._go_on(0, b"")
        return rest

    def head(self) -> bytes:
        """Return the next message, as far as there is one; ``sent_head`` tells that it is on its way."""
        return b"".join(self._pieces)[: self.size]

    def sent_head(self, size: int) -> None:
        """Let go of the ``size`` bytes that ``head`` gave."""
        self._go_on(size, b"".join(self._pieces)[size:])
