"""For tests of connections that are carried: who does it by a task after all, and how many tasks there are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from mediaflow.websocket import WebSocket


class _Consumer:
    def __init__(self, take: Callable[[bytes], bool]) -> None:
        self.take = take
        self.error: Exception | None = None
        self.changed = anyio.Event()

    def refused(self) -> None:
        self.changed.set()

    def ended(self, error: Exception) -> None:
        self.error = error
        self.changed.set()


async def feed(socket: WebSocket, take: Callable[[bytes], bool], ready: Callable[[], Awaitable[None]]) -> None:
    """Have ``take`` carry the connection, and await ``ready`` whenever it refused; raise what ended it."""
    consumer = _Consumer(take)
    socket.carry(consumer)
    try:
        socket.go_on()
        while True:
            await consumer.changed.wait()
            consumer.changed = anyio.Event()
            if consumer.error is not None:
                raise consumer.error
            await ready()
            socket.go_on()
    finally:
        socket.release()


def tasks() -> int:
    """Count the tasks of the event loop, but for those of the backend itself."""
    return len(anyio.get_running_tasks())
