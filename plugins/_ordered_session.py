"""Bring 16-bit audio into the byte order that pipelines carry, also where nobody knows which one the carrier uses.

Vobiz's own documents contradict each other about ``audio/x-l16``: a capture they print is little-endian, a guide of
theirs says big-endian, and so does RFC 3551.  Read the wrong way, speech is loud noise.  So by default the first audio
is held back, at most half a second of it, until it shows its order:

* zeros are the same either way and pass, so a silent start delays nothing and decides nothing;
* speech shows it by being smooth in one order only (``dsp.guess_byte_order``);
* a quiet line may show nothing by that, but read the wrong way it is loud: the quieter reading is taken for the time
  being, or little-endian if they are alike, and the audio goes on being looked at until it is certain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from mediaflow import Dtmf, Session, dsp

Order = Literal["auto", "little", "big"]

HOLD_S = 0.5
QUIETER_DB = 12.0
_TRY_S = 0.1  # of new audio between two looks


class OrderedSession:
    """Stands before a session and passes everything on in sequence, the audio as little-endian.

    ``decided`` is called with what was found: ``little``, ``big``, or ``assumed-little`` and ``assumed-big`` while it
    is not certain.
    """

    def __init__(self, session: Session, order: Order, decided: Callable[[str], None]) -> None:
        self._session = session
        self._decided = decided
        self._swap = order == "big"
        self._looking = self._holding = order == "auto"
        self._settled = not self._looking
        self._held: list[Callable[[], object]] = []
        self._sample = bytearray()
        self._next_look = 0
        self._second = session.stream.format.sample_rate * 2  # bytes

    def push(self, data: bytes, track: str) -> bool:
        """Carry ``data`` as ``Session.push`` does."""
        if self._settled:
            return self._play(data, track)
        if self._looking and data.count(0) != len(data):
            self._look(data)
        return self._in_turn(lambda: self._play(data, track))

    def conceal(self, samples: int, reason: str, track: str) -> bool:
        """Conceal as ``Session.conceal`` does."""
        return self._in_turn(lambda: self._session.conceal(samples, reason, track))

    def begin(self, track: str, position: int) -> None:
        """Begin as ``Session.begin`` does."""
        self._in_turn(lambda: self._session.begin(track, position))

    def press(self, digit: str, track: str) -> None:
        """Emit the pressing of a key behind the audio that has come."""
        self._in_turn(lambda: self._session.emit(Dtmf(track, self._session.time(track), digit)))

    def release(self) -> bool:
        """Let go what is held, in the order that is believed; return False if the sinks have no room."""
        self._holding = False
        held, self._held = self._held, []
        room = True
        for action in held:
            room = action() is not False and room
        return room

    def _in_turn(self, action: Callable[[], object]) -> bool:
        if self._holding and self._sample:
            self._held.append(action)
            return True
        room = not self._held or self.release()
        self._settled = not self._looking
        return action() is not False and room

    def _play(self, data: bytes, track: str) -> bool:
        return self._session.push(dsp.swap_bytes(data) if self._swap else data, track)

    def _look(self, data: bytes) -> None:
        self._sample += data
        if len(self._sample) < self._next_look:
            return
        self._next_look = len(self._sample) + int(_TRY_S * self._second)
        order = dsp.guess_byte_order(self._sample)
        if order is not None:
            self._looking = False
            self._believe(order, order)
        elif len(self._sample) >= HOLD_S * self._second:
            if self._holding:
                order = self._quieter()
                self._believe(order, f"assumed-{order}")
            self._sample.clear()
            self._next_look = 0

    def _believe(self, order: Literal["little", "big"], finding: str) -> None:
        self._swap = order == "big"
        self._holding = False
        self._decided(finding)

    def _quieter(self) -> Literal["little", "big"]:
        swapped = dsp.rms_dbfs(dsp.swap_bytes(self._sample))
        return "big" if swapped + QUIETER_DB < dsp.rms_dbfs(self._sample) else "little"
