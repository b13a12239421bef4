"""The resampler keeps its promises: quality in figures, length and bits exactly."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import pytest
import soxr
from dsp import reference
from hypothesis import given, settings, strategies as st

from mediaflow import dsp

Quality = Literal["strict", "fast"]

QUALITIES: list[Quality] = ["strict", "fast"]
# The last two have too many phases for rows of coefficients and read the interpolated kernel.
PAIRS = [
    (8000, 16000),
    (16000, 8000),
    (24000, 16000),
    (16000, 24000),
    (48000, 16000),
    (48000, 8000),
    (44100, 16000),
    (8000, 44100),
    (8001, 16000),
    (16000, 7999),
]
# Where everything is clean: strict up to and from the lower Nyquist frequency, fast 9 % around it.
STOP_BAND = {"strict": 1.0, "fast": 1.09}
PASS_BAND = {"strict": 0.9, "fast": 0.91}

every_quality = pytest.mark.parametrize("quality", QUALITIES)
every_pair = pytest.mark.parametrize(("rate_in", "rate_out"), PAIRS)


def convert(pcm: bytes, rate_in: int, rate_out: int, quality: Quality) -> bytes:
    """Resample all at once."""
    resampler = dsp.Resampler(rate_in, rate_out, quality)
    return resampler.process(pcm) + resampler.flush()


def steady(signal: reference.Signal, rate_in: int, rate_out: int, quality: Quality) -> reference.Signal:
    """Resample and return what lies a quarter of a second away from both ends."""
    result = reference.samples(convert(reference.pcm(signal), rate_in, rate_out, quality)).astype(float)
    assert len(result) == -(-len(signal) * rate_out // rate_in)
    return result[rate_out // 4 : -rate_out // 4]


@every_quality
@every_pair
def test_equals_the_definition(rate_in: int, rate_out: int, quality: Quality) -> None:
    """Noise comes out as the convolution in double precision gives it, beginning and end included."""
    pcm = reference.pcm(np.random.default_rng(1).uniform(-20000, 20000, 700))

    result = reference.samples(convert(pcm, rate_in, rate_out, quality))
    exact = reference.resample(reference.samples(pcm), rate_in, rate_out, quality)

    assert np.abs(result - np.clip(exact, -32768, 32767)).max() < 0.6


@every_quality
@every_pair
def test_agrees_with_soxr(rate_in: int, rate_out: int, quality: Quality) -> None:
    """A signal equals soxr's best to 85 dB, without any shift.

    Up to 0.6 of the lower Nyquist frequency only: from there on soxr itself falls, by 0.004 dB at 0.85.
    """
    lower = min(rate_in, rate_out) / 2
    tones = [reference.tone(share * lower, rate_in, rate_in, 4000, share) for share in (0.03, 0.2, 0.41, 0.53, 0.6)]
    signal = reference.samples(reference.pcm(sum(tones))).astype(float)

    ours = steady(signal, rate_in, rate_out, quality)
    theirs = soxr.resample(signal, rate_in, rate_out, quality="VHQ")[rate_out // 4 :][: len(ours)]

    assert reference.decibels(np.std(ours) / np.std(ours - theirs)) > 85


@every_quality
@every_pair
def test_pass_band(rate_in: int, rate_out: int, quality: Quality) -> None:
    """Up to 0.9 of the lower Nyquist frequency: within 0.01 dB, no delay, SINAD of at least 92.5 dB."""
    lower = min(rate_in, rate_out) / 2
    for share in (0.011, 0.13, 0.37, 0.52, 0.71, 0.8, 0.87, 0.9):
        amplitude = 29000
        result = steady(reference.tone(share * lower, rate_in, rate_in, amplitude, 0), rate_in, rate_out, quality)
        (found,), rest = reference.fit(result, rate_out, share * lower)
        # The fit begins a quarter of a second into the output.
        expected = np.exp(2j * np.pi * share * lower * (rate_out // 4) / rate_out)

        assert abs(reference.decibels(abs(found) / amplitude)) < 0.01
        assert abs(np.angle(found / expected)) < 1e-4
        assert reference.decibels(abs(found) / np.sqrt(2) / np.std(rest)) > 92.5


@every_quality
@every_pair
def test_stop_band(rate_in: int, rate_out: int, quality: Quality) -> None:
    """Aliases and images lie 100 dB below what they come from.

    A second tone in the pass band stirs the rounding to 16 bits, which alone would hide them.
    """
    low, high = sorted([rate_in, rate_out])
    if rate_in > rate_out:
        # Tones that must go, and where they would fold to.
        shares = (STOP_BAND[quality] + 0.001, 1.2, 1.37)
        pairs = [(share * low / 2, abs(share * low / 2 - low)) for share in shares if share * low < high]
    else:
        # Tones that must stay, and their mirror images around the lower rate.
        shares = (0.33, 0.62, PASS_BAND[quality])
        pairs = [(share * low / 2, low - share * low / 2) for share in shares if (2 - share) * low < high]
    assert pairs
    for source, ghost in pairs:
        stir = 0.0717 * low
        signal = reference.tone(source, rate_in, rate_in, 20000) + reference.tone(stir, rate_in, rate_in, 9000)
        others = [stir] if rate_in > rate_out else [stir, source]

        found = reference.fit(steady(signal, rate_in, rate_out, quality), rate_out, ghost, *others)[0][0]

        assert reference.decibels(abs(found) / 20000) < -100


@every_quality
@every_pair
@pytest.mark.parametrize("value", [-32768, -12345, 7, 32767])
def test_constant(rate_in: int, rate_out: int, quality: Quality, value: int) -> None:
    """A constant stays itself: the gain at 0 Hz is 1 to 1e-4, however large the value."""
    result = steady(np.full(rate_in, value), rate_in, rate_out, quality)

    assert np.abs(result - value).max() <= 1e-4 * abs(value)


@every_quality
@every_pair
def test_clipping(rate_in: int, rate_out: int, quality: Quality) -> None:
    """Overshoot of a full-scale square wave stops at the limit and never wraps."""
    period = rate_in // 40
    square = np.where(np.arange(rate_in) // (period // 2) % 2, -32768, 32767)

    result = steady(square, rate_in, rate_out, quality)
    times = (np.arange(len(result)) + rate_out // 4) * rate_in / rate_out
    inside = np.abs(times % (period / 2) - period / 4) < period / 8

    assert result.max() == 32767
    assert result.min() == -32768
    assert np.array_equal(result[inside] < 0, times[inside] // (period / 2) % 2 == 1)


@every_quality
def test_halfband_keeps_the_given_samples(quality: Quality) -> None:
    """Fast doubling returns every input sample unchanged between the new ones; strict filters them."""
    pcm = reference.pcm(np.random.default_rng(2).uniform(-32768, 32767, 1000))

    doubled = reference.samples(convert(pcm, 8000, 16000, quality))

    assert (doubled[::2].tobytes() == pcm) == (quality == "fast")


@settings(max_examples=100)
@given(
    pcm=st.binary(max_size=1500).map(lambda data: data * 2),
    pair=st.sampled_from([*PAIRS, (8000, 8000), (48000, 1000), (1000, 48000), (96000, 7350)]),
    quality=st.sampled_from(QUALITIES),
    cuts=st.lists(st.integers(0, 1500), max_size=12),
)
def test_chunking_does_not_matter(pcm: bytes, pair: tuple[int, int], quality: Quality, cuts: list[int]) -> None:
    """Any way of slicing the input, empty and single samples included, gives the same bits."""
    resampler = dsp.Resampler(*pair, quality)
    bounds = [0, *sorted(2 * cut for cut in cuts), len(pcm)]

    sliced = b"".join(resampler.process(pcm[start:end]) for start, end in itertools.pairwise(bounds))

    assert sliced + resampler.flush() == convert(pcm, *pair, quality)


@pytest.mark.parametrize("size", [1, 2, 7, 160, 2047, 2048, 2049])
@every_pair
def test_equal_chunks_do_not_matter(rate_in: int, rate_out: int, size: int) -> None:
    """Chunks around the inner block size, and single samples, give the same bits."""
    pcm = reference.pcm(np.random.default_rng(3).uniform(-32768, 32767, 6000))
    resampler = dsp.Resampler(rate_in, rate_out)

    sliced = b"".join(resampler.process(pcm[start : start + 2 * size]) for start in range(0, len(pcm), 2 * size))

    assert sliced + resampler.flush() == convert(pcm, rate_in, rate_out, "fast")


@settings(max_examples=150, deadline=None)  # designing a filter takes 0.2 s on a quiet machine
@given(
    rate_in=st.integers(1, 384_000) | st.sampled_from([1, 8000, 11025, 16000, 44100, 48000, 384_000]),
    rate_out=st.integers(1, 384_000) | st.sampled_from([1, 8000, 11025, 16000, 44100, 48000, 384_000]),
    quality=st.sampled_from(QUALITIES),
    count=st.integers(0, 3000),
)
def test_length(rate_in: int, rate_out: int, quality: Quality, count: int) -> None:
    """Every pair of rates returns exactly ceil(n * rate_out / rate_in) samples."""
    count = min(count, 100_000 * rate_in // rate_out)

    assert len(convert(bytes(2 * count), rate_in, rate_out, quality)) == 2 * -(-count * rate_out // rate_in)


@every_quality
@every_pair
def test_latency(rate_in: int, rate_out: int, quality: Quality) -> None:
    """Each output is returned with the first input sample `latency` seconds after it.

    Where the rate is halved first it may be one sample earlier: that one then was of no use to the halving.
    """
    resampler = dsp.Resampler(rate_in, rate_out, quality)
    wait = round(resampler.latency * rate_in)

    returned = 0
    for given_samples in range(1, 4 * wait):
        returned += len(resampler.process(bytes(2))) // 2
        due, next_due = (max(0, -(-(given_samples + more - wait) * rate_out // rate_in)) for more in (0, 1))

        assert due <= returned <= (next_due if (rate_in, rate_out) in reference.HALVED else due)


def test_latency_figures() -> None:
    """Telephone audio waits 4.5 ms in fast and 7 ms in strict."""
    assert dsp.Resampler(8000, 16000, "fast").latency == pytest.approx(0.0045)
    assert dsp.Resampler(8000, 16000, "strict").latency == pytest.approx(0.007)
    assert dsp.Resampler(48000, 16000, "strict").latency == pytest.approx(0.0035)
    assert dsp.Resampler(48000, 8000, "strict").latency == pytest.approx(0.007 + 6 / 24000)


@pytest.mark.parametrize(("quality", "limit"), [("fast", 5.5), ("strict", 8.0)])
def test_mean_delay(quality: Quality, limit: float) -> None:
    """Fed 1 ms at a time, telephone audio comes out 5.5 and 8 ms after it came in, or sooner, on average."""
    resampler = dsp.Resampler(8000, 16000, quality)
    given, ages = 0, []
    for _ in range(1000):
        given += 8
        ages += [given / 8] * (len(resampler.process(bytes(16))) // 2)
    delays = [age - k / 16 for k, age in enumerate(ages)]

    assert sum(delays) / len(delays) <= limit


@every_pair
def test_flush_and_reset_start_anew(rate_in: int, rate_out: int) -> None:
    """After flush, and after reset in the middle, the next stream sounds as from a new object."""
    pcm = reference.pcm(np.random.default_rng(4).uniform(-32768, 32767, 2500))
    resampler = dsp.Resampler(rate_in, rate_out)

    first = resampler.process(pcm) + resampler.flush()
    second = resampler.process(pcm) + resampler.flush()
    resampler.process(pcm)
    resampler.reset()
    third = resampler.process(pcm) + resampler.flush()

    assert first == second == third
    assert resampler.flush() == b""


def test_equal_rates_pass_through() -> None:
    """At the same rate nothing changes, nothing waits and nothing is left."""
    resampler = dsp.Resampler(16000, 16000)

    assert resampler.process(b"\x01\x02\x03\x04") == b"\x01\x02\x03\x04"
    assert resampler.flush() == b""
    assert resampler.latency == 0
    with pytest.raises(ValueError, match="3 bytes"):
        resampler.process(b"abc")


def test_attributes() -> None:
    """An object tells what it was made for; fast is the default."""
    resampler = dsp.Resampler(8000, 16000)

    assert (resampler.rate_in, resampler.rate_out, resampler.quality) == (8000, 16000, "fast")


def test_threads() -> None:
    """Several threads with an object each give the same bits as one."""
    pcm = reference.pcm(np.random.default_rng(5).uniform(-32768, 32767, 200_000))
    expected = convert(pcm, 8000, 16000, "strict")

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda _: convert(pcm, 8000, 16000, "strict"), range(16)))

    assert set(results) == {expected}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 8000), ValueError, "rate_in must be 1 to 384000 Hz, not 0"),
        ((8000, 384001), ValueError, "rate_out must be 1 to 384000 Hz, not 384001"),
        ((8000, -1), ValueError, "rate_out must be 1 to 384000 Hz, not -1"),
        ((10**30, 8000), ValueError, "rate_in must be 1 to 384000 Hz, not 10000"),
        ((8000.0, 16000), TypeError, "rate_in must be an int, not float"),
        ((8000, "16000"), TypeError, "rate_out must be an int, not str"),
        ((8000, 16000, "best"), ValueError, 'quality must be "strict" or "fast", not \'best\''),
    ],
)
def test_what_cannot_be_made(arguments: tuple[object, ...], error: type[Exception], message: str) -> None:
    """Rates and qualities out of range are refused with what was found."""
    with pytest.raises(error, match=message):
        dsp.Resampler(*arguments)  # type: ignore[arg-type]
