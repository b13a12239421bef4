"""Mixing, levels, channels and byte order agree with numpy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from dsp import reference
from hypothesis import given, strategies as st

from mediaflow import dsp

words = st.lists(st.integers(-32768, 32767), max_size=300).map(reference.pcm)


@given(pcm=words)
def test_swap_bytes(pcm: bytes) -> None:
    """Swapping equals numpy's byteswap and undoes itself."""
    assert dsp.swap_bytes(pcm) == reference.samples(pcm).byteswap().tobytes()
    assert dsp.swap_bytes(dsp.swap_bytes(pcm)) == pcm


@given(pairs=st.lists(st.tuples(st.integers(-32768, 32767), st.integers(-32768, 32767)), max_size=300))
def test_mix_and_interleave(pairs: list[tuple[int, int]]) -> None:
    """Mixing adds and saturates, interleaving alternates, deinterleaving undoes it."""
    left, right = (reference.pcm([pair[side] for pair in pairs]) for side in (0, 1))

    assert dsp.mix(left, right) == reference.pcm([a + b for a, b in pairs])
    assert dsp.interleave(left, right) == reference.pcm([value for pair in pairs for value in pair])
    assert dsp.deinterleave(dsp.interleave(left, right), 2) == [left, right]


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_deinterleave(channels: int) -> None:
    """Each channel gets every n-th sample."""
    values = np.arange(channels * 40, dtype=np.int16)

    split = dsp.deinterleave(values.data, channels)

    assert split == [values[channel::channels].tobytes() for channel in range(channels)]


@given(pcm=words)
def test_rms(pcm: bytes) -> None:
    """The level equals the definition; without energy it is minus infinity."""
    values = reference.samples(pcm).astype(float)
    power = np.mean(values**2) if len(values) else 0.0

    level = dsp.rms_dbfs(pcm)

    if power == 0:
        assert level == -math.inf
    else:
        assert level == pytest.approx(10 * math.log10(power / 32768**2), abs=1e-9)


def test_rms_of_full_scale() -> None:
    """A full-scale square wave is 0 dB, a full-scale sine 3 dB less."""
    square = reference.pcm([-32768] * 16000)
    sine = reference.pcm(reference.tone(100, 8000, 8000, 32767))

    assert dsp.rms_dbfs(square) == 0.0
    assert dsp.rms_dbfs(sine) == pytest.approx(-3.01, abs=0.01)


def speech_like(seed: int, count: int = 1600, peak: float = 8000) -> bytes:
    """Make noise with the spectral slope of telephone speech."""
    white = np.random.default_rng(seed).standard_normal(count + 200)
    shaped = np.convolve(white, 0.8 ** np.arange(60))[200 : 200 + count]
    return reference.pcm(shaped / np.abs(shaped).max() * peak)


@pytest.mark.parametrize("peak", [1000, 8000, 32000])
@pytest.mark.parametrize("seed", range(5))
def test_order_of_speech(seed: int, peak: float) -> None:
    """A smooth signal shows its order, and shows the other one when swapped."""
    pcm = speech_like(seed, peak=peak)

    assert dsp.guess_byte_order(pcm) == "little"
    assert dsp.guess_byte_order(dsp.swap_bytes(pcm)) == "big"


@given(value=st.integers(-32768, 32767), count=st.integers(0, 2000))
def test_constant_has_no_order(value: int, count: int) -> None:
    """Silence and every other constant leave the order open."""
    assert dsp.guess_byte_order(reference.pcm([value] * count)) is None


@given(seed=st.integers(0, 10**6), deviation=st.floats(0.1, 30000), count=st.integers(0, 1000))
def test_noise_has_no_order(seed: int, deviation: float, count: int) -> None:
    """White noise of any level and length leaves the order open, in either order."""
    noise = reference.pcm(np.random.default_rng(seed).normal(0, deviation, count))

    assert dsp.guess_byte_order(noise) is None
    assert dsp.guess_byte_order(dsp.swap_bytes(noise)) is None


def test_what_is_rough_in_both_orders() -> None:
    """A whistle near the Nyquist frequency is rougher than noise in its own order, and decides nothing."""
    pcm = reference.pcm(reference.tone(3900, 8000, 1600, 20000))

    assert dsp.guess_byte_order(pcm) is None
    assert dsp.guess_byte_order(dsp.swap_bytes(pcm)) is None


