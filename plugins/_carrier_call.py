"""One call of the carrier, through all the sockets that it comes on.

A socket is served by a task, which reads up to ``start`` and then lends the socket, as a ``Link``, to the call.  The
call lives in the task of its first socket and reads all of them, so nothing of it happens at two places at once::

    first socket   … start ── open session ── reads its link ─┐  and releases it, to be closed in a task of that moment
    next socket    … start ──lend──┐                          ├ stop, idle: the session ends
                                   └ waits until it is gone   ├ closed: waits ``reconnect_s`` for the next socket
                                                              └ another link lent: that one is read from now on

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
from collections.abc import Callable, Mapping
from typing import Protocol

import anyio

from mediaflow import Engine, FormatError, Session, SessionError, Stream, envelope
from mediaflow.envelope import Media, MediaError, Start
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


class _Stopped(Exception):
    """The carrier has said ``stop``."""


class Link:
    """A socket lent to a call, with what it brought so far."""

    __slots__ = ("_put_away", "_released", "code", "early", "overflow", "reason", "socket", "start", "stopped")

    def __init__(
        self,
        socket: WebSocket,
        start: Start,
        early: list[Media | MediaError],
        overflow: Counter[str],
        put_away: Callable[[Link], None],
    ) -> None:
        self.socket, self.start = socket, start
        self.early = early
        self.overflow = overflow  # bytes per track of what came too early to be kept
        self.code, self.reason, self.stopped = NORMAL, "", False
        self._put_away, self._released = put_away, False

    def release(self, code: int = NORMAL, reason: str = "", stopped: bool = False) -> None:
        """Give the socket back, to be closed with ``code``."""
        if not self._released:
            self._released = True
            self.code, self.reason, self.stopped = code, reason, stopped
            self._put_away(self)


class CallOptions(Protocol):
    """What a call needs to know of the source's options."""

    @property
    def byte_order(self) -> Order: ...
    @property
    def reconnect_s(self) -> float: ...
    @property
    def idle_s(self) -> float: ...


