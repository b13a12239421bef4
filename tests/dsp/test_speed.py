"""Speed as ratios to a peer in the same run, with so wide a margin that a busy machine does not matter."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.dsp_speed import Row, frames, measure
from mediaflow import dsp

np = pytest.importorskip("numpy")
soxr = pytest.importorskip("soxr")
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

PCM = frames(160)
CODES = [dsp.mulaw_encode(frame) for frame in PCM]
ARRAYS = [np.frombuffer(frame, np.int16) for frame in PCM]


def stream() -> Callable[[Any], object]:
    resampler: Callable[[Any], object] = soxr.ResampleStream(8000, 16000, 1, dtype="int16", quality="HQ").resample_chunk
    return resampler


def rows() -> list[Row]:
    """Half of what the benchmark measures, or less: with AVX2 alone the ratios are about two thirds."""
    return [
        Row("decode", dsp.mulaw_decode, "audioop", lambda x: audioop.ulaw2lin(x, 2), CODES, CODES, 1.5),
        Row("encode", dsp.mulaw_encode, "audioop", lambda x: audioop.lin2ulaw(x, 2), PCM, PCM, 15.0),
        Row("fast", dsp.Resampler(8000, 16000, "fast").process, "soxr", stream(), PCM, ARRAYS, 4.0),
        Row("strict", dsp.Resampler(8000, 16000, "strict").process, "soxr", stream(), PCM, ARRAYS, 2.0),
        Row("vad", dsp.EnergyVad(8000).process, "rms", lambda x: audioop.rms(x, 2), PCM, PCM, 0.4),
    ]


def too_slow(row: Row) -> str | None:
    """Say what is wrong, if anything is."""
    ratio = measure(row, 9).ratio
    return None if ratio >= row.goal else f"{row.name} is {ratio:.2f} times as fast as {row.peer_name}, not {row.goal}"


@pytest.mark.slow
@pytest.mark.parametrize("row", rows(), ids=[row.name for row in rows()])
def test_faster_than_the_peer(row: Row) -> None:
    """Each kernel beats its peer by the margin."""
    assert too_slow(row) is None


@pytest.mark.slow
def test_a_planted_slow_down_is_noticed() -> None:
    """Work done six times over fails."""
    row = rows()[0]

    def six_times(data: bytes) -> None:
        for _ in range(6):
            row.ours(data)

    problem = too_slow(row._replace(ours=six_times))

    assert problem is not None
    assert "decode is" in problem
