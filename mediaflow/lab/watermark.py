"""A sound that tells where it has been: what is said in a rehearsal, and how it is found again in what was stored.

Each track is noise of its own, never twice the same, so every 20 ms of it are a mark.  Three properties make the marks
survive a telephone and a bridge:

* it fills 300 … 3400 Hz and is small enough for two tracks to be added: µ-law and any resampler pass it;
* its power falls with frequency as a voice's does, so that what judges by the sound (byte order) hears a voice;
* the two tracks take turns in bands of 200 Hz.  One filter therefore takes a mix apart again, whatever each track's
  delay has become.

To find a mark, both it and what was stored are filtered to the track's bands and made white (the fall with frequency is
undone), then correlated.  A mark in its place correlates above 0.9.  20 ms in half of 3.1 kHz are 60 independent
values, so chance has a deviation of 0.13: the best of 6400 wrong places near the right one reaches 0.55, of all of a
minute's 0.6.  So 0.75 is a find anywhere, and 0.6 where it is expected, which half a mark reaches.

Where no mark is found the audio may have been misread.  Each way of misreading is applied to what was said, and the
result looked for: that is how a wrong byte order, law or rate gets its name instead of being "noise".

What is found is told as ``Flaw``s, with times of the call in milliseconds::

    nothing      no mark at all, read in any way         interleaved  the tracks follow each other frame by frame
    track        one whole track is missing              shift        the audio goes on too early or too late
    lost         marks are missing                       doubled      marks stand there twice
    added        sound behind the end                    reordered    marks in another order
    byte-order, law, rate, undecoded                     the audio is misread throughout
    sessions, unfinished, carrier                        for ``certify`` to find: not in the sound
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from .. import dsp

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Sound = NDArray[Any]

RATE = 16_000
"""Hz, of everything that is compared."""

MARK_MS = 20
_MARK = RATE * MARK_MS // 1000
_RMS = 3000  # of a track; two of them peak below full scale

_LOW, _HIGH, _BAND = 300, 3400, 200
_EXPECTED, _ANYWHERE = 0.6, 0.75
_JITTER = 24  # samples around the expected place that are looked at first: a resampler's delay and its rounding
_NEAR = RATE * 4 // 10  # samples around it that are looked at next
_BLOCK = RATE // 5  # what a way of misreading is recognised by: 200 ms
_CERTAIN, _MISREAD = 0.9, 0.35  # of such blocks: 3200 samples correlate by chance with a deviation of 0.03
_SAMPLE = 16  # marks that are looked for before all are: of a track that is missing, none is there
_SHIFT_MS = 3.0
_QUIET = 0.02  # of a mark's amplitude: silence, or a filter's end

Kind = Literal[
    "nothing",
    "track",
    "lost",
    "added",
    "interleaved",
    "shift",
    "doubled",
    "reordered",
    "byte-order",
    "law",
    "rate",
    "undecoded",
    "sessions",
    "unfinished",
    "carrier",
]
Span = tuple[float, float]


class Flaw(NamedTuple):
    """One thing that is wrong with what was stored: ``ms`` of it, in ``spans`` of the call's time."""

    kind: Kind
    text: str
    track: str = ""
    ms: float = 0.0
    spans: tuple[Span, ...] = ()


class Said(NamedTuple):
    """What a carrier has said: its tracks, how long, in which encoding, and what of it was withheld."""

    tracks: tuple[str, ...]
    seconds: float
    encoding: Literal["mulaw", "s16le"] = "mulaw"
    rate: int = 8000
    withheld: Mapping[str, Sequence[Span]] = {}


def make(track: str, seconds: float, rate: int) -> bytes:
    """Return the sound of a track: 16-bit PCM at 8000 or 16 000 Hz, always the same."""
    import numpy as np

    return bytes(np.round(_sound(track, seconds, rate)).astype("<i2").tobytes())


@cache
def _sound(track: str, seconds: float, rate: int) -> Sound:
    import numpy as np

    count = round(seconds * rate)
    frequencies = np.fft.rfftfreq(count, 1 / rate)
    random = np.random.default_rng(len(track))
    bins = round(seconds * _HIGH) + 1  # the same number at every rate, so that the sound is the same
    values = np.zeros(len(frequencies), complex)
    values[:bins] = random.normal(size=bins) + 1j * random.normal(size=bins)
    values *= _bands(frequencies, track) / np.maximum(frequencies, 1)
    sound: Sound = np.fft.irfft(values, count)
    sound *= _RMS / np.sqrt(np.mean(sound**2))
    return sound


def _bands(frequencies: Sound, track: str) -> Sound:
    """Return 1 in the bands of ``track`` and 0 elsewhere."""
    number = (frequencies - _LOW) // _BAND
    mask: Sound = (frequencies >= _LOW) & (frequencies < _HIGH) & (number % 2 == (track == "outbound"))
    return mask * 1.0


