"""One call of the carrier, through all the sockets that it comes on.

A socket is served by a task, which reads up to ``start``, lends the socket to the call, and is done.  From then on the
socket calls the call with every message, and no task stands by.  What has to wait is seen to by one task of that moment
(``attend``), so nothing of a call happens at two places at once; what happens meanwhile is noted for it::

    the first socket's task   open the session, take what came before start ─┐
                                                                             ▼
                                                            no task: ``take``, message after message
                                                                             │
    stop, the socket's end, nothing came, no room ──┐                        │
    the next socket is lent, a callback ────────────┴─▶ attend ◀─────────────┘
                                                          │ no room: waits for the sinks, and reads on
                                                          │ another socket: that one is read from now on
                                                          │ closed: waits ``reconnect_s`` for the next socket
                                                          └ stop, idle, no other socket: the session ends

The carrier's retries come as a new socket with a fresh ``start``, another stream id and the same call id.

Where the carrier's callbacks reach us (``_vobiz_control``), they move the call as well.  A socket may hold audio that
was sent before and is not read yet, so it is read for ``QUIET_S`` more, and no wait for another socket follows an end::

    Hangup                                 the call ends, whatever socket it is on or waits for
    StopStream, of the stream being read   the call ends
    DroppedStream, of the same             the socket is taken for closed, though it may look open for minutes
    any                                    is noted in the call's account, also once it is settled
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, NamedTuple, Protocol

import anyio

from mediaflow import Engine, FormatError, Session, SessionError, Stream, envelope
from mediaflow.envelope import Media, MediaError, Start
from mediaflow.fellows import Claim
from mediaflow.intake import Intake
from mediaflow.ordered_session import Order
from mediaflow.websocket import Closed, WebSocket

from ._talk_back import Line, TalkBack

logger = logging.getLogger(__name__)

QUIET_S = 0.5
"""How long a socket is still read once a callback has said that it is over: what it holds is here already."""

EARLY_NEWS = 50
"""Callbacks of a call kept until its session is open."""

NORMAL, GOING_AWAY, UNSUPPORTED, INTERNAL = 1000, 1001, 1003, 1011

_NEVER = float("inf")


class Link(NamedTuple):
    """A socket lent to a call, with what it brought so far."""

    socket: WebSocket
    start: Start
    early: list[Media | MediaError]
    overflow: Counter[str]
    """Bytes per track of what came too early to be kept."""


class CallOptions(Protocol):
    """What a call needs to know of the source's options."""

    @property
    def byte_order(self) -> Order: ...
    @property
    def reconnect_s(self) -> float: ...
    @property
    def idle_s(self) -> float: ...


