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

DESIGNS = {"strict": (56.0, 0.9428, 10.034, 0.00083, 0.931), "fast": (36.0, 1.0, 10.061, 0.0, 0.0)}

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
    """Convolve with the windowed sinc, and strict's cosine, in double precision, one output at a time, unrounded.

    Rates in HALVED are halved first; those filters keep clean what lies below 1 or 1.09 times half the last rate.
    """
    signal, rate = values.astype(float), rate_in
    if (rate_in, rate_out) in HALVED:
        rate //= 2
        edge = {"strict": 1.0, "fast": 1.09}[quality] * rate_out / rate
        signal = _convolve(signal, rate_in, rate, (np.ceil(98 / (14.36 * (2 - 2 * edge))), 1.0, 10.72246, 0.0, 0.0))
    return _convolve(signal, rate, rate_out, DESIGNS[quality])[: -(-len(values) * rate_out // rate_in)]


def _convolve(values: Signal, rate_in: int, rate_out: int, design: tuple[float, ...]) -> Signal:
    reach, cutoff, beta, lift, lifted = design
    scale = min(1.0, rate_out / rate_in)
    half = int(np.ceil(reach / scale))
    padded = np.concatenate([np.zeros(half), values, np.zeros(half + 1)])
    result = np.empty(-(-len(values) * rate_out // rate_in))
    for k in range(len(result)):
        centre, rest = divmod(k * rate_in, rate_out)
        distance = (np.arange(1 - half, half + 1) - rest / rate_out) * scale
        inside = np.clip(1 - (distance / reach) ** 2, 0, None)
        shape = np.sinc(cutoff * distance) + lift * np.cos(np.pi * lifted * distance)
        weights = shape * np.i0(beta * np.sqrt(inside)) * (inside > 0)
        result[k] = weights @ padded[centre + 1 : centre + 1 + 2 * half] / weights.sum()
    return result


def vad(values: Samples, rate: int, frame_ms: int = 20) -> tuple[Signal, list[bool]]:
    """Score every whole frame, and decide on it, as mediaflow/_dsp/vad.pyx tells."""
    unit = frame_ms / 20
    step = max(1, rate // 8000)
    size = rate * frame_ms // 1000
    count = size // step
    frames = values[: len(values) // size * size].reshape(-1, size)[:, : count * step].astype(float)
    sums = frames.reshape(len(frames), count, step).sum(axis=2).ravel()
    padded = np.concatenate([np.full(8, values[0] * float(step)), sums])
    levels = []
    for taps in ([1, 1, 1, 1, -1, -1, -1, -1], [1, -2, 1]):
        band = np.convolve(padded, taps)[8 : 8 + len(sums)] / (np.abs(taps).sum() / 2 * step * 32768)
        power = np.mean(band.reshape(-1, count) ** 2, axis=1)
        levels.append(np.maximum(10 * np.log10(np.maximum(power, 1e-30)), -60))
    level = np.stack(levels, 1)

    def share(of_20_ms: float) -> float:
        return float(1 - (1 - of_20_ms) ** unit)

    smooth, mean, spread = level[0].copy(), np.minimum(level[0], -35), np.full(2, 1.3)
    minima: list[Signal] = []
    evidence = verdict = loudest = 0.0
    quiet, active = 0, False
    part = 100 // frame_ms
    scores, decisions = [], []
    for i, now in enumerate(level):
        smooth = smooth + (now - smooth) * share(0.455)
        minima.append(smooth)
        floor = np.min(minima[max(0, i // part - 15) * part :], axis=0)
        if i < 6 * part:
            floor = np.minimum(floor, -35)
        width = np.clip(spread, 0.074, 2.09) + 0.036
        floor = floor + 1.7 * width
        mean = np.clip(mean, floor - 0.941 * width, floor + 1.89 * width)
        low, high = np.clip((now - mean) / width - 0.945, 0, 10.0)
        fill = float(low + 1.13 * high)
        loudest = max(fill, loudest * (1 - share(1 - 0.998)))
        quiet = quiet + 1 if fill < max(0.3, 0.06 * loudest) else 0
        change = (0.811 * fill - 0.208 - (0.00324 * loudest if fill < 0.3 else 0)) * unit
        evidence = min(max(evidence, 0), 8.0) + change
        verdict = min(max(verdict, 0), 8.0) + change
        if quiet * frame_ms >= 60 and quiet * frame_ms * loudest >= 1600:
            verdict = min(verdict, 1.0)
        if evidence < 8.42:
            away = np.clip(now - mean, -6, 6)
            mean = mean + share(0.051) * away
            spread = spread + share(0.051) * (1.25 * np.abs(away) - spread)
        if (now <= -60).all():
            evidence = verdict = -3.0
        active = verdict + 3 >= (4.5 if active else 5.0)
        scores.append(min(max(evidence + 3, 0), 20))
        decisions.append(active)
    return np.array(scores), decisions
