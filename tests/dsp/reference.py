"""The plain numpy version of the compiled core: slow, obvious, and written from the definitions.

Nothing here shares code or tables with `mediaflow._dsp`. Where a result depends on a choice and not on
a standard (the resampler's window, the detector's smoothing), the choice is repeated here as a number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.int16]
Signal = NDArray[np.float64]

DESIGNS = {"strict": (60.0, 0.946, 10.171), "fast": (36.0, 1.0, 10.061)}

HALVED = {(44100, 16000), (48000, 8000)}


def samples(pcm: bytes) -> Samples:
    """Read bytes as int16."""
    return np.frombuffer(pcm, "<i2")


def pcm(values: Any) -> bytes:
    """Round, saturate and write as int16."""
    return bytes(np.clip(np.rint(values), -32768, 32767).astype("<i2").tobytes())


def tone(frequency: float, rate: int, count: int, amplitude: float, phase: float = 0.3) -> Signal:
    """Make a sine."""
    return np.asarray(amplitude * np.sin(2 * np.pi * frequency / rate * np.arange(count) + phase))


def fit(signal: Signal, rate: int, *frequencies: float) -> tuple[list[complex], Signal]:
    """Return each sine's complex amplitude by least squares, and what is left of the signal.

    A sine of amplitude a and phase p yields a * exp(1j * p). The signal's mean is fitted, too.
    """
    times = 2 * np.pi / rate * np.arange(len(signal))
    columns = [np.ones(len(signal))]
    for frequency in frequencies:
        columns += [np.sin(frequency * times), np.cos(frequency * times)]
    matrix = np.stack(columns, 1)
    weights = np.linalg.lstsq(matrix, signal, rcond=None)[0]
    return [complex(a, b) for a, b in weights[1:].reshape(-1, 2)], signal - matrix @ weights


def decibels(ratio: float) -> float:
    """Return an amplitude ratio in dB."""
    return float(20 * np.log10(ratio))


def resample(values: Samples, rate_in: int, rate_out: int, quality: str) -> Signal:
    """Convolve with the windowed sinc in double precision, one output at a time, without rounding.

    Rates in HALVED are halved first; those filters keep clean what lies below 1 or 1.09 times half the last rate.
    """
    signal, rate = values.astype(float), rate_in
    if (rate_in, rate_out) in HALVED:
        rate //= 2
        edge = {"strict": 1.0, "fast": 1.09}[quality] * rate_out / rate
        signal = _convolve(signal, rate_in, rate, (np.ceil(98 / (14.36 * (2 - 2 * edge))), 1.0, 10.72246))
    return _convolve(signal, rate, rate_out, DESIGNS[quality])[: -(-len(values) * rate_out // rate_in)]


def _convolve(values: Signal, rate_in: int, rate_out: int, design: tuple[float, float, float]) -> Signal:
    reach, cutoff, beta = design
    scale = min(1.0, rate_out / rate_in)
    half = int(np.ceil(reach / scale))
    padded = np.concatenate([np.zeros(half), values, np.zeros(half + 1)])
    result = np.empty(-(-len(values) * rate_out // rate_in))
    for k in range(len(result)):
        centre, rest = divmod(k * rate_in, rate_out)
        distance = (np.arange(1 - half, half + 1) - rest / rate_out) * scale
        inside = np.clip(1 - (distance / reach) ** 2, 0, None)
        weights = np.sinc(cutoff * distance) * np.i0(beta * np.sqrt(inside)) * (inside > 0)
        result[k] = weights @ padded[centre + 1 : centre + 1 + 2 * half] / weights.sum()
    return result


def vad_scores(values: Samples, rate: int, frame_ms: int = 20, silence_dbfs: float = -60.0) -> Signal:
    """Score every whole frame: smoothed band level over its three-second minimum, in dB."""
    half = round(rate / 2000)
    size = rate * frame_ms // 1000
    wavelet = np.repeat([1, -1], half)
    past = np.full(2 * half, values[0] if len(values) else 0)
    band = np.convolve(np.concatenate([past, values]).astype(np.int64), wavelet)[2 * half :]
    rise, fall = (1 - (1 - share) ** (frame_ms / 20) for share in (0.7, 0.5))
    part = 200 // frame_ms
    levels: list[float] = []
    scores: list[float] = []
    minima: list[float] = []
    for i in range(len(values) // size):
        energy = np.mean((band[i * size : (i + 1) * size] / half / 32768) ** 2)
        level = max(silence_dbfs, 10 * np.log10(energy)) if energy else silence_dbfs
        if levels:
            level = levels[-1] + (level - levels[-1]) * (rise if level > levels[-1] else fall)
        minima.append(level)
        window = minima[max(0, i // part - 15) * part :]
        floor = min(window) if i >= 5 * part else min(-35.0, *window, 0.0)
        levels.append(min(level, floor + 20))
        scores.append(levels[-1] - floor)
    return np.array(scores)
