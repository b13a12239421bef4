"""Every rate with every size of block, and signals that bring the worst out of arithmetic."""

from __future__ import annotations

import time

import numpy as np
import pytest
from dsp import reference

from mediaflow import dsp

RATES = (8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000)
SIZES = (0, 1, 2, 3, 15, 16, 17, 31, 33, 79, 80, 81, 159, 160, 161, 319, 320, 441, 882, 959, 960, 961, 1024, 2048, 4096)


@pytest.mark.parametrize("rate_in", RATES)
@pytest.mark.parametrize("rate_out", RATES)
def test_every_pair_in_blocks_of_every_size(rate_in: int, rate_out: int) -> None:
    """Blocks of growing size, 0 to 4096, give the bits of the whole."""
    pcm = reference.pcm(np.random.default_rng(rate_in).uniform(-32768, 32767, sum(SIZES)))
    for quality in ("fast", "strict"):
        resampler = dsp.Resampler(rate_in, rate_out, quality)
        whole = resampler.process(pcm) + resampler.flush()
        parts, position = [], 0
        for size in SIZES:
            parts.append(resampler.process(pcm[2 * position : 2 * (position + size)]))
            position += size

        assert b"".join(parts) + resampler.flush() == whole
        assert len(whole) == 2 * -(-position * rate_out // rate_in)


@pytest.mark.parametrize("rate_out", RATES)
def test_silence_stays_silent(rate_out: int) -> None:
    """Digital silence has no output but zeros, and after a loud noise it comes back to them."""
    resampler = dsp.Resampler(8000, rate_out)
    noise = reference.pcm(np.random.default_rng(1).uniform(-32768, 32767, 800))

    assert not any(resampler.process(bytes(16000)) + resampler.flush())
    assert not any(resampler.process(noise + bytes(32000))[-16000:])


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_full_scale_squares(rate: int) -> None:
    """The loudest signal there is neither overflows the detector nor the level."""
    square = reference.pcm(np.where(np.arange(rate) // 5 % 2, 32767, -32768))

    result = dsp.EnergyVad(rate).process(square)

    assert all(0 <= score <= 20 for score in result.scores)
    assert dsp.rms_dbfs(square) == pytest.approx(0, abs=1e-3)
    assert dsp.mix(square, square) == square


def test_nothing_decays_into_denormals() -> None:
    """After an hour of one and the same frame the detector is as quick as at the beginning.

    What halves for ever becomes a denormal, which a processor handles in microcode, many times slower.
    """
    frame = reference.pcm(reference.tone(400, 8000, 160, 5000))
    vad = dsp.EnergyVad(8000)

    def thousand() -> float:
        start = time.perf_counter()
        for _ in range(1000):
            vad.process(frame)
        return time.perf_counter() - start

    first = min(thousand() for _ in range(5))
    for _ in range(180):
        vad.process(frame * 1000)
    last = min(thousand() for _ in range(5))

    assert last < 3 * first
