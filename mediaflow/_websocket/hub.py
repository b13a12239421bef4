"""What the connections of one event loop share: its turns, their deadlines, and the cork of their WebSockets.

This file and ``loop`` know the backends, and no other does, for three things are asked of them that anyio does not
have: a callback for a file descriptor, one for a time, and on trio a task that belongs to no other.  That file
descriptor is the poller's (``_wire.poller``), so however many connections there are, the event loop watches one::

    asyncio    add_reader and call_at: no task
    ours       it waits in the hub (``loop``)
    trio       a system task, that lives as long as there are connections

A turn reads all sockets that are ready, and then writes what was sent meanwhile, one write for each; and looks again
under load.  Of a ``FEW`` each is written before the next is read.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import math
import sys
import threading
from contextvars import Context, copy_context
from time import monotonic
from typing import Any, cast

from .._wire.poller import Poller, Watched
from ..errors import report
from .core import Cork

logger = logging.getLogger(__name__)

MOST = 256
"""Sockets that are read before the event loop has its own turn: 2 ms."""

FEW = 4
"""So many sockets of a turn do not wait for each other: to write in a row spares less than the first would wait."""


class Member(Watched):
    """A socket in a hub; to be derived from."""

    def __init__(self, fd: int, hub: Hub) -> None:
        self.hub = hub
        self.due = math.inf
        """When ``expired`` is to be called."""
        self.filed = math.inf
        """The earliest time at which the hub will look at ``due``."""

    def expired(self) -> None:
        """Called when ``due`` has come."""
        raise NotImplementedError

    def tend(self) -> None:
        """Called for ``Hub.put_off``."""
        raise NotImplementedError

    def broke(self, error: Exception) -> None:
        """Called with what ``happened``, ``expired`` or ``tend`` raised; the others go on."""
        report(logger, "a connection", error)

    def set_deadline(self, deadline: float) -> None:
        """Have ``expired`` called at that time, in the place of the time said before."""
        self.due = deadline
        if deadline < self.filed:
            self.hub.file(self)


class Hub:
    """The sockets of one event loop; ``current`` returns it."""

    def __init__(self) -> None:
        self.poller = Poller()
        self.cork = Cork()
        self._filed: list[tuple[float, int, Member]] = []
        self._numbers = itertools.count()
        self._put_off: list[Member] = []

    def enter(self, member: Member) -> None:
        """Have a socket watched for reading."""
        if not len(self.poller):
            self._attach()
        self.poller.watch(member, True, False)

    def leave(self, member: Member) -> None:
        """Let go of a socket, which may then be closed."""
        self.poller.leave(member)
        member.due = math.inf
        if not len(self.poller):
            self._filed.clear()
            self._put_off.clear()
            self._detach()

    def file(self, member: Member) -> None:
        """Look at ``member.due`` when it comes."""
        member.filed = member.due
        heapq.heappush(self._filed, (member.due, next(self._numbers), member))
        self._arm(member.due)

    def put_off(self, member: Member) -> None:
        """Have ``tend`` called when a turn has been written: one a turn, so that no frame waits for many."""
        self._put_off.append(member)

    def now(self) -> float:
        """Return the event loop's time."""
        raise NotImplementedError

    def _attach(self) -> None:
        raise NotImplementedError

    def _detach(self) -> None:
        raise NotImplementedError

    def _arm(self, when: float) -> None:
        """Have ``look`` called at that time, or earlier."""
        raise NotImplementedError

    def turn(self) -> None:
        """Read what there is, and write what is sent for it.

        Where that were several there will be more by now, and to look again is less than a round of the event loop: at
        1,300 calls it spares 0.4 of 14.4 µs a frame.
        """
        left = found = MOST
        while found > 1 and left > 0:
            found = self.poller.find()
            self._tell(found)
            left -= found

    def _tell(self, found: int) -> None:
        self.cork.is_in = found > FEW
        try:
            self.poller.tell()
        finally:
            self.cork.pull()
            if self._put_off:
                self._tend(self._put_off.pop(0))

    def _tend(self, member: Member) -> None:
        try:
            member.tend()
        except Exception as error:
            member.broke(error)

    def wait(self, until: float) -> None:
        """Have turns until ``poller.wanted``, or ``until``, by ``time.monotonic``; it may return for nothing."""
        waits = until > monotonic()
        if waits:
            self.poller.wake_at(until)
        while True:
            found = self.poller.find(waits)
            self._tell(found)
            if not waits or not found or self.poller.wanted:
                self.poller.wanted = False  # not before the wait: what a signal wanted meanwhile would be forgotten
                return

    def look(self) -> None:
        """Tell those whose deadline has come."""
        now = self.now()
        while self._filed and self._filed[0][0] <= now:
            _, _, member = heapq.heappop(self._filed)
            member.filed = math.inf
            if member.due <= now:
                member.due = math.inf
                try:
                    member.expired()
                except Exception as error:
                    member.broke(error)
            elif member.due < math.inf:
                self.file(member)
        if self._filed:
            self._arm(self._filed[0][0])


