"""What a process knows of the others that serve the same pipeline (``mediaflow run --workers``).

A source that takes connections calls ``here()`` and treats what it gets the same in one process and in many: alone,
every name is ours, nobody else has numbers, and what is told reaches nobody.

    sockets(host, port)    the listening sockets of an address, which all workers share
    claimed(name)          at most one worker has a name (the id of a call); who is late gets a line to the one that has
    tell(news)             every other worker's ``hear`` is called with it
    publish, others        numbers: one's own, and the sums of all others'

The supervisor stands in the middle (``switchboard``); ``_channel`` is the wire.  When it is gone, workers finish.
"""

from __future__ import annotations

import errno
import itertools
import secrets
import socket
from collections.abc import Callable
from contextvars import ContextVar

import anyio
import anyio.lowlevel

from . import _channel as wire
from ._channel import Channel

Answer = tuple[wire.Bound | wire.Granted, list[socket.socket]]


class Fellows:
    """This process among those that serve the pipeline; without ``channel`` it is the only one."""

    def __init__(self, channel: Channel | None = None, instance: str = "") -> None:
        self.instance = instance or secrets.token_hex(8)
        """What all of them say they are when asked at their public address."""
        self.take: Callable[[socket.socket], None] = socket.socket.close
        """Called with a connection that a fellow took and that is about what we have claimed."""
        self.hear: Callable[[str], None] = lambda news: None
        """Called with what a fellow tells."""
        self.stop: Callable[[int], None] = lambda level: None
        """Called when the supervisor says so, or is gone."""
        self._channel = channel
        self._asks = itertools.count(1)
        self._asked: dict[int, _Ask] = {}
        self._own: dict[str, int] = {}
        self._others: dict[str, int] = {}
        self._changed = anyio.Event()

    @property
    def alone(self) -> bool:
        """True if nobody else serves the pipeline."""
        return self._channel is None

    async def run(self) -> None:
        """Take what the supervisor says; when it is gone, ask for a stop and return."""
        assert self._channel is not None
        await self._channel.serve(self._heard)
        self._give_up()
        self.stop(1)

    async def sockets(self, host: str, port: int) -> list[socket.socket]:
        """Return the listening sockets of an address; raise the OSError that the supervisor had."""
        answer, sockets = await self._ask(lambda ask: wire.Listen(ask, host, port))
        assert isinstance(answer, wire.Bound)
        if not sockets:
            await anyio.lowlevel.checkpoint()  # who was stopped meanwhile shall hear that, and not this
            raise OSError(answer.errno, answer.text)
        return sockets

    def claimed(self, name: str) -> Claim:
        """Hold ``name`` while in the block; gives None if it is ours, else a line to the fellow who has it.

        It may be held more than once at a time, and is free when all blocks are left or the process has died.
        """
        return Claim(self, name)

    def tell(self, news: str) -> None:
        """Let every other worker hear ``news``."""
        if self._channel is not None:
            self._channel.post(wire.Tell(news))

    def publish(self, name: str, number: int) -> None:
        """Let the others count ``number`` in."""
        self._own[name] = number
        if self._channel is not None:
            self._channel.post(wire.Publish(dict(self._own)))

    def others(self, name: str) -> int:
        """Return what all others have published under ``name``, added up."""
        return self._others.get(name, 0)

    async def changed(self) -> None:
        """Wait until a number of the others has changed."""
        await self._changed.wait()

    def up(self, url: str) -> None:
        """Say that calls are taken at ``url``."""
        if self._channel is not None:
            self._channel.post(wire.Up(url))

    @property
    def busy(self) -> bool:
        """True while the supervisor does not read what it is sent."""
        return self._channel is not None and self._channel.waiting > 0

    def report(self, report: wire.Report) -> None:
        """Have it shown."""
        if self._channel is not None:
            self._channel.post(report)

    async def flushed(self) -> None:
        """Wait until the supervisor has been sent everything."""
        if self._channel is not None:
            await self._channel.flushed()

    async def claim(self, name: str) -> socket.socket | None:
        """Ask for ``name``: None if it is ours now, until ``let_go``, else a line to who has it."""
        if self._channel is None:
            return None
        near, far = socket.socketpair()
        try:
            answer, _ = await self._ask(lambda ask: wire.Claim(ask, name), far)
        except BaseException:
            near.close()
            raise
        if isinstance(answer, wire.Granted) and not answer.ours:
            return near
        near.close()
        return None

    def let_go(self, name: str) -> None:
        """Free a name that was ours."""
        if self._channel is not None:
            self._channel.post(wire.Release(name))

    async def _ask(self, question: Callable[[int], wire.Listen | wire.Claim], *sockets: socket.socket) -> Answer:
        """Ask, and wait for the answer, whoever cancels: it comes at once, and what it grants must not be lost."""
        assert self._channel is not None
        ask, asked = next(self._asks), _Ask()
        self._asked[ask] = asked
        self._channel.post(question(ask), *sockets)
        if self._channel.over:
            self._give_up()
        with anyio.CancelScope(shield=True):
            await asked.answered.wait()
        return asked.answer

    def _give_up(self) -> None:
        for ask in list(self._asked):
            self._answer(wire.Bound(ask, errno.ECONNRESET, "the supervisor is gone"), [])

    def _answer(self, message: wire.Bound | wire.Granted, sockets: list[socket.socket]) -> None:
        asked = self._asked.pop(message.ask)
        asked.answer = message, sockets
        asked.answered.set()

    async def _heard(self, message: wire.Said, sockets: list[socket.socket]) -> None:
        match message:
            case wire.Bound() | wire.Granted():
                self._answer(message, sockets)
            case wire.Handed():
                self.take(*sockets)
            case wire.Tell():
                self.hear(message.news)
            case wire.Others():
                self._others = message.numbers
                self._changed.set()
                self._changed = anyio.Event()
            case wire.Stop():
                self.stop(message.level)


class Claim:
    """A name that is held: while in the block, and with ``keep`` beyond it, until ``release``."""

    __slots__ = ("_fellows", "_line", "_name", "_ours")

    def __init__(self, fellows: Fellows, name: str) -> None:
        self._fellows, self._name = fellows, name
        self._line: socket.socket | None = None
        self._ours = False  # and not to be kept

    async def __aenter__(self) -> socket.socket | None:
        self._line = await self._fellows.claim(self._name)
        self._ours = self._line is None
        return self._line

    async def __aexit__(self, *_: object) -> None:
        if self._line is not None:
            self._line.close()
        elif self._ours:
            self.release()

    def keep(self) -> None:
        """Hold the name beyond the block."""
        self._ours = False

    def release(self) -> None:
        """Free the name."""
        self._fellows.let_go(self._name)


class _Ask:
    """A question that waits for its answer."""

    def __init__(self) -> None:
        self.answered = anyio.Event()
        self.answer: Answer


_here: ContextVar[Fellows] = ContextVar("fellows")


def here() -> Fellows:
    """Return this process among its fellows."""
    found = _here.get(None)
    return ALONE if found is None else found


def join(fellows: Fellows) -> None:
    """Let everything that is started from here on be one of several workers."""
    _here.set(fellows)


ALONE = Fellows()
"""A process of its own."""