@pytest.mark.parametrize("pcm", [speech_like(1, peak=100), speech_like(1, count=159)], ids=["quiet", "short"])
def test_too_little_to_tell(pcm: bytes) -> None:
    """Sounds that fit in one byte, and less than 160 samples, leave the order open."""
    assert dsp.guess_byte_order(pcm) is None


def test_unequal_lengths() -> None:
    """Signals of different lengths are refused with both counts."""
    with pytest.raises(ValueError, match="a holds 2 samples and b 1, not equally many"):
        dsp.mix(b"abcd", b"ab")
    with pytest.raises(ValueError, match="left holds 1 samples and right 0, not equally many"):
        dsp.interleave(b"ab", b"")


def test_channels_that_do_not_divide() -> None:
    """A count of samples that the channels do not share out, or no channel at all, is refused."""
    with pytest.raises(ValueError, match="pcm holds 3 samples, not a whole number for each of 2 channels"):
        dsp.deinterleave(b"abcdef", 2)
    with pytest.raises(ValueError, match="channels must be at least 1, not 0"):
        dsp.deinterleave(b"abcdef", 0)


@given(st.binary(max_size=300), st.integers(-1, 257))
def test_varied(data: bytes, values: int) -> None:
    """It counts the different bytes."""
    assert dsp.varied(data, values) == (len(set(data)) >= values)


@given(st.lists(st.integers(-32768, 32767), max_size=300))
def test_roughness(values: list[int]) -> None:
    """It is what the definition says, computed in whole numbers; a constant, and nothing, count as noise."""
    energy, following = sum(v * v for v in values), sum((b - a) ** 2 for a, b in itertools.pairwise(values))
    around = len(values) * energy - sum(values) ** 2
    expected = following * len(values) / around if around else 2.0
    assert dsp.roughness(np.array(values, "<i2").tobytes()) == pytest.approx(expected, rel=1e-6)


def test_roughness_of_the_loudest() -> None:
    """A minute of full-scale square waves does not overflow."""
    assert dsp.roughness(np.tile(np.array([32767, -32768], "<i2"), 240_000).tobytes()) == pytest.approx(4.0, rel=1e-5)


def spread_apart(data: bytes) -> float:
    """Count each value at even and at odd places, and return the differences by the number of bytes."""
    codes = np.frombuffer(data, np.uint8)
    even, odd = (np.bincount(codes[place::2], minlength=256) for place in (0, 1))
    return int(np.abs(even - odd).sum()) / len(data)


@given(st.binary(min_size=1, max_size=300) | st.lists(st.sampled_from([0, 127, 128, 255]), min_size=1).map(bytes))
def test_unevenness(data: bytes) -> None:
    """It is what the definition says, to the last bit, for an odd number of bytes too."""
    assert dsp.unevenness(data) == spread_apart(data)
    assert dsp.unevenness(bytearray(data)) == spread_apart(data)


@pytest.mark.parametrize("size", [1999, 2000, 12_000, 12_001])
def test_unevenness_of_speech_and_noise(size: int) -> None:
    """The bytes of G.711 are spread alike, those of 16-bit speech are not, and each is measured to the last bit."""
    speech = speech_like(3, size)
    codes, words = dsp.mulaw_encode(speech), speech[:size]
    noise = np.random.default_rng(size).bytes(size)
    for data in (codes, words, noise):
        assert dsp.unevenness(data) == spread_apart(data)
    assert dsp.unevenness(codes) < 0.33 < 0.45 < dsp.unevenness(words)


def test_the_ends_of_unevenness() -> None:
    """Nothing shared is 1, the same bytes in another sequence are 0, and a byte by itself has nothing to share."""
    assert dsp.unevenness(bytes(range(256)) * 100) == 1.0
    assert dsp.unevenness(b"abcdbadc" * 100) == 0.0
    assert dsp.unevenness(b"a") == 1.0


def test_unevenness_of_nothing() -> None:
    """No bytes have none, and items that are not bytes are refused."""
    with pytest.raises(ValueError, match="data is empty"):
        dsp.unevenness(b"")
    with pytest.raises(TypeError, match="data must hold bytes, not items of format 'h'"):
        dsp.unevenness(np.zeros(4, np.int16).data)
