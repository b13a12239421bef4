"""What is wrong with what was stored of a call, found by the watermark that was said in it.

Told as ``Flaw``s, with times of the call in milliseconds::

    nothing      no mark at all, read in any way         interleaved  the tracks follow each other frame by frame
    track        one whole track is missing              shift        the audio goes on too early or too late
    lost         marks are missing                       doubled      marks stand there twice
    added        sound behind the end                    reordered    marks in another order
    byte-order, law, rate, undecoded                     the audio is misread throughout
    sessions, unfinished, carrier                        for ``certify`` to find: not in the sound

Where no mark is found the audio may have been misread.  Each way of misreading is applied to what was said, and the
result looked for: that is how a wrong byte order, law or rate gets its name instead of being "noise".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from .. import dsp
from . import watermark
from .watermark import MARK, MARK_MS, QUIET, RATE, RMS, Search, at_rate, resembles, white

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Sound = NDArray[Any]

_CERTAIN, _MISREAD = 0.9, 0.5  # of 200 ms, not made white: against speech and noise of others chance reached 0.32
_SHIFT_MS = 3.0

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
    heard = at_rate(RATE, reading.view(heard), rate)
    flaws = [reading.flaw] if reading.flaw is not None else []
    found = {track: Search(white(heard, track), white(reading.sound(track), track)) for track in said.tracks}
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
        seen = at_rate(RATE, reading.view(heard), rate)
        sounds = [reading.sound(track) for track in said.tracks]
        if reading.plain:
            pairs = zip(said.tracks, sounds, strict=True)
            if max(resembles(white(seen, track), white(sound, track)) for track, sound in pairs) >= _CERTAIN:
                return reading
        likeness[reading] = max(resembles(seen, sound) for sound in (*sounds, np.sum(sounds, axis=0)))
    best = max(likeness, key=likeness.__getitem__)
    if likeness[best] >= _MISREAD:
        return best
    # Cut up and put together in another way, no block of the call is whole, but marks may be.
    plain = next(iter(likeness))
    seen = at_rate(RATE, heard, rate)
    searches = (Search(white(seen, track), white(plain.sound(track), track)) for track in said.tracks)
    return plain if any(search.present for search in searches) else None


def _readings(said: Said) -> Iterator[_Reading]:
    import numpy as np

    def pcm(track: str) -> bytes:
        return watermark.make(track, said.seconds, said.rate)

    def sound(data: bytes, rate: int) -> Sound:
        return at_rate(RATE, np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(float), rate)

    def swapped(heard: Sound) -> Sound:
        turned: Sound = heard.astype("<i2").byteswap().astype(float)
        return turned

    def plain(track: str) -> Sound:
        return watermark.sound(track, said.seconds, RATE)

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


# Judgement.


def _judge(track: str, search: Search, said: Said) -> Iterator[Flaw]:
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


def _lost(search: Search, excused: set[int]) -> tuple[Span, ...]:
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
        missing = ((count - last) * MARK - (search.end - place)) * 1000 / RATE
        if missing > _SHIFT_MS:
            end = count * MARK_MS
            spans = [span for span in spans if span[1] < end] + [(end - missing, end)]
    return tuple(spans)


def _steps(search: Search) -> Iterator[tuple[int, float]]:
    """Yield every mark that does not stand where the one before it leads, and by how many ms."""
    before: int | None = None
    for number, place in enumerate(search.found):
        if place is None:
            continue
        shift = place - number * MARK
        if before is not None and abs(shift - before) * 1000 / RATE > _SHIFT_MS:
            yield number, (shift - before) * 1000 / RATE
        before = shift


def _moves(track: str, search: Search, steps: Sequence[tuple[int, float]]) -> Iterator[Flaw]:
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
        if step > 0 and place is not None and number and search.stands_at(number - 1, place - MARK):
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


def _behind_end(heard: Sound, search: Search) -> bool:
    """Return True if there is sound behind the last mark."""
    import numpy as np

    last = max((place for place in search.found if place is not None), default=None)
    if last is None:
        return False
    rest = heard[last + 2 * MARK :]  # a mark's length is left to the delay of a filter
    return len(rest) >= MARK and float(np.sqrt(np.mean(rest**2))) > QUIET * RMS


def _where(spans: Sequence[Span], count: int) -> str:
    end = count * MARK_MS
    if len(spans) == 1:
        (start, stop) = spans[0]
        if start == 0:
            return "at the beginning"
        return "at the end" if stop == end else f"at {start / 1000:.2f} s"
    return f"in {len(spans)} places, the first at {spans[0][0] / 1000:.2f} s"
