"""The carrier's end of a call that misbehaves: one WebSocket after another, on which is said what ``Conduct`` decides.

::

    vobiz_call ── messages ──▶ Conduct ── steps ──▶ Line ─┬─ socket 1 ╳  torn, or left open
                               (no I/O)                   └─ socket 2    of the same call
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus

from mediaflow import websocket
from mediaflow.websocket import Closed, WebSocket, WebSocketError

from ._vobiz_quirks import Conduct, Quirk, Reconnect, Step, Wait


class Line:
    """What a ``WebSocket`` offers, over one after another.

    What the carrier withholds counts as sent, since it is what the carrier was told to do; ``outcome`` tells of it.
    """

    def __init__(self, url: str, quirks: Collection[Quirk], tasks: TaskGroup) -> None:
        self._url, self._quirks, self._tasks = url, quirks, tasks
        self._conduct = Conduct(quirks)
        self._releases: list[anyio.Event] = []
        self._socket: WebSocket
        self._stable = anyio.Event()
        self._stable.set()
        self._ended = False

    @property
    def outcome(self) -> dict[str, Any]:
        """Return which quirks were shown, and how many milliseconds of each track were withheld."""
        spans = self._conduct.withheld
        return {
            "quirks": [quirk for quirk in self._quirks if self._conduct.done[quirk]],
            "withheld_ms": {track: [[round(a), round(b)] for a, b in each] for track, each in spans.items()},
        }

    async def open(self) -> None:
        """Open another socket and go on with that."""
        self._socket, released = await self._tasks.start(self._hold)
        self._releases.append(released)

    async def _hold(self, *, task_status: TaskStatus[tuple[WebSocket, anyio.Event]]) -> None:
        # In a task of its own: on Trio a connection has to be left where it was entered.
        released = anyio.Event()
        async with websocket.connect(self._url) as socket:
            task_status.started((socket, released))
            await released.wait()

    async def recv(self) -> str | bytes:
        """Return the next message of the socket that is in use; raise ``Closed`` at the end of the last."""
        while True:
            socket = self._socket
            try:
                return await socket.recv()
            except Closed:
                await self._stable.wait()
                if socket is self._socket or self._ended:
                    raise

    def send_nowait(self, message: str | bytes) -> bool:
        """Return False: misbehaving may take time."""
        return False

    async def send(self, message: str | bytes) -> None:
        """Say a message, or what is said in its place."""
        assert isinstance(message, str)
        await self._do(self._conduct.take(message))
        if '"event":"stop"' in message and "media_after_stop" in self._quirks:
            self._conduct.done["media_after_stop"] += 1
            with suppress(Closed):  # a bridge may hang up at once
                for text in self._conduct.echo():
                    await self._socket.send(text)

    async def _do(self, steps: Iterable[Step]) -> None:
        for step in steps:
            if isinstance(step, Wait):
                await anyio.sleep(step.seconds)
            elif isinstance(step, Reconnect):
                await self._reconnect(step.overlapping)
            else:
                await self._socket.send(step)

    async def _reconnect(self, overlapping: bool) -> None:
        self._stable = anyio.Event()
        try:
            await self._socket.ping()  # what was said before is not what is lost
            if not overlapping:
                await self._socket.abort()
            await self.open()
        finally:
            self._stable.set()

    async def ping(self) -> None:
        """Ask how far the socket in use is read."""
        await self._socket.ping()

    async def close(self) -> None:
        """Say the rest and end the call, in the way that the quirks want."""
        if self._ended:
            return
        self._ended = True
        await self._do(self._conduct.rest())
        await self._socket.ping()
        if "cut_off" in self._quirks:
            self._conduct.done["cut_off"] += 1
            await self._socket.abort()
        else:
            await self._socket.close()
        if "phantom" in self._quirks:
            self._conduct.done["phantom"] += 1
            with suppress(WebSocketError):  # to be refused is what it hopes for
                await self.open()
                await self._do([self._conduct.another_start(), *self._conduct.echo()])
                await self._socket.close()
        self.release()

    def release(self) -> None:
        """Let go of all sockets."""
        for released in self._releases:
            released.set()


@asynccontextmanager
async def connect(url: str, quirks: Collection[Quirk]) -> AsyncIterator[Line]:
    """Connect as ``websocket.connect`` does, and misbehave by ``quirks``."""
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        line = Line(url, quirks, tasks)
        try:
            await line.open()
            yield line
        except Exception as error:  # raised below, where the task group does not wrap it
            failure = error
        finally:
            line.release()
    if failure is not None:
        raise failure
