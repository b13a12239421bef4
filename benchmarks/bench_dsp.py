"""Time `mediaflow.dsp` against audioop and soxr, and print one table.

    python benchmarks/bench_dsp.py [rounds]

Each row runs ours and the peer in turn, round by round, so that a change of the machine's speed meets
both; the figures are medians over the rounds and the ratio is the median of the rounds' ratios. Frames
are 20 ms of changing noise, because a frame that repeats teaches the branch predictor its samples.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import soxr

from mediaflow import dsp

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

ROUNDS = 25
ROUND_SECONDS = 0.002  # at least this long per side and round

Call = Callable[[Any], object]


class Row(NamedTuple):
    """One comparison: both functions take each of the inputs in turn."""

    name: str
    ours: Call
    peer_name: str
    peer: Call
    inputs: Sequence[bytes]
    peer_inputs: Sequence[Any]


class Timing(NamedTuple):
    """Medians in ns per call, and how many times faster ours is."""

    ours: float
    peer: float
    ratio: float


def noise(count: int, seed: int = 0) -> bytes:
    """Make noise with a speech-like spread of levels."""
    generator = np.random.default_rng(seed)
    return bytes(np.clip(generator.laplace(0, 3000, count), -32768, 32767).astype("<i2").tobytes())


def frames(count: int) -> list[bytes]:
    """Cut noise into frames of `count` samples: many short ones or one long one."""
    return [noise(count, seed) for seed in range(max(1, 10_000 // count))]


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


def g711_rows() -> Iterator[Row]:
    """Frames of 20 ms at 8 and 16 kHz, a second and a minute."""
    for count in (160, 320, 8000, 480_000):
        pcm = frames(count)
        for law, decode, encode, peer_decode, peer_encode in (
            ("mulaw", dsp.mulaw_decode, dsp.mulaw_encode, audioop.ulaw2lin, audioop.lin2ulaw),
            ("alaw", dsp.alaw_decode, dsp.alaw_encode, audioop.alaw2lin, audioop.lin2alaw),
        ):
            codes = [encode(frame) for frame in pcm]
            to_pcm: Call = lambda data, call=peer_decode: call(data, 2)  # noqa: E731
            to_codes: Call = lambda data, call=peer_encode: call(data, 2)  # noqa: E731
            yield Row(f"{law}_decode {count}", decode, "audioop", to_pcm, codes, codes)
            yield Row(f"{law}_encode {count}", encode, "audioop", to_codes, pcm, pcm)


def resample_rows() -> Iterator[Row]:
    """Streams in frames of 20 ms, a second and a minute at a time."""
    pairs = ((8000, 16000), (16000, 8000), (24000, 16000), (16000, 24000), (48000, 16000), (48000, 8000), (44100, 16000))
    for rate_in, rate_out in pairs:
        for seconds, name in ((0.02, "20 ms"), (1, "1 s"), (60, "60 s")):
            if seconds > 1 and rate_in != 8000:
                continue
            pcm = frames(int(rate_in * seconds))
            arrays = [np.frombuffer(frame, np.int16) for frame in pcm]
            for quality in ("fast", "strict"):
                ours = dsp.Resampler(rate_in, rate_out, quality)  # type: ignore[arg-type]
                peer = soxr.ResampleStream(rate_in, rate_out, 1, dtype="int16", quality="HQ")
                title = f"resample {rate_in}-{rate_out} {quality} {name}"
                yield Row(title, ours.process, "soxr HQ", peer.resample_chunk, pcm, arrays)


def other_rows() -> Iterator[Row]:
    """The detector and the small functions, per frame."""
    for rate in (8000, 16000):
        pcm = frames(rate // 50)
        rms: Call = lambda data: audioop.rms(data, 2)  # noqa: E731
        yield Row(f"EnergyVad {rate} 20 ms", dsp.EnergyVad(rate).process, "audioop.rms", rms, pcm, pcm)
        yield Row(f"rms_dbfs {rate // 50}", dsp.rms_dbfs, "audioop.rms", rms, pcm, pcm)
        add: Call = lambda data: audioop.add(data, data, 2)  # noqa: E731
        yield Row(f"mix {rate // 50}", lambda data: dsp.mix(data, data), "audioop.add", add, pcm, pcm)
        swap: Call = lambda data: audioop.byteswap(data, 2)  # noqa: E731
        yield Row(f"swap_bytes {rate // 50}", dsp.swap_bytes, "audioop.byteswap", swap, pcm, pcm)


def main(rounds: int = ROUNDS) -> None:
    """Print the table."""
    print(f"{'what':38} {'ns a call':>12} {'peer':>17} {'ns a call':>12} {'ratio':>7}")
    for rows in (g711_rows(), resample_rows(), other_rows()):
        for row in rows:
            timing = measure(row, rounds)
            print(f"{row.name:38} {timing.ours:12,.0f} {row.peer_name:>17} {timing.peer:12,.0f} {timing.ratio:6.2f}x")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