class AsyncioHub(Hub):
    """That of any event loop of asyncio's."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._timer: asyncio.Handle | None = None
        self._armed = math.inf  # its time; uvloop's handle of one that is due already does not know it
        self.context = Context()
        """In which all is called: that of whoever opens the first connection."""

    def now(self) -> float:
        return self._loop.time()

    def _attach(self) -> None:
        self.context = copy_context()
        self.context.run(_tell_backend)
        self._watch()

    def _watch(self) -> None:
        self.context.run(self._loop.add_reader, self.poller.fd, self.turn)

    def _detach(self) -> None:
        self._loop.remove_reader(self.poller.fd)
        self._disarm()

    def _arm(self, when: float) -> None:
        if when < self._armed:
            self._disarm()
            self._armed = when
            self._timer = self._loop.call_at(when, self._on_time, context=self.context)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._armed = None, math.inf

    def _on_time(self) -> None:
        self._timer, self._armed = None, math.inf
        self.look()


def _tell_backend() -> None:
    """Say which backend runs, for what we call may begin tasks, and a callback is in none that would tell."""
    sniffio = cast(Any, sys.modules.get("sniffio"))
    if sniffio is not None:
        sniffio.current_async_library_cvar.set("asyncio")


class _TrioHub(Hub):
    def __init__(self) -> None:
        super().__init__()
        self._waiting: Any = None  # the scope of the wait
        self._running = False

    def now(self) -> float:
        import trio

        return trio.current_time()

    def _attach(self) -> None:
        import trio

        if not self._running:
            self._running = True
            # In the context of whoever opens the first: else what is called would be in that of no task at all.
            trio.lowlevel.spawn_system_task(self._run, context=copy_context())

    def _detach(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()

    def _arm(self, when: float) -> None:
        if self._waiting is not None and when < self._waiting.deadline:
            self._waiting.deadline = when

    async def _run(self) -> None:
        import trio

        try:
            while len(self.poller):
                with trio.CancelScope(deadline=self._filed[0][0] if self._filed else math.inf) as self._waiting:
                    await trio.lowlevel.wait_readable(self.poller.fd)
                self._waiting = None
                self.turn()
                self.look()
        finally:
            self._running, self._waiting = False, None


class _Current(threading.local):
    def __init__(self) -> None:
        self.run: object = None
        self.hub: Hub | None = None


_current = _Current()


def current() -> Hub:
    """Return the hub of the event loop that runs."""
    trio = cast(Any, sys.modules.get("trio"))
    on_trio = trio is not None and trio.lowlevel.in_trio_run()
    run = trio.lowlevel.current_trio_token() if on_trio else asyncio.get_running_loop()
    if _current.hub is None or _current.run is not run:
        _current.run = run
        _current.hub = _TrioHub() if on_trio else getattr(run, "hub", None) or AsyncioHub(run)
    return _current.hub
