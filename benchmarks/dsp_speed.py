"""Speed of `mediaflow.dsp` beside its peers.

Each row runs ours and the peer in turn, round by round, so that a change of the machine's speed meets both; the
figures are medians over the rounds and the ratio is the median of the rounds' ratios. Inputs change from call to call,
because a frame that repeats teaches the branch predictor its samples.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from typing import Any, Literal, NamedTuple

import numpy as np

from mediaflow import dsp

ROUNDS = 25
ROUND_SECONDS = 0.002  # at least this long per side and round

Call = Callable[[Any], object]


class Row(NamedTuple):
    """One comparison: both functions take each of their inputs in turn. The goal is the ratio we want to reach."""

    name: str
    ours: Call
    peer_name: str
    peer: Call
    inputs: Sequence[Any]
    peer_inputs: Sequence[Any]
    goal: float = 0.0


class Timing(NamedTuple):
    """Medians in ns per call, and how many times faster ours is."""

    ours: float
    peer: float
    ratio: float


def peer(name: str) -> Any:
    """Import a peer, or return None where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(name)
    except ImportError:
        return None


PEERS = {name: peer(name) for name in ("audioop", "soxr", "samplerate", "scipy.signal", "webrtcvad", "auditok")}
audioop, soxr, samplerate, signal, webrtcvad, auditok = PEERS.values()


def noise(count: int, seed: int = 0) -> bytes:
    """Make noise with a speech-like spread of levels."""
    generator = np.random.default_rng(seed)
    return bytes(np.clip(generator.laplace(0, 3000, count), -32768, 32767).astype("<i2").tobytes())