def examine(stored: bytes, rate: int, said: Said) -> list[Flaw]:
    """Compare 16-bit PCM with what was said."""
    import numpy as np

    heard = np.frombuffer(stored[: len(stored) // 2 * 2], "<i2").astype(float)
    reading = _recognise(heard, rate, said)
    if reading is None:
        what = f"{len(heard) / rate:.1f} s of sound in which nothing of the call is found"
        return [Flaw("nothing", what if heard.any() else "nothing but silence was stored")]
    if not reading.plain:
        return [reading.flaw] if reading.flaw is not None else []
    heard = _at(RATE, reading.view(heard), rate)
    flaws = [reading.flaw] if reading.flaw is not None else []
    found = {track: _Search(_white(heard, track), _white(reading.sound(track), track)) for track in said.tracks}
    for track, search in found.items():
        flaws += [flaw for flaw in _judge(track, search, said) if flaw not in flaws]
    if all(_behind_end(heard, search) for search in found.values() if search.present):
        flaws.append(Flaw("added", "sound that was not said, or was said before, stands behind the end"))
    return flaws


# Ways to read.


class _Reading(NamedTuple):
    """A way in which what was said may have become what is stored."""

    flaw: Flaw | None
    sound: Callable[[str], Sound]  # of a track, at RATE, as it would be stored
    view: Callable[[Sound], Sound] = lambda heard: heard
    plain: bool = False
    """True if the sound is what was said, so that each mark can be looked for."""


def _recognise(heard: Sound, rate: int, said: Said) -> _Reading | None:
    """Return the way of reading in which the call is found best, or None."""
    import numpy as np

    likeness: dict[_Reading, float] = {}
    for reading in _readings(said):
        seen = _at(RATE, reading.view(heard), rate)
        sounds = [reading.sound(track) for track in said.tracks]
        if reading.plain:
            pairs = zip(said.tracks, sounds, strict=True)
            if max(_resembles(_white(seen, track), _white(sound, track)) for track, sound in pairs) >= _CERTAIN:
                return reading
        likeness[reading] = max(_resembles(seen, sound) for sound in (*sounds, np.sum(sounds, axis=0)))
    best = max(likeness, key=likeness.__getitem__)
    if likeness[best] >= _MISREAD:
        return best
    # Cut up and put together in another way, no block of the call is whole, but marks may be.
    plain = next(iter(likeness))
    seen = _at(RATE, heard, rate)
    searches = (_Search(_white(seen, track), _white(plain.sound(track), track)) for track in said.tracks)
    return plain if any(search.present for search in searches) else None


def _readings(said: Said) -> Iterator[_Reading]:
    import numpy as np

    def pcm(track: str) -> bytes:
        return make(track, said.seconds, said.rate)

    def sound(data: bytes, rate: int) -> Sound:
        return _at(RATE, np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(float), rate)

    def swapped(heard: Sound) -> Sound:
        turned: Sound = heard.astype("<i2").byteswap().astype(float)
        return turned

    def plain(track: str) -> Sound:
        return _sound(track, said.seconds, RATE)

    yield _Reading(None, plain, plain=True)
    turned = Flaw("byte-order", "what was sent out is big-endian: turn the bytes before sending")
    yield _Reading(turned, plain, swapped, plain=True)
    if said.encoding == "s16le":
        text = "the carrier's L16 was read in the wrong byte order"
        yield _Reading(Flaw("byte-order", text), lambda track: sound(dsp.swap_bytes(pcm(track)), said.rate))
    else:
        wrong = "µ-law and A-law were taken for each other"
        law = Flaw("law", wrong)
        yield _Reading(law, lambda track: sound(dsp.alaw_decode(dsp.mulaw_encode(pcm(track))), 8000))
        yield _Reading(law, lambda track: sound(dsp.mulaw_decode(dsp.alaw_encode(pcm(track))), 8000))
        raw = Flaw("undecoded", "µ-law went on as if it were 16-bit PCM: decode it first")
        yield _Reading(raw, lambda track: sound(dsp.mulaw_encode(pcm(track)), RATE))
        yield _Reading(raw, lambda track: sound(dsp.mulaw_encode(pcm(track)), 8000))
    for factor, words in ((2.0, "half"), (0.5, "twice"), (4.0, "a quarter of"), (0.25, "four times")):
        flaw = Flaw("rate", f"the audio plays at {words} its speed: the rate was mistaken")
        yield _Reading(flaw, lambda track, f=factor: sound(pcm(track), round(said.rate / f)))  # type: ignore[misc]


def _at(rate: int, sound: Sound, from_rate: int) -> Sound:
    """Resample by the spectrum."""
    import numpy as np

    if rate == from_rate or not len(sound):
        return sound
    spectrum = np.fft.rfft(sound)
    count = round(len(sound) * rate / from_rate)
    whole = np.zeros(count // 2 + 1, complex)
    kept = min(len(whole), len(spectrum))
    whole[:kept] = spectrum[:kept]
    resampled: Sound = np.fft.irfft(whole, count) * (count / len(sound))
    return resampled


def _white(sound: Sound, track: str) -> Sound:
    """Keep the bands of a track, and undo the fall with frequency."""
    import numpy as np

    if not len(sound):
        return sound
    frequencies = np.fft.rfftfreq(len(sound), 1 / RATE)
    white: Sound = np.fft.irfft(np.fft.rfft(sound) * _bands(frequencies, track) * frequencies, len(sound))
    return white


def _resembles(heard: Sound, sound: Sound) -> float:
    """Return the best correlation of any of eight blocks of ``sound`` with any place of ``heard``."""
    starts = range(0, len(sound) - _BLOCK, max(1, (len(sound) - _BLOCK) // 8))
    places = _Places(heard)
    return max((places.best(sound[start : start + _BLOCK])[0] for start in starts), default=0.0)


class _Places:
    """Where in a sound another one stands."""

    def __init__(self, heard: Sound) -> None:
        import numpy as np

        self.heard = heard
        self._sums = np.concatenate(([0.0], np.cumsum(heard**2)))
        self._size = 1 << max(1, (len(heard) + _BLOCK - 1)).bit_length()
        self._spectrum: Any = None

    def best(self, mark: Sound, first: int = 0, last: int | None = None) -> tuple[float, int]:
        """Return the highest correlation of ``mark`` at a place from ``first`` to before ``last``, and that place."""
        import numpy as np

        end = len(self.heard) - len(mark) + 1
        first, last = max(first, 0), end if last is None else min(last, end)
        if last <= first:
            return 0.0, 0
        if last - first <= 2 * _NEAR:
            products = np.correlate(self.heard[first : last + len(mark) - 1], mark, "valid")
        else:
            if self._spectrum is None:
                self._spectrum = np.fft.rfft(self.heard, self._size)
            spectrum = self._spectrum * np.conj(np.fft.rfft(mark, self._size))
            products = np.fft.irfft(spectrum, self._size)[first:last]
        energy = self._sums[first + len(mark) : last + len(mark)] - self._sums[first:last]
        power = float(mark @ mark)
        norms = np.sqrt(np.maximum(energy, _QUIET * power) * power)
        correlations = products / np.maximum(norms, 1e-9)
        place = int(np.argmax(correlations))
        return float(correlations[place]), first + place


class _Search:
    """Looks for each mark of a track, near the last one first."""

    def __init__(self, heard: Sound, sound: Sound) -> None:
        self.places = _Places(heard)
        self.marks = [sound[start : start + _MARK] for start in range(0, len(sound) - _MARK + 1, _MARK)]
        self.found: list[int | None] = [None] * len(self.marks)
        """The place of each mark, in samples of what was stored."""
        self.end = len(heard)
        if all(self._find(mark, ()) is None for mark in self.marks[:: max(1, len(self.marks) // _SAMPLE)]):
            return
        shift: int | None = None
        step = 0
        for number, mark in enumerate(self.marks):
            expected = [] if shift is None else [number * _MARK + shift, number * _MARK + shift + step]
            place = self._find(mark, expected)
            self.found[number] = place
            if place is not None:
                now = place - number * _MARK
                step = 0 if shift is None else now - shift
                shift = now

    @property
    def present(self) -> bool:
        """True if there is more of the track than chance."""
        return sum(place is not None for place in self.found) > len(self.found) // 20

    def _find(self, mark: Sound, expected: Sequence[int]) -> int | None:
        for each in dict.fromkeys(expected):
            value, place = self.places.best(mark, each - _JITTER, each + _JITTER + 1)
            if value >= _EXPECTED:
                return place
        for each in expected[:1]:
            value, place = self.places.best(mark, each - _NEAR, each + _NEAR)
            if value >= _ANYWHERE:
                return place
        value, place = self.places.best(mark)
        return place if value >= _ANYWHERE else None

    def stands_at(self, number: int, place: int) -> bool:
        """Return True if a mark stands at a place, give or take a millisecond."""
        return self.places.best(self.marks[number], place - 16, place + 17)[0] >= _ANYWHERE


# Judgement.


def _judge(track: str, search: _Search, said: Said) -> Iterator[Flaw]:
    count = len(search.marks)
    excused = {
        number
        for start, end in said.withheld.get(track, ())
        for number in range(count)
        if start < (number + 1) * MARK_MS and number * MARK_MS < end
    }
    if len(excused) == count:
        return
    if not search.present:
        yield Flaw("track", f"{track} is missing as a whole", track, count * MARK_MS, ((0, count * MARK_MS),))
        return
    steps = list(_steps(search))
    if sum(abs(step - MARK_MS) < _SHIFT_MS for _, step in steps) > count // 3:
        text = "the tracks follow each other frame by frame instead of being mixed: everything lasts too long"
        yield Flaw("interleaved", text)
        return
    lost = _lost(search, excused)
    if lost:
        total = sum(end - start for start, end in lost)
        yield Flaw("lost", f"{total:.0f} ms of {track} are lost {_where(lost, count)}", track, total, lost)
    yield from _moves(track, search, steps)


def _lost(search: _Search, excused: set[int]) -> tuple[Span, ...]:
    spans: list[Span] = []
    for number, place in enumerate(search.found):
        if place is None and number not in excused:
            start = float(number * MARK_MS)
            if spans and spans[-1][1] == start:
                start = spans.pop()[0]
            spans.append((start, start + MARK_MS if start == number * MARK_MS else (number + 1) * MARK_MS))
    # Where the recording ends inside a mark, its length says better than the mark how much is missing.
    count = len(search.marks)
    last = max((number for number, place in enumerate(search.found) if place is not None), default=None)
    if last is not None and last not in excused and all(n not in excused for n in range(last, count)):
        place = search.found[last]
        assert place is not None
        missing = ((count - last) * _MARK - (search.end - place)) * 1000 / RATE
        if missing > _SHIFT_MS:
            end = count * MARK_MS
            spans = [span for span in spans if span[1] < end] + [(end - missing, end)]
    return tuple(spans)


def _steps(search: _Search) -> Iterator[tuple[int, float]]:
    """Yield every mark that does not stand where the one before it leads, and by how many ms."""
    before: int | None = None
    for number, place in enumerate(search.found):
        if place is None:
            continue
        shift = place - number * _MARK
        if before is not None and abs(shift - before) * 1000 / RATE > _SHIFT_MS:
            yield number, (shift - before) * 1000 / RATE
        before = shift


def _moves(track: str, search: _Search, steps: Sequence[tuple[int, float]]) -> Iterator[Flaw]:
    doubled: list[int] = []
    reordered: list[int] = []
    shifts: list[tuple[int, float]] = []
    skip = -1
    for index, (number, step) in enumerate(steps):
        if number <= skip:
            continue
        # A mark that changed places with its neighbours: the steps around it add up to nothing.
        near = [each for each in steps[index : index + 3] if each[0] <= number + 2]
        back = any(part < 0 for _, part in near) and any(part > 0 for _, part in near)
        if back and abs(sum(part for _, part in near)) < _SHIFT_MS:
            reordered.append(number)
            skip = near[-1][0]
            continue
        place = search.found[number]
        if step > 0 and place is not None and number and search.stands_at(number - 1, place - _MARK):
            doubled.append(number - 1)
            continue
        shifts.append((number, step))
    yield from _told(track, "doubled", "stand there twice", doubled)
    yield from _told(track, "reordered", "are in another order", reordered)
    if shifts:
        total = sum(step for _, step in shifts)
        number, first = shifts[0]
        many = f", and {len(shifts) - 1} times more, {total:+.0f} ms in all" if len(shifts) > 1 else ""
        text = f"from {number * MARK_MS / 1000:.2f} s on {track} is {first:+.0f} ms off its time{many}"
        spans = tuple((float(n * MARK_MS), n * MARK_MS + step) for n, step in shifts)
        yield Flaw("shift", text, track, max(abs(step) for _, step in shifts), spans)


def _told(track: str, kind: Kind, words: str, numbers: Sequence[int]) -> Iterator[Flaw]:
    if numbers:
        spans = tuple((float(n * MARK_MS), float((n + 1) * MARK_MS)) for n in numbers)
        text = f"{len(numbers) * MARK_MS} ms of {track} {words}, first at {numbers[0] * MARK_MS / 1000:.2f} s"
        yield Flaw(kind, text, track, len(numbers) * MARK_MS, spans)


def _behind_end(heard: Sound, search: _Search) -> bool:
    """Return True if there is sound behind the last mark."""
    import numpy as np

    last = max((place for place in search.found if place is not None), default=None)
    if last is None:
        return False
    rest = heard[last + 2 * _MARK :]  # a mark's length is left to the delay of a filter
    return len(rest) >= _MARK and float(np.sqrt(np.mean(rest**2))) > _QUIET * _RMS


def _where(spans: Sequence[Span], count: int) -> str:
    end = count * MARK_MS
    if len(spans) == 1:
        (start, stop) = spans[0]
        if start == 0:
            return "at the beginning"
        return "at the end" if stop == end else f"at {start / 1000:.2f} s"
    return f"in {len(spans)} places, the first at {spans[0][0] / 1000:.2f} s"
