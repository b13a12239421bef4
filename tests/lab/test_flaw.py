"""What is found again of a sound that was cut, turned, misread and mixed, with codecs and resamplers not ours."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import soxr

from mediaflow.lab import watermark
from mediaflow.lab.flaw import Flaw, Said, examine

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

S = 4.0
ONE = Said(("inbound",), S)
TWO = Said(("inbound", "outbound"), S)
L16 = Said(("inbound",), S, "s16le")
Sound = np.ndarray[Any, np.dtype[Any]]


def telephone(track: str = "inbound") -> Sound:
    """Return what a receiver decodes of µ-law at 8 kHz."""
    coded = audioop.lin2ulaw(watermark.make(track, S, 8000), 2)
    return np.frombuffer(audioop.ulaw2lin(coded, 2), "<i2").astype(float)


def wide(sound: Sound) -> Sound:
    """Resample to 16 kHz."""
    resampled: Sound = soxr.resample(sound, 8000, 16_000)
    return resampled


def pcm(sound: Sound) -> bytes:
    """Return 16-bit PCM."""
    return np.clip(np.round(sound), -32768, 32767).astype("<i2").tobytes()


IN, OUT = telephone(), telephone("outbound")
FRAMES = IN.reshape(-1, 160)


def without(start_ms: int, end_ms: int, silence: bool) -> Sound:
    """Take audio out, and put silence there or nothing."""
    start, end = start_ms * 8, end_ms * 8
    return np.concatenate([IN[:start], np.zeros(end - start if silence else 0), IN[end:]])


def late(sound: Sound, ms: int) -> Sound:
    """Put silence before a sound."""
    return np.concatenate([np.zeros(ms * 8), sound])


GOOD: dict[str, tuple[bytes, int, Said]] = {
    "one track": (pcm(wide(IN)), 16_000, ONE),
    "a mix": (pcm(wide(IN + OUT)), 16_000, TWO),
    "a mix at 8 kHz": (pcm(IN + OUT), 8000, TWO),
    "resampled in lines": (pcm(np.interp(np.arange(0, len(IN), 0.5), np.arange(len(IN)), IN)), 16_000, ONE),
    "tracks with delays of their own": (pcm(wide(late(IN, 5) + np.pad(OUT, (0, 40)))), 16_000, TWO),
    "with silence around": (pcm(np.concatenate([np.zeros(4000), wide(IN), np.zeros(8000)])), 16_000, ONE),
    "quieter": (pcm(wide(IN) / 8), 16_000, ONE),
    "withheld, silence in its place": (
        pcm(wide(without(2000, 2400, True))), 16_000, ONE._replace(withheld={"inbound": [(2000, 2400)]})
    ),
    "a track withheld as a whole": (pcm(wide(IN)), 16_000, TWO._replace(withheld={"outbound": [(0, 4000)]})),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_nothing_wrong_is_found_where_nothing_is(name: str) -> None:
    """Codecs, resamplers, delays and levels change nothing that matters."""
    assert examine(*GOOD[name]) == []


def kinds(flaws: list[Flaw]) -> list[tuple[str, str]]:
    """Return kind and track of each flaw."""
    return [(flaw.kind, flaw.track) for flaw in flaws]


def test_lost_audio_is_told_to_the_millisecond() -> None:
    """In the middle by whole marks, at the ends by what is there; and whether time went on."""
    (kept,) = examine(pcm(wide(without(2000, 2400, True))), 16_000, ONE)
    assert (kept.kind, kept.ms, kept.spans) == ("lost", 400, ((2000, 2400),))
    lost, shift = examine(pcm(wide(without(2000, 2400, False))), 16_000, ONE)
    assert (lost.kind, lost.spans) == ("lost", ((2000, 2400),))
    assert (shift.kind, shift.text) == ("shift", "from 2.40 s on inbound is -400 ms off its time")
    (tail,) = examine(pcm(wide(IN)[:-80]), 16_000, ONE)
    assert tail.kind == "lost" and tail.ms == pytest.approx(5, abs=1) and "at the end" in tail.text
    (tail,) = examine(pcm(wide(IN)[:-1600]), 16_000, ONE)
    assert tail.ms == pytest.approx(100, abs=1) and tail.spans[0][1] == 4000
    (head,) = examine(pcm(wide(IN)[1600:]), 16_000, ONE)
    assert (head.ms, head.spans) == (100, ((0, 100),))


def test_withheld_audio_still_has_its_time() -> None:
    """What the carrier lost is not the bridge's loss; that it closed the gap is."""
    said = ONE._replace(withheld={"inbound": [(2000.0, 2400.0)]})
    assert kinds(examine(pcm(wide(without(2000, 2400, False))), 16_000, said)) == [("shift", "inbound")]


