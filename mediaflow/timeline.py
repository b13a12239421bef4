"""Where each arriving frame stands in its call: gaps, pauses, repeats and clocks that wander.  No I/O.

The carrier stamps a frame with ``timestamp`` (milliseconds, of its epoch or of the stream) and mostly numbers it with
``chunk``.  Either may be missing.  A ``Timeline`` turns them into one answer per frame: how many samples are missing
before it, or that it has been here already.

Each track keeps the timestamp at which its next sample is *expected*; a frame is *late* by the difference.  What the
chunk numbers add is certainty about small differences:

    chunk          late by               the frame
    follows        under 60 ms           is in order: jitter
    follows        60 ms or more         comes after a pause of the carrier: so much is missing
    skips, absent  under 3/4 frame       is in order
    skips, absent  3/4 frame or more     comes after a loss: so much is missing
    goes back      -3/4 frame or less    is a repeat
    goes back      more                  is judged as if it had none: the numbers began anew
    absent         -3/4 frame to -2 s    is a repeat
    follows, skips -60 ms or less        is new, its timestamp broken: the clock is set anew, nothing inserted
    any            over 10 min or -2 s   the same

The expected time follows the timestamps by 1/64 of their difference per frame.  Clocks that drift apart, by 100 ppm
or so, thereby never add up to a gap, and jitter moves nothing: the expected time stays within the range of the
timestamps seen, so jitter of less than 3/4 frame from peak to peak inserts nothing.  Of a frame shorter than 2 ms the
3/4 are taken to be 1.5 ms, because stamps are whole milliseconds.

A carrier that connects again may begin its clock anew.  The new clock is then set beside the old one by ours: between
the last frame of the old socket and the first of the new one passed so much time, of which the new frame is a part, and
the rest is missing.  It is right to within the jitter of those two frames; from there on both tracks are measured by
the new clock::

    old clock   … 980 1000 ┊  lost …            1000 was expected to go on at 1020
    ours               7.0 ┊       … 9.5        2.5 s passed: 2480 ms are missing before the new frame
    new clock              ┊         0 20 40    so 0 of the new clock is 3500 of the old one

Whether ``chunk`` counts the frames of a track or of the socket is not documented where two tracks share one.  It shows
at the first frames after both have begun, and ``numbering`` tells what was found::

    per track     i1 o1 i2 o2 i3     a frame follows the last of its own track
    per socket    i1 o2 i3 o4 i5     a frame follows if no number was skipped on the socket since its track's last

Until it shows, the chunks are taken to count the track's.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Literal, NamedTuple

FRAME_MS = 20
"""What carriers put in a frame; the length of a lost one until a track has shown its own."""

GAP_FRAMES = 0.75
ROUNDING_MS = 1.5
"""Stamps are whole milliseconds, rounded or cut: of two frames their distance is up to 1 ms off."""

PAUSE_MS = 60.0
REPLAY_MS = 2_000.0
LONGEST_GAP_MS = 600_000.0
_FOLLOW = 1 / 64
_WHOLE_FRAMES = 0.25  # a gap this near to whole frames is whole frames: what gets lost is frames
_LONGEST_REPLAY = 100  # two seconds of nothing but repeats are no repeats: the stamps stand still
_CERTAIN = 8  # how far evidence for one numbering must be outweighed before the other is believed
_LARGEST_MS = 2**53  # what a float holds exactly; no clock is there
_LARGEST = 1 << 61  # whose differences fit 64 bits
_NO_TIME = -inf  # in the place of a time that is not known
_BACK = -1  # in the place of a number of lost frames
_UNKNOWN = -2

Numbering = Literal["unknown", "track", "socket"]


class Place(NamedTuple):
    """Where a frame stands.

    ``missing`` samples are to be concealed before it for ``reason``.  A ``repeated`` frame has no place.  ``begin`` is
    set with the first frame of a track: the position at which it starts.  ``broken`` tells that the timestamp or the
    chunk could not be used.
    """

    missing: int = 0
    reason: str = ""
    repeated: bool = False
    begin: int | None = None
    broken: bool = False


IN_ORDER = Place()
_REPEATED = Place(repeated=True)
_BROKEN = Place(broken=True)


class _Track:
    def __init__(self, begin: int, frame: int, expected_ms: float) -> None:
        self.end = begin  # position of the next sample
        self.frame = frame  # samples in the last frame
        self.expected_ms = expected_ms
        self.numbered = False  # whether the last frame on this socket had a chunk
        self.chunk = 0
        self.skipped = 0  # of the socket, when the last frame came
        self.fresh = False  # nothing has come yet since the carrier reconnected
        self.left_ms = expected_ms  # what was expected, by the clock of the last socket
        self.repeats = 0  # in a row
        self.blind = False  # timestamps are of no use
        self.numberless = False  # chunks are of no use


class Timeline:
    """The clock of one call, through all its sockets."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._tracks: dict[str, _Track] = {}
        self._last: _Track | None = None  # the track that was placed last, which most calls have no other beside
        self._name = ""
        self._numbered = False
        self._chunk = 0  # the last of the socket
        self._skipped = 0  # chunk numbers that the socket left out
        self._elapsed_ms: Callable[[], float] | None = None  # until the new clock is set
        self._evidence = 0  # above 0 for chunks that count the socket's frames, below for the track's

    @property
    def numbering(self) -> Numbering:
        """What the chunk numbers count, as far as it has shown."""
        return "socket" if self._evidence > 0 else "track" if self._evidence < 0 else "unknown"

    def usual_frame(self, track: str) -> int:
        """Return how many samples a frame of ``track`` has, for one that cannot be read."""
        state = self._tracks.get(track)
        return self._rate * FRAME_MS // 1000 if state is None else state.frame

    def reconnected(self, elapsed_ms: Callable[[], float] | None = None, own_clock: bool = False) -> None:
        """Go on with a new socket: its chunks count anew, and what is missing is missing for that reason.

        ``elapsed_ms`` is asked at the first frame how long nothing has come.  By that the gap is measured where
        ``own_clock`` tells that the timestamps count anew too, and where they show it; without it there is no gap then.
        """
        self._elapsed_ms = elapsed_ms
        for state in self._tracks.values():
            state.numbered = False
            state.fresh = True
            if state.expected_ms > _NO_TIME:
                state.left_ms = state.expected_ms
            if own_clock:
                state.expected_ms = _NO_TIME

    def place(self, track: str, samples: int, chunk: int | None, timestamp_ms: int | None) -> Place:
        """Take the next frame to arrive, of ``samples`` on ``track``, and say where it stands."""
        stamp = timestamp_ms if timestamp_ms is not None and is_time(timestamp_ms) else None
        return self.put(track, samples, chunk is not None, number(chunk or 0), stamp is not None, stamp or 0)

    def put(self, track: str, samples: int, numbered: bool, number: int, timed: bool, timestamp_ms: int) -> Place:
        """``place`` with numbers of 64 bits, which mean something where it is ``numbered`` and ``timed``."""
        stamp_ms = timestamp_ms * 1.0 if timed and -_LARGEST_MS < timestamp_ms < _LARGEST_MS else _NO_TIME
        state = self._last
        if state is None or track != self._name:
            state = self._last = self._tracks.get(track)
            self._name = track
        if state is None:
            place = self._begin(samples, stamp_ms)
            state = self._last = self._tracks[track] = _Track(place.begin or 0, samples, stamp_ms)
        else:
            timed = stamp_ms > _NO_TIME and not state.blind
            if not timed or (state.expected_ms == _NO_TIME and not self._set_clock(state, samples, stamp_ms)):
                place = self._by_chunk(state, self._lost(state, numbered, number, False))
                state.expected_ms = state.expected_ms if state.expected_ms > _NO_TIME else stamp_ms
            else:
                place = self._by_time(state, self._lost(state, numbered, number, True), samples, stamp_ms)
            if place is not IN_ORDER and place.repeated:
                state.repeats += 1
                if state.repeats <= _LONGEST_REPLAY:
                    return place
                place = _BROKEN
                if timed:
                    state.blind = True
                else:
                    state.numberless = True
        if numbered:
            if self._numbered and number > self._chunk:
                self._skipped += number - self._chunk - 1
            state.numbered = self._numbered = True
            state.chunk = self._chunk = number
            state.skipped = self._skipped
        state.fresh = False
        state.repeats = 0
        state.frame = samples
        advance = samples if place is IN_ORDER else samples + place.missing
        state.end += advance
        state.expected_ms += advance * 1000.0 / self._rate
        return place

    def _begin(self, samples: int, stamp_ms: float) -> Place:
        """Set a track that begins beside one that runs where its timestamp says, or beside the last frame of it."""
        other = next(iter(self._tracks.values()), None)
        if other is None:
            return Place(begin=0)
        timed = stamp_ms > _NO_TIME
        if timed and other.expected_ms == _NO_TIME:
            self._set_clock(other, samples, stamp_ms)
        if timed and other.expected_ms > _NO_TIME:
            ahead_ms = stamp_ms - other.expected_ms
            if abs(ahead_ms) <= LONGEST_GAP_MS:
                return Place(begin=other.end + round(ahead_ms * self._rate / 1000))
        return Place(begin=other.end - samples, broken=timed)

    def _set_clock(self, state: _Track, samples: int, stamp_ms: float) -> bool:
        """Set the clock that has begun anew by ours, if there is something to set it by."""
        if self._elapsed_ms is None or state.left_ms == _NO_TIME:
            return False
        missing_ms = max(self._elapsed_ms() - samples * 1000.0 / self._rate, 0.0)
        shift_ms = stamp_ms - missing_ms - state.left_ms
        for each in self._tracks.values():
            if each.left_ms > _NO_TIME:
                each.expected_ms = each.left_ms + shift_ms
        self._elapsed_ms = None
        return True

    def _lost(self, state: _Track, numbered: bool, number: int, timed: bool) -> int:
        """Return how many frames of the track are missing by their numbers, ``_BACK`` or ``_UNKNOWN``."""
        if not numbered or not state.numbered or not self._numbered or state.numberless:
            return _UNKNOWN
        own, whole = number - state.chunk, number - self._chunk
        if len(self._tracks) == 1:
            return own - 1 if own > 0 else _BACK
        if (own == 1) != (whole == 1):
            self._evidence = max(-_CERTAIN, min(_CERTAIN, self._evidence + (1 if whole == 1 else -1)))
        if self._evidence <= 0:
            return own - 1 if own > 0 else _BACK
        if whole <= 0:
            return _BACK
        if self._skipped + whole - 1 == state.skipped:
            return 0
        # Numbers are missing on the socket, and nobody says of which track: the timestamps know.  Without them the
        # tracks are taken to alternate.
        return _UNKNOWN if timed else max(round(own / len(self._tracks)) - 1, 0)

    def _by_chunk(self, state: _Track, lost: int) -> Place:
        if lost == _UNKNOWN or lost == 0:
            return IN_ORDER
        if lost == _BACK:
            return _REPEATED
        if 1000.0 * lost * state.frame > LONGEST_GAP_MS * self._rate:
            return _BROKEN
        return Place(lost * state.frame, "reconnect" if state.fresh else "gap")

    def _by_time(self, state: _Track, lost: int, samples: int, stamp_ms: float) -> Place:
        late_ms = stamp_ms - state.expected_ms
        if lost == 0 and -PAUSE_MS < late_ms < PAUSE_MS:  # nearly every frame
            state.expected_ms += late_ms * _FOLLOW
            return IN_ORDER
        frame_ms = state.frame * 1000.0 / self._rate
        slack_ms = max(GAP_FRAMES * frame_ms, ROUNDING_MS)
        new = lost >= 0
        if not new and -REPLAY_MS <= late_ms <= -slack_ms:
            return _REPEATED
        if late_ms > LONGEST_GAP_MS or late_ms < -REPLAY_MS or (new and late_ms <= -PAUSE_MS):
            if state.fresh and self._set_clock(state, samples, stamp_ms):
                return self._by_time(state, lost, samples, stamp_ms)
            state.expected_ms += late_ms
            return _BROKEN
        if late_ms < slack_ms:
            state.expected_ms += late_ms * _FOLLOW
            return IN_ORDER
        frames = lost if lost > 0 and abs(late_ms - lost * frame_ms) < slack_ms else round(late_ms / frame_ms)
        near = GAP_FRAMES if frames == lost else _WHOLE_FRAMES
        whole = abs(late_ms - frames * frame_ms) <= near * frame_ms
        missing = frames * state.frame if whole else round(late_ms * self._rate / 1000)
        state.expected_ms += (late_ms - missing * 1000.0 / self._rate) * _FOLLOW
        return Place(missing, "reconnect" if state.fresh else "gap")


def is_time(timestamp_ms: int) -> bool:
    """Say whether a time may be computed with; no clock shows one beyond that."""
    return -_LARGEST_MS < timestamp_ms < _LARGEST_MS


def number(chunk: int) -> int:
    """Return a number of 64 bits that follows as ``chunk`` does: a carrier may number as it likes."""
    try:
        number = chunk
    except OverflowError:  # where this is compiled
        return chunk % _LARGEST
    return number if -_LARGEST < number < _LARGEST else number % _LARGEST