class House(Protocol):
    """What all calls of a source share."""

    @property
    def options(self) -> CallOptions: ...
    @property
    def engine(self) -> Engine: ...

    def start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run ``work`` in a task."""

    def put_away(self, socket: WebSocket, code: int, reason: str, stopped: bool) -> None:
        """Close a socket that a call gives back; one that has ``stopped`` the carrier may close first."""

    def shut(self) -> None:
        """Take note that no further socket can continue some call."""

    def over(self, call: Call) -> None:
        """Take note that a call is finished."""


class Call:
    """Carries one call into one session; the consumer of its socket."""

    __slots__ = (
        "_attended",
        "_begun",
        "_block",
        "_changed",
        "_failure",
        "_full",
        "_house",
        "_hung_up",
        "_idle",
        "_intake",
        "_limit",
        "_line",
        "_news",
        "_next",
        "_session",
        "_since",
        "_socket",
        "_stream_id",
        "call_id",
        "claim",
        "format",
        "id",
        "open",
        "tracks",
    )

    def __init__(self, id: str, start: Start, house: House, claim: Claim | None) -> None:
        self.id, self.call_id, self.claim = id, start.call_id, claim
        self.tracks = start.tracks or envelope.TRACKS
        self.format = start.format
        self.open = True
        """False once no further socket can continue the session; the house hears of it."""
        self._house = house
        self._block: AbstractAsyncContextManager[Session]  # in which the session is open
        self._session: Session
        self._intake: Intake
        self._begun = False
        self._attended = True  # by who has made it
        self._changed: anyio.Event | None = None  # while it is waited for
        self._news: list[tuple[str, Mapping[str, str]]] = []  # until the session is open
        self._socket: WebSocket | None = None
        self._stream_id = ""  # of the newest socket
        self._next: Link | None = None
        self._since = _NEVER  # when it began to be only listened to
        self._limit = _NEVER  # when the socket is left, whatever still comes
        self._full = self._idle = self._hung_up = False
        self._failure: Exception | None = None
        self._line: Line | None = None  # where there is something to say, the way to say it
        if house.engine.replies and start.tracks in (None, ("inbound",)):
            self._line = Line(start.dialect, start.format)

    @property
    def stopped(self) -> bool:
        """True once the carrier has said that the call is over, on the socket or in a callback."""
        return self._hung_up or (self._begun and self._intake.said_stop)

    # What happens to it.  None of it waits.

    def lend(self, link: Link) -> None:
        """Continue with ``link``: the newest socket wins."""
        link.socket.carry(self)
        self._leave_socket("replaced")
        if self._next is not None:
            self._house.put_away(self._next.socket, NORMAL, "replaced", stopped=False)
        self._next, self._stream_id, self._idle = link, link.start.stream_id, False
        self._see_to_it()

    def hear(self, event: str, stream_id: str, facts: Mapping[str, str]) -> None:
        """Take what the carrier says of the call, or of one of its streams, elsewhere than on the socket."""
        if self._begun:
            self._session.note(event, **facts)
        elif len(self._news) < EARLY_NEWS:
            self._news.append((event, facts))
        of_this_stream = stream_id == self._stream_id
        if event == "Hangup" or (event == "StopStream" and of_this_stream):
            self._hung_up = True
        elif event != "DroppedStream" or not of_this_stream or self._socket is None:
            return
        self._limit = anyio.current_time() + QUIET_S
        self._see_to_it()

    def look(self, now: float) -> None:
        """End the call if nothing has come for so long that nothing will; ``now`` is by ``time.monotonic``."""
        idle_s = self._house.options.idle_s
        if not self._attended and now >= max(self._intake.heard, self._since) + idle_s:
            self._house.engine.count("idle")
            logger.warning("call %s: nothing came for %g s", self.id, idle_s)
            self._leave_socket("idle")
            self._idle = True
            self._see_to_it()

    def stop(self) -> None:
        """End the call, for the source is cancelled."""
        self._let_go(GOING_AWAY, "going away")
        self._see_to_it()

    # What its socket calls.

    @property
    def take(self) -> Callable[[bytes], bool]:
        return self._intake.take

    def refused(self) -> None:
        if self._intake.said_stop:
            self._leave_socket(stopped=True)
        else:
            self._full = True
        self._see_to_it()

    def ended(self, error: Exception) -> None:
        if isinstance(error, Closed):
            logger.info("call %s: socket closed with code %d by %s", self.id, error.code, error.by)
            self._leave_socket()
        else:
            self._failure = error
        self._see_to_it()

    # What waits.

    def _see_to_it(self) -> None:
        """Have it seen to what has changed, in a task of this moment unless one is there."""
        if self._changed is not None:
            self._changed.set()
        if not self._attended:
            self._attended = True
            self._house.start(self.attend)

    async def attend(self) -> None:
        """Do all that has to wait, and return once the call is only to be listened to, or over."""
        carried = False
        code, reason = NORMAL, ""
        try:
            async with AsyncExitStack() as block:
                if self._begun:
                    block.push_async_exit(self._block)  # entered by who opened it
                else:
                    await self._begin(block)
                try:
                    carried = await self._settle()
                except anyio.get_cancelled_exc_class():
                    # Before the sinks finish, which takes its time: nobody will read these sockets any more.
                    self._let_go(GOING_AWAY, "going away")
                    raise
                finally:
                    if carried:
                        block.pop_all()
                    else:
                        self._close()
                        self._speak_over(None)
                        self._intake.end()
        except FormatError as error:
            code, reason = UNSUPPORTED, "format not supported"
            logger.error("call %s: refused: %s", self.id, error)
        except SessionError as error:
            code, reason = INTERNAL, "the call cannot be carried"
            logger.error("call %s: given up: %s", self.id, error)
        except Exception:  # the border of the call: the fault of one must not end the others
            code, reason = INTERNAL, "internal error"
            self._house.engine.count("call-crashed")
            logger.exception("call %s: broke", self.id)
        finally:
            if carried:
                self._since, self._attended = time.monotonic(), False
            else:
                self._close()
                self._let_go(code, reason)
                logger.info("call %s: ended", self.id)
                self._house.over(self)

    async def _begin(self, block: AsyncExitStack) -> None:
        """Open the session."""
        assert self._next is not None
        start, house = self._next.start, self._house
        ids = {"call_id": start.call_id, "stream_id": start.stream_id, "account_id": start.account_id}
        metadata = {key: value for key, value in (ids | start.metadata).items() if value}
        self._block = house.engine.open(Stream(self.id, self.format, self.tracks, metadata))
        self._session = session = await block.enter_async_context(self._block)
        if house.engine.replies:
            session.offer(None if self._line is None else TalkBack(line=self._line))
        for event, facts in self._news:
            session.note(event, **facts)
        order = house.options.byte_order if self.format.encoding == "s16le" else "little"
        self._intake = Intake(self.id, start, session, order, house.engine)
        if self._line is not None:
            self._intake.answered = self._line.answer
        del self._news  # it is noted in the session from here on
        logger.info("call %s: started, %s, %s", self.id, self.format, " and ".join(self.tracks))

    async def _settle(self) -> bool:
        """See to one thing after the other; return True once it is messages alone that come next, False at the end."""
        while True:
            if self._failure is not None:
                raise self._failure
            if self._next is not None:
                await self._turn_to(self._next)
            elif self._idle:
                return False
            elif self._socket is None:
                if self.stopped or await self._nothing_changes(self._house.options.reconnect_s):
                    return False
            elif self._full:
                await self._make_room(self._socket)
            elif self._limit == _NEVER:
                return True
            elif await self._nothing_changes(self._limit - anyio.current_time()):
                self._leave_socket(stopped=self.stopped)

    async def _nothing_changes(self, seconds: float) -> bool:
        """Wait until something happens, and return False, or so long."""
        self._changed = anyio.Event()
        with anyio.move_on_after(seconds) as scope:
            await self._changed.wait()
        self._changed = None
        return scope.cancelled_caught

    async def _turn_to(self, link: Link) -> None:
        """Read another socket from now on, behind what it has brought already."""
        self._socket, self._next, self._full = link.socket, None, False
        if self._begun:
            self._intake.reconnected()
        self._begun = True
        if not self.stopped:
            self._limit = _NEVER  # what was said of the socket before
        self._speak_over(link.socket)
        for track, size in link.overflow.items():
            self._intake.overflowed(track, size)
        for item in link.early:
            if not self._intake.arrive(item):
                await self._session.ready()
        if self._socket is link.socket:
            link.socket.go_on()

    async def _make_room(self, socket: WebSocket) -> None:
        """Wait for our own sinks, which is not the carrier's silence."""
        await self._session.ready()
        self._full = False
        if self._limit < _NEVER:
            self._limit = anyio.current_time() + QUIET_S  # the socket's audio waited with us
        if self._socket is socket:
            socket.go_on()

    # The rest.

    def _leave_socket(self, reason: str = "", stopped: bool = False) -> None:
        """Give the socket back that is being read, if there is one."""
        if self._socket is not None:
            self._speak_over(None)
            self._house.put_away(self._socket, NORMAL, reason, stopped)
            self._socket = None

    def _let_go(self, code: int, reason: str) -> None:
        """Give all sockets back."""
        for socket in (self._socket, None if self._next is None else self._next.socket):
            if socket is not None:
                self._house.put_away(socket, code, reason, stopped=False)
        self._socket = self._next = None

    def _close(self) -> None:
        self.open = False
        self._house.shut()

    def _speak_over(self, socket: WebSocket | None) -> None:
        if self._line is not None:
            if socket is None:
                self._line.disconnect()
            else:
                self._line.connect(socket, self._stream_id)
