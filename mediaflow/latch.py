"""An event that is set once, for what happens once in a call.

On asyncio an ``anyio.Event`` takes nearly a kilobyte, for the queue of those who wait, and most of what may be waited
for in a call nobody waits for, or only at its end.  So the event is made when somebody does.
"""

from __future__ import annotations

import anyio


class Latch:
    """Once ``set``, it stays set."""

    __slots__ = ("_event", "_set")

    def __init__(self) -> None:
        self._set = False
        self._event: anyio.Event | None = None

    def set(self) -> None:
        """Let everybody go on who waits, now or later."""
        self._set = True
        if self._event is not None:
            self._event.set()

    def is_set(self) -> bool:
        """Say whether it was set."""
        return self._set

    async def wait(self) -> None:
        """Wait until it is set."""
        if self._event is None:
            self._event = anyio.Event()
            if self._set:
                self._event.set()
        await self._event.wait()
