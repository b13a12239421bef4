"""One call of the carrier, through all the sockets that it comes on.

A socket is served by a task of its own, which reads up to ``start`` and then lends the socket, as a ``Link``, to the
call.  The call reads it in the one task that owns the session, so nothing of a call happens at two places at once::

    socket task   … start ──lend──┐                    ┌──released──> closes the socket
    call          ── open session ┴─ reads the link ───┤
                                                       ├ stop, idle: the session ends
                                                       ├ closed: waits ``reconnect_s`` for the carrier's next socket
                                                       └ another link lent: that one is read from now on

The carrier's retries come as a new socket with a fresh ``start``, another stream id and the same call id.

Where the carrier's callbacks reach us (``_vobiz_control``), they move the call as well.  A socket may hold audio that
was sent before and is not read yet, so it is read for ``QUIET_S`` more, and no wait for another socket follows an end::

    Hangup                                 the call ends, whatever socket it is on or waits for
    StopStream, of the stream being read   the call ends
    DroppedStream, of the same             the socket is taken for closed, though it may look open for minutes
    any                                    is noted in the call's account
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping
from typing import Protocol

import anyio

from mediaflow import Engine, FormatError, Session, SessionError, Stream, WireError, envelope
from mediaflow.envelope import Cleared, Dtmf, Media, MediaError, Played, Start
from mediaflow.timeline import IN_ORDER, Place, Timeline
from mediaflow.websocket import Closed, WebSocket
from mediaflow.wire_truth import WireTruth

from ._ordered_session import Order, OrderedSession
from ._reorder import Reorder
from ._talk_back import Line, TalkBack

logger = logging.getLogger(__name__)

BARREN = 50
"""Media messages in a row without audio that are worth a loud word: one second of a call lost."""

QUIET_S = 0.5
"""How long a socket is still read once a callback has said that it is over: what it holds is here already."""

EARLY_NEWS = 50
"""Callbacks of a call kept until its session is open."""

NORMAL, GOING_AWAY, UNSUPPORTED, INTERNAL = 1000, 1001, 1003, 1011


class Link:
    """A socket lent to a call, with what it brought so far."""

    def __init__(
        self, socket: WebSocket, start: Start, early: list[Media | MediaError], overflow: Counter[str]
    ) -> None:
        self.socket, self.start = socket, start
        self.early = early
        self.overflow = overflow  # bytes per track of what came too early to be kept
        self.released = anyio.Event()
        self.code, self.reason, self.stopped = NORMAL, "", False

    def release(self, code: int = NORMAL, reason: str = "", stopped: bool = False) -> None:
        """Give the socket back to its task, to be closed with ``code``."""
        if not self.released.is_set():
            self.code, self.reason, self.stopped = code, reason, stopped
            self.released.set()


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

    def __init__(self, id: str, start: Start, options: CallOptions, engine: Engine) -> None:
        self.id = id
        self.tracks = start.tracks or envelope.TRACKS
        self.format = start.format
        self._dialect = start.dialect
        self.open = True
        """False once no further socket can continue the session."""
        self.stopped = False
        """True once the carrier has said that the call is over, on the socket or in a callback."""
        ids = {"call_id": start.call_id, "stream_id": start.stream_id, "account_id": start.account_id}
        self._stream = Stream(
            id,
            start.format,
            self.tracks,
            {key: value for key, value in (ids | start.metadata).items() if value},
        )
        self._options = options
        self._engine = engine
        self._default_track = "inbound" if "inbound" in self.tracks else self.tracks[0]
        self._timeline = Timeline(start.format.sample_rate)
        self._reorder: Reorder[Media | MediaError] | None = None
        if start.dialect.reorder:
            self._reorder = Reorder(start.dialect.reorder)
        self._truth: WireTruth | None = WireTruth(start.format, self.tracks)
        self._numbering = "unknown"
        self._session: Session
        self._news: list[tuple[str, dict[str, str | int | float]]] = []
        self._note = self._keep_news  # until the session is open
        self._said_stop = False
        self._limit = float("inf")  # of the clock: when the socket is left, whatever still comes
        self._ordered: OrderedSession
        self._link: Link | None = None
        self._next: Link | None = None
        self._lent = anyio.Event()
        self._reading = anyio.CancelScope()
        self._barren = 0
        self._line: Line | None = None  # where there is something to say, the way to say it
        if engine.replies and start.tracks in (None, ("inbound",)):
            self._line = Line(start.dialect, start.format)

    def lend(self, link: Link) -> None:
        """Continue with ``link``: the newest socket wins."""
        if self._next is not None:
            self._next.release(reason="replaced")
        self._next = link
        self._lent.set()
        self._reading.cancel()

    def hear(self, event: str, stream_id: str, facts: Mapping[str, str]) -> None:
        """Take what the carrier says of the call, or of one of its streams, elsewhere than on the socket."""
        self._note(event, **facts)
        link = self._next or self._link
        of_this_stream = link is not None and link.start.stream_id == stream_id
        if event == "Hangup" or (event == "StopStream" and of_this_stream):
            self.stopped = True
            self._lent.set()  # there is no other socket to wait for
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
                self._ordered = OrderedSession(session, self._order(), self._byte_order_found)
                logger.info("call %s: started, %s, %s", self.id, self.format, " and ".join(self.tracks))
                try:
                    await self._read_links()
                except anyio.get_cancelled_exc_class():
                    # Before the sinks finish, which takes its time: nobody will read these sockets any more.
                    self._let_go(GOING_AWAY, "going away")
                    raise
                finally:
                    self.open = False
                    self._speak_over(None)
                    self._take_late()
                    self._ordered.release()
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
            self.open = False
            self._let_go(code, reason)
            logger.info("call %s: ended", self.id)

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
                with anyio.move_on_after(self._options.reconnect_s):
                    await self._lent.wait()
                if self._next is None:
                    return
            again = self._link is not None
            self._link, self._next, self._lent = self._next, None, anyio.Event()
            if again:
                self._engine.count("reconnected")
                self._take_late()
                self._timeline.reconnected(self._dialect.own_clock)
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
        idle_s = self._options.idle_s
        if not self.stopped:
            self._limit = float("inf")  # what was said of the socket before
        # Setting a deadline, or asking anyio for the time, costs as much as parsing a message, so the deadline is moved
        # only every so often, by a cheaper clock.
        moved = time.monotonic()
        unseen = logger.isEnabledFor(logging.DEBUG)
        with anyio.CancelScope(deadline=self._deadline()) as self._reading:
            try:
                await self._take_early(link)
                while True:
                    text = await link.socket.recv()
                    now = time.monotonic()
                    if now - moved > idle_s / 16:
                        moved = now
                        self._reading.deadline = self._deadline()
                    if unseen:
                        unseen = False
                        logger.debug("call %s: messages look like %s", self.id, envelope.outline(text))
                    if not self._take(text):
                        self._reading.deadline = float("inf")  # waiting for our own sinks is not the carrier's silence
                        await self._session.ready()
                        moved = time.monotonic()
                        if self._limit < float("inf"):
                            self._limit = anyio.current_time() + QUIET_S  # the socket's audio waited with us
                        self._reading.deadline = self._deadline()
                    if self._said_stop:
                        link.release(stopped=True)
                        return True
            except Closed as closed:
                logger.info("call %s: socket closed with code %d by %s", self.id, closed.code, closed.by)
        if self._limit < float("inf") and self._next is None:
            link.release(stopped=self.stopped)
            return self.stopped
        if self._reading.cancelled_caught and self._next is None:
            self._engine.count("idle")
            logger.warning("call %s: nothing came for %g s", self.id, idle_s)
            link.release(reason="idle")
            return True
        return False

    def _keep_news(self, event: str, /, **facts: str | int | float) -> None:
        if len(self._news) < EARLY_NEWS:
            self._news.append((event, facts))

    def _deadline(self) -> float:
        return min(anyio.current_time() + self._options.idle_s, self._limit)

    async def _take_early(self, link: Link) -> None:
        for track, size in link.overflow.items():
            self._session.drop(size // self.format.sample_bytes, "before-start", self._ledger_track(track))
        for item in link.early:
            if not self._arrive(item):
                await self._session.ready()

    def _take_late(self) -> None:
        """Let go on what waits for frames that will not come any more."""
        for item in self._reorder.restart() if self._reorder is not None else ():
            self._place(item)

    def _arrive(self, item: Media | MediaError, text: str | bytes = "") -> bool:
        """Take a frame, or the place of one that cannot be read, as it comes from the socket."""
        if self._reorder is None:
            return self._place(item, text)
        media = item if isinstance(item, Media) else item.media
        room = True
        for each in self._reorder.take(media.track or self._default_track, media.chunk, item):
            room = self._place(each, text) and room
        return room

    def _place(self, item: Media | MediaError, text: str | bytes = "") -> bool:
        return self._audio(item, text) if isinstance(item, Media) else self._conceal(item.media, item.code)

    def _take(self, text: str | bytes) -> bool:
        """Take one message; return False if the sinks have no room."""
        try:
            message = envelope.parse(text, self._dialect)
            if message.__class__ is Media:
                return self._audio(message, text) if self._reorder is None else self._arrive(message, text)
        except MediaError as error:
            self._engine.count(error.code)
            self._empty(text)
            return self._arrive(error)
        except WireError as error:
            self._engine.count(error.code)
            return True
        if isinstance(message, envelope.Stop):
            self.stopped = self._said_stop = True
        elif isinstance(message, Dtmf):
            self._ordered.press(message.digit, message.track if message.track in self.tracks else self._default_track)
        elif isinstance(message, Played | Cleared):
            if self._line is not None:
                self._line.answer(message)
        elif isinstance(message, Start):
            self._engine.count("duplicate-start")
        elif isinstance(message, envelope.Trouble):
            self._engine.count("carrier-error")
            logger.warning("call %s: %s reports its error %s", self.id, self._dialect.name, message.code)
        elif isinstance(message, envelope.Unknown):
            self._engine.count("unknown-event")
        return True

    def _ledger_track(self, track: str) -> str:
        """A name from the wire does not become a name in the ledger."""
        return track if track in envelope.TRACKS else self._default_track

    def _audio(self, media: Media, text: str | bytes = "") -> bool:
        data = media.payload
        track = media.track or self._default_track
        samples, rest = divmod(len(data), self.format.sample_bytes)
        if track not in self.tracks:
            self._engine.count("unannounced-track")
            self._session.drop(samples, "unannounced-track", self._ledger_track(track))
            self._empty(text)
            return True
        if rest:
            # Somewhere in it a byte is missing or too many: behind that place it would be noise.
            self._engine.count("odd-bytes")
            self._empty(text)
            return self._conceal(media, "odd-bytes")
        if not samples:
            self._engine.count("empty-media")
            self._empty(text)
            return True
        self._barren = 0
        place = self._timeline.place(track, samples, media.chunk, media.timestamp_ms)
        if place.repeated:
            self._engine.count("duplicate")
            self._session.drop(samples, "duplicate", track)
            return True
        room = place is IN_ORDER or self._move(track, place)
        room = self._ordered.push(data, track) and room
        if self._truth is not None:
            self._listen(self._truth, track, media)
        return room

    def _listen(self, truth: WireTruth, track: str, media: Media) -> None:
        """Compare the beginning of the call with what its start says of it."""
        for code, where, text in truth.hear(track, media.payload, media.timestamp_ms):
            self._engine.count(code)
            logger.warning("call %s: %s", self.id, text)
            self._ordered.alarm(code, where)
        if truth.settled:
            self._truth = None

    def _conceal(self, media: Media, reason: str) -> bool:
        """Put silence where a frame that cannot be read would have stood."""
        track = media.track or self._default_track
        if track not in self.tracks:
            return True
        samples = self._timeline.usual_frame(track)
        place = self._timeline.place(track, samples, media.chunk, media.timestamp_ms)
        if place.repeated:
            return True
        room = self._move(track, place)
        return self._ordered.conceal(samples, reason, track) and room

    def _move(self, track: str, place: Place) -> bool:
        if self._timeline.numbering != self._numbering:
            self._numbering = self._timeline.numbering
            self._engine.count(f"chunks-per-{self._numbering}")
        if place.broken:
            self._engine.count("broken-timestamp")
        if place.begin:
            self._ordered.begin(track, place.begin)
        if place.missing:
            self._engine.count(place.reason)
            return self._ordered.conceal(place.missing, place.reason, track)
        return True

    def _empty(self, text: str | bytes) -> None:
        self._barren += 1
        if self._barren == BARREN:
            self._engine.count("no-audio")
            logger.error(
                "call %s: %d media messages in a row without audio; the last: %s",
                self.id,
                BARREN,
                envelope.outline(text),
            )

    def _byte_order_found(self, order: str) -> None:
        self._engine.count(f"byte-order-{order}")
        logger.info("call %s: byte order %s", self.id, order)