def frames(count: int) -> list[bytes]:
    """Make different inputs of `count` samples: many short ones or one long one."""
    return [noise(count, seed) for seed in range(max(1, 40_000 // count))]


def spent(call: Call, inputs: Sequence[Any], repeats: int) -> float:
    """Return ns per call."""
    start = time.perf_counter_ns()
    for _ in range(repeats):
        for data in inputs:
            call(data)
    return (time.perf_counter_ns() - start) / repeats / len(inputs)


def measure(row: Row, rounds: int = ROUNDS) -> Timing:
    """Run both sides in turn."""
    repeats = []
    for call, inputs in ((row.ours, row.inputs), (row.peer, row.peer_inputs)):
        once = spent(call, inputs, 1) * len(inputs)
        repeats.append(max(1, int(ROUND_SECONDS * 1e9 / once)))
    ours, peers = [], []
    for _ in range(rounds):
        ours.append(spent(row.ours, row.inputs, repeats[0]))
        peers.append(spent(row.peer, row.peer_inputs, repeats[1]))
    ratio = statistics.median(peer / our for our, peer in zip(ours, peers, strict=True))
    return Timing(statistics.median(ours), statistics.median(peers), ratio)


def with_width(function: Callable[..., object]) -> Call:
    """Call a function of audioop on 16-bit samples."""
    return lambda data: function(data, 2)


def g711_rows() -> Iterator[Row]:
    """Frames of 20 ms at 8 and 16 kHz, a second and a minute."""
    decode_goals = {160: 2.3, 320: 3.0, 8000: 9.0, 480_000: 9.0}
    for count, goal in decode_goals.items():
        pcm = frames(count)
        for law, decode, encode, names in (
            ("mulaw", dsp.mulaw_decode, dsp.mulaw_encode, ("ulaw2lin", "lin2ulaw")),
            ("alaw", dsp.alaw_decode, dsp.alaw_encode, ("alaw2lin", "lin2alaw")),
        ):
            codes = [encode(frame) for frame in pcm]
            if audioop:
                to_pcm, to_codes = (with_width(getattr(audioop, name)) for name in names)
                yield Row(f"{law}_decode {count}", decode, "audioop", to_pcm, codes, codes, goal)
                yield Row(f"{law}_encode {count}", encode, "audioop", to_codes, pcm, pcm, 38.0)
            if count > 8000:
                out = [np.frombuffer(dsp.mulaw_decode(codes[0]), np.int16)]
                yield Row(f"{law}_decode {count}", decode, "numpy.copy", lambda x: x.copy(), codes, out, 1.0)


RESAMPLE_GOALS = {
    (8000, 16000): (11.0, 5.0),
    (16000, 8000): (7.0, 3.2),
    (24000, 16000): (5.0, 2.7),
    (16000, 24000): (5.0, 2.7),
    (48000, 16000): (3.5, 2.0),
    (48000, 8000): (3.2, 2.3),
    (44100, 16000): (2.2, 1.2),
}
QUALITIES: tuple[Literal["fast", "strict"], ...] = ("fast", "strict")


def resample_rows() -> Iterator[Row]:
    """Streams in frames of 20 ms, and a minute at a time."""
    for (rate_in, rate_out), goals in RESAMPLE_GOALS.items():
        for count, name in ((rate_in // 50, "20 ms"), (rate_in * 60, "60 s")):
            if count > 10_000 and rate_in != 8000:
                continue
            pcm = frames(count)
            arrays = [np.frombuffer(frame, np.int16) for frame in pcm]
            minute_goals = (4.2, 1.6)
            for index, quality in enumerate(QUALITIES):
                goal = (goals if name == "20 ms" else minute_goals)[index]
                title = f"resample {rate_in}-{rate_out} {quality} {name}"
                ours = dsp.Resampler(rate_in, rate_out, quality).process
                if soxr:
                    stream = soxr.ResampleStream(rate_in, rate_out, 1, dtype="int16", quality="HQ")
                    yield Row(title, ours, "soxr HQ", stream.resample_chunk, pcm, arrays, goal)
                if samplerate and (rate_in, name) == (8000, "20 ms"):
                    floats = [array.astype(np.float32) for array in arrays]
                    medium = partial(samplerate.Resampler("sinc_medium").process, ratio=2.0)
                    yield Row(title, ours, "samplerate", medium, pcm, floats)
                if signal and (rate_in, name) == (8000, "20 ms"):
                    yield Row(title, ours, "scipy poly", lambda x: signal.resample_poly(x, 2, 1), pcm, arrays)
    if audioop:
        pcm = frames(160)
        ours = dsp.Resampler(8000, 16000).process
        ratecv: Call = lambda x: audioop.ratecv(x, 2, 1, 8000, 16000, None)  # noqa: E731
        yield Row("resample 8000-16000 fast 20 ms", ours, "ratecv", ratecv, pcm, pcm)


def marked_by_webrtcvad(pcm: bytes) -> list[tuple[int, int]]:
    """Cut as speech_chunks does, with webrtcvad in a Python loop."""
    vad = webrtcvad.Vad(2)
    chunks, start, silent = [], 0, 0
    for end in range(160, len(pcm) // 2 + 1, 160):
        silent = 0 if vad.is_speech(pcm[2 * end - 320 : 2 * end], 8000) else silent + 1
        if (end - start >= 80_000 and silent >= 10) or end - start >= 200_000:
            chunks.append((start, end))
            start = end
    return [*chunks, (start, len(pcm) // 2)]


def vad_rows() -> Iterator[Row]:
    """The detector per frame, and cutting a minute."""
    for rate, goal in ((8000, 8.0), (16000, 6.0)):
        pcm = frames(rate // 50)
        ours = dsp.EnergyVad(rate).process
        if webrtcvad:
            theirs: Call = partial(webrtcvad.Vad(2).is_speech, sample_rate=rate)
            yield Row(f"EnergyVad {rate} 20 ms", ours, "webrtcvad", theirs, pcm, pcm, goal)
        yield Row(f"EnergyVad {rate} 20 ms", ours, "numpy rms", numpy_rms, pcm, pcm)
    minute = b"".join(noise(8000 * 2, seed) + bytes(8000) for seed in range(24))
    cut: Call = lambda x: dsp.speech_chunks(x, 8000)  # noqa: E731
    if webrtcvad:
        yield Row("speech_chunks 60 s", cut, "webrtcvad loop", marked_by_webrtcvad, [minute], [minute], 11.0)
    if auditok:
        split: Call = lambda x: list(auditok.split(x, sr=8000, sw=2, ch=1, min_dur=10, max_dur=25))  # noqa: E731
        yield Row("speech_chunks 60 s", cut, "auditok", split, [minute], [minute], 35.0)


def numpy_rms(pcm: bytes) -> float:
    """Measure a level as one would without a compiler."""
    return float(np.sqrt(np.mean(np.frombuffer(pcm, np.int16).astype(np.float64) ** 2)))


def chain_rows() -> Iterator[Row]:
    """A chain against its stages called one by one, and the small functions."""
    codes = [dsp.mulaw_encode(frame) for frame in frames(160)]
    chained = dsp.EnergyVad(16000)
    chain = dsp.Chain([dsp.mulaw_decode, dsp.Resampler(8000, 16000), chained])
    resampler, vad = dsp.Resampler(8000, 16000), dsp.EnergyVad(16000)

    def all_at_once(data: bytes) -> object:
        chain.process(data)
        return chained.take()

    def one_by_one(data: bytes) -> object:
        return vad.process(resampler.process(dsp.mulaw_decode(data)))

    yield Row("chain decode-resample-vad", all_at_once, "one by one", one_by_one, codes, codes, 1 / 1.15)
    if audioop:
        pcm = frames(160)
        yield Row("rms_dbfs 160", dsp.rms_dbfs, "audioop.rms", lambda x: audioop.rms(x, 2), pcm, pcm)
        yield Row("mix 160", lambda x: dsp.mix(x, x), "audioop.add", lambda x: audioop.add(x, x, 2), pcm, pcm)


def rows() -> Iterator[Row]:
    """Yield every comparison that the installed peers allow."""
    yield from g711_rows()
    yield from resample_rows()
    yield from vad_rows()
    yield from chain_rows()
