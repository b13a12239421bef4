"""A session whose 16-bit audio comes in the byte order that pipelines carry, whichever one the carrier uses.

``wire_truth.ByteOrder`` finds the order by listening.  Until it knows, the first audio is held back, at most half a
second of it; what is told about the audio (gaps, beginnings, pressed keys, alarms) waits with it and keeps its place.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from . import dsp
from .component import Session
from .frame import Dtmf, WireAlarm
from .wire_truth import ByteOrder

Order = Literal["auto", "little", "big"]


class OrderedSession:
    """Stands before a session and passes everything on in sequence, the audio as little-endian.

    ``decided`` is called with what was found: ``little``, ``big``, or ``assumed-little`` and ``assumed-big`` while it
    is not certain.
    """

    def __init__(self, session: Session, order: Order, decided: Callable[[str], None]) -> None:
        self._session = session
        self._finder = ByteOrder(session.stream.format.sample_rate) if order == "auto" else None
        self._decided = None if self._finder is None else decided
        self._swap = order == "big"
        self._settled = self._finder is None
        self._held: list[Callable[[], object]] | None = None
        self._released = False

    @property
    def is_plain(self) -> bool:
        """True once audio goes on as it comes: whoever brings it may as well push it into the session."""
        return self._settled and not self._swap

    def push(self, data: bytes, track: str) -> bool:
        """Carry ``data`` as ``Session.push`` does."""
        if self._settled:
            return self._play(data, track)
        if self._finder is not None and self._decided is not None and (finding := self._finder.hear(data)):
            self._swap = self._finder.swap
            self._decided(finding)
            if self._finder.certain:
                self._finder = None
        return self._in_turn(partial(self._play, data, track))

    def conceal(self, samples: int, reason: str, track: str) -> bool:
        """Conceal as ``Session.conceal`` does."""
        return self._in_turn(lambda: self._session.conceal(samples, reason, track))

    def begin(self, track: str, position: int) -> None:
        """Begin as ``Session.begin`` does."""
        self._in_turn(lambda: self._session.begin(track, position))

    def press(self, digit: str, track: str) -> None:
        """Emit the pressing of a key behind the audio that has come."""
        self._in_turn(lambda: self._session.emit(Dtmf(track, self._session.time(track), digit)))

    def alarm(self, finding: str, track: str) -> None:
        """Emit an alarm behind the audio that gave rise to it."""
        self._in_turn(lambda: self._session.emit(WireAlarm(track, self._session.time(track), finding)))

    def release(self) -> bool:
        """Let go what is held, in the order that is believed; return False if the sinks have no room."""
        self._released = True
        held, self._held = self._held, None
        room = True
        for action in held or ():
            room = action() is not False and room
        return room

    def _in_turn(self, action: Callable[[], object]) -> bool:
        if self._finder is not None and self._finder.waiting and not self._released:
            if self._held is None:
                self._held = []
            self._held.append(action)
            return True
        room = self._held is None or self.release()
        self._settled = self._finder is None
        return action() is not False and room

    def _play(self, data: bytes, track: str) -> bool:
        return self._session.push(dsp.swap_bytes(data) if self._swap else data, track)