MOVED: list[tuple[str, Callable[[], Sound], list[tuple[str, str]]]] = [
    ("twice", lambda: np.concatenate([FRAMES[:100], FRAMES[99:]]).reshape(-1), [("doubled", "inbound")]),
    (
        "exchanged",
        lambda: np.concatenate([FRAMES[:100], FRAMES[[101, 100]], FRAMES[102:]]).reshape(-1),
        [("reordered", "inbound")],
    ),
    ("silence put in", lambda: np.concatenate([IN[:8000], np.zeros(800), IN[8000:]]), [("shift", "inbound")]),
    ("old sound behind the end", lambda: np.concatenate([IN, *FRAMES[-1:].repeat(10, 0)]), [("added", "")]),
    ("every second frame", lambda: FRAMES[::2].reshape(-1), [("lost", "inbound"), ("shift", "inbound")]),
]


@pytest.mark.parametrize(("name", "make", "expected"), MOVED, ids=[name for name, *_ in MOVED])
def test_what_moved_is_named(name: str, make: Callable[[], Sound], expected: list[tuple[str, str]]) -> None:
    """Doubled, exchanged, shifted and added audio are told apart."""
    assert kinds(examine(pcm(wide(make())), 16_000, ONE)) == expected


def test_tracks() -> None:
    """A track that is missing has its name; tracks in turns are no mix."""
    (missing,) = examine(pcm(wide(IN)), 16_000, TWO)
    assert (missing.kind, missing.track, missing.ms) == ("track", "outbound", 4000)
    in_turns = np.stack([FRAMES, OUT.reshape(-1, 160)], axis=1).reshape(-1)
    assert kinds(examine(pcm(wide(in_turns)), 16_000, TWO)) == [("interleaved", "")]


def swapped(sound: bytes) -> bytes:
    """Turn the bytes of 16-bit PCM."""
    return np.frombuffer(sound, "<i2").byteswap().tobytes()


def decoded(law: Callable[[bytes, int], bytes], coded: bytes) -> Sound:
    """Decode G.711."""
    return np.frombuffer(law(coded, 2), "<i2").astype(float)


SPOKEN = watermark.make("inbound", S, 8000)
MISREAD: dict[str, tuple[bytes, Said, str]] = {
    "sent out big-endian": (swapped(pcm(wide(IN + OUT))), TWO, "byte-order"),
    "taken in big-endian": (pcm(wide(np.frombuffer(swapped(SPOKEN), "<i2").astype(float))), L16, "byte-order"),
    "mu-law as A-law": (pcm(wide(decoded(audioop.alaw2lin, audioop.lin2ulaw(SPOKEN, 2)))), ONE, "law"),
    "A-law as mu-law": (pcm(wide(decoded(audioop.ulaw2lin, audioop.lin2alaw(SPOKEN, 2)))), ONE, "law"),
    "not decoded": (audioop.lin2ulaw(SPOKEN, 2), ONE, "undecoded"),
    "8 kHz for 16": (pcm(IN + OUT), TWO, "rate"),
    "16 kHz for 8": (pcm(wide(wide(IN))), ONE, "rate"),
    "another sound": (pcm(np.random.default_rng(1).normal(size=64_000) * 3000), TWO, "nothing"),
    "silence": (bytes(64_000), TWO, "nothing"),
    "not a sample": (b"", TWO, "nothing"),
}


@pytest.mark.parametrize("name", MISREAD)
def test_misread_audio_is_named(name: str) -> None:
    """Each way of misreading a wire is known by its effect, and is the one flaw."""
    stored, said, kind = MISREAD[name]
    assert [flaw.kind for flaw in examine(stored, 16_000, said)] == [kind]
