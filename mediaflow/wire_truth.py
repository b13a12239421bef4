"""Whether a wire carries what it says: byte order, codec, sample rate, tracks.  No I/O.

A carrier announces a format once and nobody checks it.  A-law read as µ-law is static, a wrong rate is a voice of twice
the pitch, and one side of the call on both tracks is a transcript of half a consultation; none of it raises an error.
So the first half second of speech is listened to.

**Byte order and codec** show by smoothness.  Neighbouring samples of speech resemble each other; read in the wrong way
they do not.  A reading's *roughness* is the energy of its first difference over its energy without the mean: 0 for
the slowest sound, 2 for white noise, up to 4 for the highest tone.  A quarter of a second is read in all four ways, and
speaks for one of them if that is at most 1.0 rough, every other at least 1.3 times as rough, and none above 2.8, which
only a high tone is when it is rightly read::

    roughness of speech,         read as
    300–3400 Hz at 8 kHz         µ-law         A-law         L16 little    L16 big
    sent as µ-law                0.3 … 1.1     0.6 … 1.9     1.0 … 2.1     0.9 … 2.0
    sent as A-law                0.6 … 1.9     0.3 … 1.1     1.1 … 2.1     1.0 … 2.0
    sent as L16 little           1.0 … 2.5     1.3 … 2.1     0.3 … 1.1     1.3 … 2.1

A 16-bit reading of G.711 skips every other sample, which turns some high tones into low ones.  But every byte of G.711
is a sample, while of L16 every other one is the coarse half of one.  So the bytes at even and at odd places must be
spread differently (*unevenness*, 0 … 1; measured 0.36 … 0.99) for L16 and alike (0.03 … 0.31) for G.711.  Tones may
do that to G.711 too, near 4 kHz and at 2 kHz.  But then the two halves are the same smooth sound, or one of them has
few values (108 of 256 at most), where the fine half of L16 has nearly all.  Both rules together leave 1 window of 40 of
the lab's clip, as L16 from 0 to -45 dBFS, undecided.

Measured over the lab's clip at -10 to -45 dBFS and with noise down to 10 dB under it, no window speaks for a wrong
codec; nor did noise of any level, nor one of 129 000 windows of tones and chords up to 3950 Hz.  Two windows that agree
are half a second of speech; one of each kind cancel out.  A wrong label showed 0.3 to 1.3 s after the first word.

**The rate** shows by the clock: samples per millisecond of the carrier's own stamps, as the median over half a second,
because a lost frame is only one step.  It says nothing unless four steps of five agree on one of the rates that exist.
The time of arrival is not asked: a network's bursts, and a lab that plays faster than life, would both be alarms.
Nor is the spectrum: a narrow voice in a wide stream is what every telephone upsampled to 16 kHz sounds like.

**Doubled tracks** show by frames that are the same byte for byte: half a second of them in a row.  Swapped tracks do
not show at all: nothing in a voice says on which end of the line it is.

What is found is corrected only where that is safe, which is the byte order (``ByteOrder``).  The rest is told
(``WireTruth``), because a false correction would ruin a good call.

Silence and noise decide nothing and are to cost little: once two seconds of sound have said nothing of the codec, a
window of three is listened to, up to a minute of sound.  A wrong label may show by so much later then.  Listening took
8 % of what a call costs in its first minute, on a processor with 700 calls.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from . import dsp
from .frame import AudioFormat, Encoding

WINDOW_S = 0.25
ROUGH = 1.0
MARGIN = 1.3
ROUGHEST = 2.8
UNEVEN, EVEN = 0.45, 0.33
SMOOTH, ALIKE = 0.8, 1.1
FINE = 128
VOTES = 2

LOOK_S = 60.0
"""After how much sound a question is left open for good."""

EAGER_S, REST_S = 2.0, 2 * WINDOW_S
"""Sound that is listened to without a break, and the breaks behind it."""

RATES = (8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
STEPS = 25
AGREE = 0.8
NEAR = 0.03  # between a measured rate and one that exists

TWINS = 25
_MEMORY = 50  # frames for which the other track may be behind: a second
_DISTINCT = 8  # byte values; fewer are silence, or the idle pattern of a codec

HOLD_S = 0.5
QUIETER_DB = 12.0
_TRY_S = 0.1  # of new audio between two looks

Reading = Literal["mulaw", "alaw", "little", "big"]

_READ: Mapping[Reading, Callable[[bytes], bytes]] = {
    "mulaw": dsp.mulaw_decode,
    "alaw": dsp.alaw_decode,
    "little": lambda data: data,
    "big": dsp.swap_bytes,
}
_ENCODING: Mapping[Reading, Encoding] = {"mulaw": "mulaw", "alaw": "alaw", "little": "s16le", "big": "s16le"}


class Finding(NamedTuple):
    """Something that is not as announced.  ``code`` is its short name, ``text`` the sentence for a log."""

    code: str
    track: str
    text: str


def sounds_like(data: bytes) -> Reading | None:
    """Return the one way to read ``data`` in which it is a voice or a low tone, or None where that does not show."""
    data = data[: len(data) // 2 * 2]
    heard = {reading: read(data) for reading, read in _READ.items()}
    rough = {reading: dsp.roughness(pcm) for reading, pcm in heard.items()}
    best, second, *_, worst = sorted(rough, key=rough.__getitem__)
    if rough[best] > ROUGH or rough[second] < MARGIN * rough[best] or rough[worst] > ROUGHEST:
        return None
    # What is loud and smooth is rough with its bytes swapped; what is so quiet that one byte holds it is not.
    if not any(dsp.guess_byte_order(pcm) == "little" for pcm in heard.values()):
        return None
    uneven = dsp.unevenness(data)
    if _ENCODING[best] != "s16le":
        return best if uneven <= EVEN else None
    fine = data[0::2] if best == "little" else data[1::2]
    if uneven < UNEVEN or not dsp.varied(fine, FINE) or _interleaved(heard["mulaw"]) or _interleaved(heard["alaw"]):
        return None
    return best


def _interleaved(pcm: bytes) -> bool:
    """Tell whether the samples at even and at odd places are the same smooth sound."""
    even, odd = map(dsp.roughness, dsp.deinterleave(pcm, 2))
    return max(even, odd) <= min(SMOOTH, ALIKE * min(even, odd))


class _Sound:
    """How one track sounds, against the encoding that was announced."""

    def __init__(self, format: AudioFormat) -> None:
        self._encoding = format.encoding
        self._window = int(WINDOW_S * format.sample_rate)  # bytes: of 16-bit audio it is half as long
        self._left = int(LOOK_S * format.sample_rate) * format.sample_bytes
        self._patience = int(EAGER_S * format.sample_rate) * format.sample_bytes
        self._eager = self._left - self._patience
        self._rest = int(REST_S * format.sample_rate) * format.sample_bytes
        self._resting = 0
        self._heard = bytearray()
        self._votes: Counter[Encoding] | None = None  # of those there are
        self.settled = False

    def rests(self, size: int) -> bool:
        """Tell whether so many bytes are to be passed over."""
        if self._resting <= 0:
            return False
        self._resting -= size
        self._left -= size
        return True

    def rest(self) -> int:
        """``rests`` for a caller who passes over by itself: return how many bytes, which count as passed over then."""
        size, self._resting = self._resting, 0
        self._left -= size
        return size

    def hear(self, data: bytes) -> str:
        """Take audio that is not silence; return the finding, if there is one."""
        self._heard += data
        if len(self._heard) < self._window:
            return ""
        reading = sounds_like(bytes(self._heard))
        self._left -= len(self._heard)
        self._heard.clear()
        self.settled = self._left <= 0
        if reading is None:
            if self._left <= self._eager:
                self._resting = self._rest
            return ""
        self._eager = self._left - self._patience
        encoding = _ENCODING[reading]
        if self._votes is None:
            self._votes = Counter()
        self._votes[encoding] += 1
        # That many more than all others: only the one that has just got a vote can have reached that.
        if 2 * self._votes[encoding] - self._votes.total() < VOTES:
            return ""
        self.settled = True
        return "" if encoding == self._encoding else f"sounds-like-{encoding}"


class _Clock:
    """How many samples one track brings per second of the carrier's stamps."""

    def __init__(self, format: AudioFormat) -> None:
        self._rate = format.sample_rate
        self._last_ms: int | None = None
        self._samples = 0
        self._rates: list[float] = []
        self._steps = 0
        self.settled = False

    def tick(self, samples: int, timestamp_ms: int | None) -> str:
        """Take a frame; return the finding, if there is one."""
        last_ms, before = self._last_ms, self._samples
        self._last_ms, self._samples = timestamp_ms, samples
        self._steps += 1
        if last_ms is not None and timestamp_ms is not None and timestamp_ms > last_ms:
            # A stamp belongs to the first sample of its frame: the step is as long as the frame before.
            self._rates.append(before * 1000 / (timestamp_ms - last_ms))
        if len(self._rates) == STEPS:
            real = self._agreed()
            self._rates.clear()
            if real is not None:
                self.settled = True
                return "" if real == self._rate else f"rate-is-{real}"
        self.settled = self._steps >= int(LOOK_S * 50)
        return ""

    def _agreed(self) -> int | None:
        median = sorted(self._rates)[STEPS // 2]
        real = min(RATES, key=lambda rate: abs(rate - median))
        near = sum(abs(rate - real) <= NEAR * real for rate in self._rates)
        return real if near >= AGREE * STEPS else None


class _Twins:
    """Whether two tracks carry the same."""

    def __init__(self) -> None:
        self._recent: dict[str, deque[bytes]] = {}
        self._same: Counter[str] = Counter()
        self._other: Counter[str] = Counter()
        self.settled = False

    def hear(self, track: str, data: bytes) -> bool:
        """Take audio that is not silence; return True once the tracks are found to be the same."""
        recent = self._recent.setdefault(track, deque(maxlen=_MEMORY))
        recent.append(data)
        if any(data in heard for name, heard in self._recent.items() if name != track):
            self._same[track] += 1
            self._other[track] = 0
        else:
            self._other[track] += 1
            self._same[track] = 0
        same = self._same[track] >= TWINS
        self.settled = same or (len(self._other) > 1 and min(self._other.values()) >= _MEMORY)
        return same


class _Ear:
    """What is still listened for in one track."""

    def __init__(self, format: AudioFormat) -> None:
        self.sound: _Sound | None = _Sound(format)
        self.clock: _Clock | None = _Clock(format)


class WireTruth:
    """Listens to the beginning of a call and tells what is not as its format says."""

    def __init__(self, format: AudioFormat, tracks: tuple[str, ...]) -> None:
        self._format, self._sample_bytes = format, format.sample_bytes
        self._tracks = tracks
        self._ears = tuple([_Ear(format) for _ in tracks])
        self._twins = _Twins() if len(tracks) > 1 else None
        self._left = int(LOOK_S * 50) * len(tracks)

    @property
    def settled(self) -> bool:
        """True once there is nothing more to find out."""
        if self._left <= 0:
            return True
        for ear in self._ears:
            if ear.sound is not None or ear.clock is not None:
                return False
        return self._twins is None

    def rest(self) -> int:
        """Return how many bytes need not be brought: no track is listened to meanwhile."""
        ear = self._ears[0]
        if len(self._ears) > 1 or ear.clock is not None or ear.sound is None:
            return 0
        size = ear.sound.rest()
        self._left -= 50 * size // (self._format.sample_rate * self._sample_bytes)
        return size

    def hear(self, track: str, data: bytes, timestamp_ms: int | None) -> list[Finding]:
        """Take the next frame as it is on the wire, in order; return what it makes certain."""
        self._left -= 1
        found = []
        ear = self._ears[self._tracks.index(track)]
        clock, sound = ear.clock, ear.sound
        if sound is not None and sound.rests(len(data)):
            sound = None
        if clock is not None:
            if code := clock.tick(len(data) // self._sample_bytes, timestamp_ms):
                found.append(self._rate(track, code))
            if clock.settled:
                ear.clock = None
        if (sound is None and self._twins is None) or not dsp.varied(data, _DISTINCT):
            return found
        if sound is not None:
            if code := sound.hear(data):
                found.append(self._encoding(track, code))
            if sound.settled:
                ear.sound = None
        if self._twins is not None:
            if self._twins.hear(track, data):
                text = "both tracks carry the same audio: a side of the call is missing; look how the carrier forks it"
                found.append(Finding("tracks-identical", track, text))
            if self._twins.settled:
                self._twins = None
        return found

    def _rate(self, track: str, code: str) -> Finding:
        real = code.rpartition("-")[2]
        text = f"{track} is announced at {self._format.sample_rate} Hz, but its stamps say {real}: ask for that rate"
        return Finding(code, track, text)

    def _encoding(self, track: str, code: str) -> Finding:
        real = code.rpartition("-")[2]
        text = f"{track} is announced as {self._format.encoding}, but sounds like {real}: ask the carrier which it is"
        return Finding(code, track, text)


class ByteOrder:
    """Finds out the byte order of 16-bit audio, where nobody knows which one the carrier uses.

    Vobiz's own documents contradict each other about ``audio/x-l16``: a capture they print is little-endian, a guide of
    theirs says big-endian, and so does RFC 3551.  Speech shows it by being smooth in one order only.  A quiet line may
    show nothing by that, but read the wrong way it is loud: after half a second the quieter reading is believed for the
    time being, or little-endian if they are alike, and the audio goes on being looked at until it is certain.
    """

    def __init__(self, sample_rate: int) -> None:
        self.certain = False
        self.swap = False
        """True if the samples are believed to be big-endian."""
        self.waiting = False
        """True while audio should wait for the answer: there is some that could be read either way."""
        self._believed = False
        self._sample = bytearray()
        self._next_look = 0
        self._second = sample_rate * 2  # bytes

    def hear(self, data: bytes) -> str:
        """Look at more audio; return what is found: ``little``, ``big``, ``assumed-little``, ``assumed-big`` or ``""``.

        Zeros are the same either way: they decide nothing and nothing waits for them.
        """
        if self.certain or data.count(0) == len(data):
            return ""
        self._sample += data
        self.waiting = not self._believed
        if len(self._sample) < self._next_look:
            return ""
        self._next_look = len(self._sample) + int(_TRY_S * self._second)
        order = dsp.guess_byte_order(self._sample)
        if order is not None:
            self.certain = True
            return self._believe(order, order)
        finding = ""
        if len(self._sample) >= HOLD_S * self._second:
            if not self._believed:
                order = self._quieter()
                finding = self._believe(order, f"assumed-{order}")
            self._sample.clear()
            self._next_look = 0
        return finding

    def _believe(self, order: Literal["little", "big"], finding: str) -> str:
        self.swap = order == "big"
        self._believed, self.waiting = True, False
        return finding

    def _quieter(self) -> Literal["little", "big"]:
        swapped = dsp.rms_dbfs(dsp.swap_bytes(self._sample))
        return "big" if swapped + QUIETER_DB < dsp.rms_dbfs(self._sample) else "little"
