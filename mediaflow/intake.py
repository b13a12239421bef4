"""From a carrier's messages to a session: each frame once, in order, and where it belongs in time.  No I/O.

Every frame of every call goes through here, so this module is compiled as it stands (``intake.pxd`` has its types)::

    message ─ read ─▶ reorder ─▶ timeline ─▶ conceal what is missing, drop what is repeated ─▶ byte order ─▶ session
              │       if the carrier does                                                      while it is not known
              └ not a plain media message: ``envelope``

What is in the way of that is counted with the engine and stands in the call's account; nothing here raises for what a
carrier sends.  A message that cannot be read keeps its place: silence stands there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic

from . import envelope, timeline
from ._wire.media import Plain
from .component import Engine, Session
from .envelope import Cleared, Dtmf, Media, MediaError, Played, Start
from .errors import WireError
from .ordered_session import Order, OrderedSession
from .reorder import Reorder
from .timeline import IN_ORDER, Place, Timeline
from .wire_truth import WireTruth

logger = logging.getLogger(__name__)

BARREN = 50
"""Media messages in a row without audio that are worth a loud word: one second of a call lost."""


_plain = Plain()
"""What is read of a message, and taken out of it in the same call: one for all, which stays in the cache."""


def _unanswered(answer: Played | Cleared) -> None:
    """Nothing was played into the call."""


class Intake:
    """Takes the messages of one call, from all its sockets."""

    def __init__(self, call: str, start: Start, session: Session, order: Order, engine: Engine) -> None:
        self.heard = 0.0
        """When the last message came, by ``time.monotonic``."""
        self.said_stop = False
        """True once the carrier has said that the stream is over."""
        self.answered: Callable[[Played | Cleared], None] = _unanswered
        """Is given what the carrier answers to what was played into the call."""
        format = start.format
        self._call, self._dialect = call, start.dialect
        self._sample_bytes = format.sample_bytes
        self._tracks = start.tracks or envelope.TRACKS
        self._default_track = "inbound" if "inbound" in self._tracks else self._tracks[0]
        self._session, self._engine = session, engine
        self._push = session.push  # looked up once: for each frame that would be 130 instructions
        self._ordered = OrderedSession(session, order, self._byte_order_found)
        self._straight = self._ordered.is_plain  # past the one above; for 16-bit audio only once that has decided
        self._timeline = Timeline(format.sample_rate)
        self._reorder: Reorder[Media | MediaError] | None = None
        if start.dialect.reorder:
            self._reorder = Reorder(start.dialect.reorder)
        self._truth: WireTruth | None = WireTruth(format, self._tracks)
        self._deaf = 0  # bytes that it need not hear
        self._numbering = "unknown"
        self._barren = 0
        self._unseen = logger.isEnabledFor(logging.DEBUG)

    def take(self, text: str | bytes) -> bool:
        """Take one message; return False if the sinks have no room, or if it was the carrier's ``stop``."""
        self.heard = monotonic()
        if self._unseen:
            self._unseen = False
            logger.debug("call %s: messages look like %s", self._call, envelope.outline(text))
        plain = _plain
        if plain.read(text):
            data, plain.payload = plain.payload, None  # which would be kept until the next message
            assert data is not None
            if self._reorder is not None:
                chunk = plain.chunk if plain.numbered else None
                room = self.arrive(Media(data, plain.track, chunk, plain.timestamp_ms if plain.timed else None))
            else:
                room = self._audio(data, plain.track, plain.numbered, plain.chunk, plain.timed, plain.timestamp_ms)
        else:
            room = self._take_any(text)
        if self._barren == BARREN:
            self._tell_barren(text)
        return room

    def arrive(self, item: Media | MediaError) -> bool:
        """Take a frame, or the place of one that cannot be read, as it comes from the socket."""
        self.heard = monotonic()
        if self._reorder is None:
            return self._place(item)
        media = item if isinstance(item, Media) else item.media
        room = True
        for each in self._reorder.take(media.track or self._default_track, media.chunk, item):
            room = self._place(each) and room
        return room

    def overflowed(self, track: str, size: int) -> None:
        """Book ``size`` bytes that came before the start and could not be kept."""
        self._session.drop(size // self._sample_bytes, "before-start", self._ledger_track(track))

    def take_late(self) -> None:
        """Let go on what waits for frames that will not come any more."""
        for item in self._reorder.restart() if self._reorder is not None else ():
            self._place(item)

    def reconnected(self) -> None:
        """Go on with a new socket."""
        left = self.heard
        self._engine.count("reconnected")
        self.take_late()
        self._timeline.reconnected(lambda: (monotonic() - left) * 1000, self._dialect.own_clock)
        self._unseen = logger.isEnabledFor(logging.DEBUG)

    def end(self) -> None:
        """Let go what is held: nothing more will come."""
        self.take_late()
        self._ordered.release()

    def _place(self, item: Media | MediaError) -> bool:
        media = item if isinstance(item, Media) else item.media
        chunk, stamp = media.chunk, media.timestamp_ms
        number = timeline.number(chunk or 0)
        timed = stamp is not None and timeline.is_time(stamp)
        stamp_ms = stamp if timed and stamp is not None else 0
        if isinstance(item, Media):
            return self._audio(item.payload, item.track, chunk is not None, number, timed, stamp_ms)
        return self._conceal(media.track, chunk is not None, number, timed, stamp_ms, item.code)

    def _take_any(self, text: str | bytes) -> bool:
        try:
            message = envelope.parse(text, self._dialect)
        except MediaError as error:
            self._engine.count(error.code)
            self._empty()
            return self.arrive(error)
        except WireError as error:
            self._engine.count(error.code)
            return True
        if isinstance(message, Media):
            return self.arrive(message)
        if isinstance(message, envelope.Stop):
            self.said_stop = True
            return False
        if isinstance(message, Dtmf):
            track = message.track if message.track in self._tracks else None
            self._ordered.press(message.digit, track or self._default_track)
        elif isinstance(message, Played | Cleared):
            self.answered(message)
        elif isinstance(message, Start):
            self._engine.count("duplicate-start")
        elif isinstance(message, envelope.Trouble):
            self._engine.count("carrier-error")
            logger.warning("call %s: %s reports its error %s", self._call, self._dialect.name, message.code)
        elif isinstance(message, envelope.Unknown):
            self._engine.count("unknown-event")
        return True

    def _ledger_track(self, track: str) -> str:
        """A name from the wire does not become a name in the ledger."""
        return track if track in envelope.TRACKS else self._default_track

    def _audio(
        self, data: bytes, track: str | None, numbered: bool, number: int, timed: bool, timestamp_ms: int
    ) -> bool:
        if track is None:
            track = self._default_track
        size = len(data)
        samples, rest = size // self._sample_bytes, size % self._sample_bytes
        if track is not self._default_track and track not in self._tracks:
            self._engine.count("unannounced-track")
            self._session.drop(samples, "unannounced-track", self._ledger_track(track))
            self._empty()
            return True
        if rest:
            # Somewhere in it a byte is missing or too many: behind that place it would be noise.
            self._engine.count("odd-bytes")
            self._empty()
            return self._conceal(track, numbered, number, timed, timestamp_ms, "odd-bytes")
        if not samples:
            self._engine.count("empty-media")
            self._empty()
            return True
        self._barren = 0
        place = self._timeline.put(track, samples, numbered, number, timed, timestamp_ms)
        if place is IN_ORDER:
            room = self._push(data, track) if self._straight else self._order(data, track)
        elif place.repeated:
            self._engine.count("duplicate")
            self._session.drop(samples, "duplicate", track)
            return True
        else:
            room = self._move(track, place)
            room = self._order(data, track) and room
        if self._deaf > 0:
            self._deaf -= size
        elif self._truth is not None:
            self._listen(self._truth, track, data, timestamp_ms if timed else None)
        return room

    def _order(self, data: bytes, track: str) -> bool:
        room = self._ordered.push(data, track)
        self._straight = self._ordered.is_plain
        return room

    def _listen(self, truth: WireTruth, track: str, data: bytes, timestamp_ms: int | None) -> None:
        """Compare the beginning of the call with what its start says of it."""
        for code, where, text in truth.hear(track, data, timestamp_ms):
            self._engine.count(code)
            logger.warning("call %s: %s", self._call, text)
            self._ordered.alarm(code, where)
        self._deaf = truth.rest()
        if truth.settled:
            self._truth = None

    def _conceal(
        self, track: str | None, numbered: bool, number: int, timed: bool, timestamp_ms: int, reason: str
    ) -> bool:
        """Put silence where a frame that cannot be read would have stood."""
        if track is None:
            track = self._default_track
        if track not in self._tracks:
            return True
        samples = self._timeline.usual_frame(track)
        place = self._timeline.put(track, samples, numbered, number, timed, timestamp_ms)
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

    def _empty(self) -> None:
        if self._barren < BARREN:
            self._barren += 1

    def _tell_barren(self, text: str | bytes) -> None:
        self._barren = BARREN + 1  # told once, until there is audio again
        self._engine.count("no-audio")
        outline = envelope.outline(text)
        logger.error("call %s: %d media messages in a row without audio; the last: %s", self._call, BARREN, outline)

    def _byte_order_found(self, order: str) -> None:
        self._engine.count(f"byte-order-{order}")
        logger.info("call %s: byte order %s", self._call, order)