class Call:
    """Carries one call into one session."""

    __slots__ = (
        "_engine",
        "_hung_up",
        "_intake",
        "_lent",
        "_limit",
        "_line",
        "_link",
        "_news",
        "_next",
        "_note",
        "_options",
        "_reading",
        "_session",
        "_shut",
        "_start",
        "_stream",
        "format",
        "id",
        "open",
        "tracks",
    )

    def __init__(
        self, id: str, start: Start, options: CallOptions, engine: Engine, shut: Callable[[], None] = lambda: None
    ) -> None:
        self.id = id
        self.tracks = start.tracks or envelope.TRACKS
        self.format = start.format
        self.open = True
        """False once no further socket can continue the session; ``shut`` is called then."""
        self._shut = shut
        ids = {"call_id": start.call_id, "stream_id": start.stream_id, "account_id": start.account_id}
        self._stream = Stream(
            id,
            start.format,
            self.tracks,
            {key: value for key, value in (ids | start.metadata).items() if value},
        )
        self._options = options
        self._engine = engine
        self._start = start
        self._session: Session
        self._news: list[tuple[str, dict[str, str | int | float]]] = []
        self._note = self._keep_news  # until the session is open
        self._hung_up = False
        self._limit = float("inf")  # of the clock: when the socket is left, whatever still comes
        self._intake: Intake
        self._link: Link | None = None
        self._next: Link | None = None
        self._lent: anyio.Event | None = None  # while it waits for a socket
        self._reading = anyio.CancelScope()
        self._line: Line | None = None  # where there is something to say, the way to say it
        if engine.replies and start.tracks in (None, ("inbound",)):
            self._line = Line(start.dialect, start.format)

    @property
    def stopped(self) -> bool:
        """True once the carrier has said that the call is over, on the socket or in a callback."""
        return self._hung_up or (self._link is not None and self._intake.said_stop)

    def lend(self, link: Link) -> None:
        """Continue with ``link``: the newest socket wins."""
        if self._next is not None:
            self._next.release(reason="replaced")
        self._next = link
        self._wake()
        self._reading.cancel()

    def hear(self, event: str, stream_id: str, facts: Mapping[str, str]) -> None:
        """Take what the carrier says of the call, or of one of its streams, elsewhere than on the socket."""
        self._note(event, **facts)
        link = self._next or self._link
        of_this_stream = link is not None and link.start.stream_id == stream_id
        if event == "Hangup" or (event == "StopStream" and of_this_stream):
            self._hung_up = True
            self._wake()  # there is no other socket to wait for
        elif event != "DroppedStream" or not of_this_stream:
            return
        self._limit = anyio.current_time() + QUIET_S
        self._reading.deadline = min(self._reading.deadline, self._limit)

    async def run(self) -> None:
        """Open the session and carry the call to its end, whatever that is."""
        code, reason = NORMAL, ""
        try:
            async with self._engine.open(self._stream) as session:
                self._session = session
                if self._engine.replies:
                    session.offer(None if self._line is None else TalkBack(line=self._line))
                for event, facts in self._news:
                    session.note(event, **facts)
                self._note = session.note
                self._intake = intake = Intake(self.id, self._start, session, self._order(), self._engine)
                intake.moved = self._moved
                if self._line is not None:
                    intake.answered = self._line.answer
                logger.info("call %s: started, %s, %s", self.id, self.format, " and ".join(self.tracks))
                try:
                    await self._read_links()
                except anyio.get_cancelled_exc_class():
                    # Before the sinks finish, which takes its time: nobody will read these sockets any more.
                    self._let_go(GOING_AWAY, "going away")
                    raise
                finally:
                    self._close()
                    self._speak_over(None)
                    intake.end()
        except FormatError as error:
            code, reason = UNSUPPORTED, "format not supported"
            logger.error("call %s: refused: %s", self.id, error)
        except SessionError as error:
            code, reason = INTERNAL, "the call cannot be carried"
            logger.error("call %s: given up: %s", self.id, error)
        except Exception:  # the border of the call: the fault of one must not end the others
            code, reason = INTERNAL, "internal error"
            self._engine.count("call-crashed")
            logger.exception("call %s: broke", self.id)
        finally:
            self._close()
            self._let_go(code, reason)
            logger.info("call %s: ended", self.id)

    def _wake(self) -> None:
        if self._lent is not None:
            self._lent.set()

    def _close(self) -> None:
        self.open = False
        self._shut()

    def _let_go(self, code: int, reason: str) -> None:
        for link in (self._link, self._next):
            if link is not None:
                link.release(code, reason)

    def _order(self) -> Order:
        return self._options.byte_order if self.format.encoding == "s16le" else "little"

    async def _read_links(self) -> None:
        while True:
            if self._next is None:
                if self.stopped:
                    return
                self._lent = anyio.Event()
                with anyio.move_on_after(self._options.reconnect_s):
                    await self._lent.wait()
                self._lent = None
                if self._next is None:
                    return
            again = self._link is not None
            self._link, self._next = self._next, None
            if again:
                self._intake.reconnected()
            self._speak_over(self._link)
            over = await self._read(self._link)
            self._speak_over(None)
            if over:
                return
            self._link.release(reason="" if self._next is None else "replaced")

    def _speak_over(self, link: Link | None) -> None:
        if self._line is not None:
            if link is None:
                self._line.disconnect()
            else:
                self._line.connect(link.socket, link.start.stream_id)

    async def _read(self, link: Link) -> bool:
        """Read one socket to its end; return True if that is the end of the call."""
        intake = self._intake
        if not self.stopped:
            self._limit = float("inf")  # what was said of the socket before
        with anyio.CancelScope(deadline=self._deadline()) as self._reading:
            # Setting a deadline costs as much as carrying a message, so it is moved only every so often.
            intake.due = time.monotonic() + self._options.idle_s / 16
            try:
                await self._take_early(link)
                await link.socket.feed(intake.take, self._ready)
            except _Stopped:
                link.release(stopped=True)
                return True
            except Closed as closed:
                logger.info("call %s: socket closed with code %d by %s", self.id, closed.code, closed.by)
        if self._limit < float("inf") and self._next is None:
            link.release(stopped=self.stopped)
            return self.stopped
        if self._reading.cancelled_caught and self._next is None:
            self._engine.count("idle")
            logger.warning("call %s: nothing came for %g s", self.id, self._options.idle_s)
            link.release(reason="idle")
            return True
        return False

    async def _ready(self) -> None:
        """Wait for our own sinks, which is not the carrier's silence."""
        if self._intake.said_stop:
            raise _Stopped
        self._reading.deadline = float("inf")
        await self._session.ready()
        if self._limit < float("inf"):
            self._limit = anyio.current_time() + QUIET_S  # the socket's audio waited with us
        self._reading.deadline = self._deadline()

    def _moved(self, now: float) -> float:
        self._reading.deadline = self._deadline()
        return now + self._options.idle_s / 16

    def _keep_news(self, event: str, /, **facts: str | int | float) -> None:
        if len(self._news) < EARLY_NEWS:
            self._news.append((event, facts))

    def _deadline(self) -> float:
        return min(anyio.current_time() + self._options.idle_s, self._limit)

    async def _take_early(self, link: Link) -> None:
        for track, size in link.overflow.items():
            self._intake.overflowed(track, size)
        for item in link.early:
            if not self._intake.arrive(item):
                await self._session.ready()
