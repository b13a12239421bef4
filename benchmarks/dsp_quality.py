"""Quality of `mediaflow.dsp` beside its peers: the resampler in dB, the detector on the labelled set."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mediaflow import dsp

from .dsp_speed import QUALITIES, RESAMPLE_GOALS, soxr, webrtcvad

Signal = NDArray[np.float64]
Convert = Callable[[NDArray[np.int16]], NDArray[Any]]


class Figure(NamedTuple):
    """One property: ours, a peer's (None where there is none), and which is better."""

    name: str
    unit: str
    ours: float
    peer_name: str
    peer: float | None


def amplitude(signal: Signal, rate: int, frequency: float) -> float:
    """Return the amplitude of a sine in a signal, by a window that hides all others."""
    window = np.blackman(len(signal)) * np.hanning(len(signal))
    turn = np.exp(-2j * np.pi * frequency / rate * np.arange(len(signal)))
    return float(2 * abs((signal * window) @ turn) / window.sum())


def tone(rate: int, frequency: float, level: float = 20000) -> NDArray[np.int16]:
    """Make two seconds of a sine."""
    samples = level * np.sin(2 * np.pi * frequency / rate * np.arange(2 * rate) + 0.3)
    return np.asarray(np.rint(samples), np.int16)


def steady(convert: Convert, pcm: NDArray[np.int16], rate_out: int) -> Signal:
    """Convert and return the middle second."""
    return np.asarray(convert(pcm), float)[rate_out // 2 : rate_out * 3 // 2]


def ours(rate_in: int, rate_out: int, quality: Any) -> Convert:
    def convert(pcm: NDArray[np.int16]) -> NDArray[Any]:
        resampler = dsp.Resampler(rate_in, rate_out, quality)
        return np.frombuffer(resampler.process(pcm.data) + resampler.flush(), np.int16)

    return convert


def soxr_hq(rate_in: int, rate_out: int) -> Convert:
    return lambda pcm: np.asarray(soxr.resample(pcm, rate_in, rate_out, quality="HQ"))


def sinad(convert: Convert, rate_in: int, rate_out: int) -> float:
    """Return the worst ratio of a tone to all else, in dB."""
    worst = 200.0
    lower = min(rate_in, rate_out) / 2
    for share in (0.013, 0.13, 0.37, 0.61, 0.87):
        frequency = round(share * lower)
        result = steady(convert, tone(rate_in, frequency, 29000), rate_out)
        times = 2 * np.pi * frequency / rate_out * np.arange(len(result))
        matrix = np.stack([np.sin(times), np.cos(times), np.ones(len(times))], 1)
        weights = np.linalg.lstsq(matrix, result, rcond=None)[0]
        rest = result - matrix @ weights
        worst = min(worst, 20 * np.log10(np.hypot(*weights[:2]) / np.sqrt(2) / np.std(rest)))
    return float(worst)


def rejection(convert: Convert, rate_in: int, rate_out: int, edge: float) -> float:
    """Return how far the worst alias or image outside the transition lies below its tone, in dB."""
    low, high = sorted((rate_in, rate_out))
    worst = 0.0
    for share in np.linspace(0.05, 2 - edge, 12) if rate_in < rate_out else np.linspace(edge + 0.003, 1.99, 12):
        frequency = round(share * low / 2)
        ghost = low - frequency if rate_in < rate_out else abs(frequency - low)
        if max(frequency, ghost) * 2 >= high or ghost < 20:
            continue
        # A second tone stirs the rounding, which alone would hide what we look for.
        pcm = tone(rate_in, frequency) + tone(rate_in, 0.0717 * low, 9000)
        worst = max(worst, amplitude(steady(convert, pcm, rate_out), rate_out, ghost) / 20000)
    return float(-20 * np.log10(max(worst, 1e-9)))


def resample_figures() -> Iterator[Figure]:
    """SINAD, rejection and delay for the rates of the goals."""
    for rate_in, rate_out in RESAMPLE_GOALS:
        peer = soxr_hq(rate_in, rate_out) if soxr else None
        for quality in QUALITIES:
            name = f"{rate_in}-{rate_out} {quality}"
            convert = ours(rate_in, rate_out, quality)
            edge = 1.0 if quality == "strict" else 1.09
            theirs = sinad(peer, rate_in, rate_out) if peer else None
            yield Figure(f"{name}: worst tone to all else", "dB", sinad(convert, rate_in, rate_out), "soxr HQ", theirs)
            theirs = rejection(peer, rate_in, rate_out, edge) if peer else None
            yield Figure(
                f"{name}: aliases and images", "dB", rejection(convert, rate_in, rate_out, edge), "soxr HQ", theirs
            )
    for quality in QUALITIES:
        resampler = dsp.Resampler(8000, 16000, quality)
        theirs = None
        if soxr:
            stream = soxr.ResampleStream(8000, 16000, 1, dtype="int16", quality="HQ")
            theirs = click_delay(stream.resample_chunk)
        mean = click_delay(streamed(resampler))
        yield Figure(f"8000-16000 {quality}: a click's delay, 1 ms feed", "ms", mean, "soxr HQ", theirs)


def streamed(resampler: dsp.Resampler) -> Convert:
    """Convert piece by piece."""
    return lambda pcm: np.frombuffer(resampler.process(pcm.data), np.int16)


def click_delay(process: Convert) -> float:
    """Return the mean time from a sample's arrival to that of its outputs, in ms, fed 1 ms at a time."""
    given = received = 0
    delays = []
    for _ in range(2000):
        given += 8
        count = len(process(np.zeros(8, np.int16)))
        delays += [given / 8 - (received + i) / 16 for i in range(0, count, 4)]
        received += count
    return float(np.mean(delays[len(delays) // 2 :]))


def auc(scores: Signal, truth: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve: how often speech scores above noise; ties count half."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    speech, rest = int(truth.sum()), int((~truth).sum())
    return float((ranks[truth].sum() - speech * (speech + 1) / 2) / (speech * rest))


class Detection(NamedTuple):
    """What the detector says about every track of the test half, frame by frame, and what is true."""

    scores: Signal
    speech: NDArray[np.bool_]
    truth: NDArray[np.bool_]
    onsets: NDArray[np.int64]
    quiet_alarms: float
    webrtcvad: dict[int, NDArray[np.bool_]]


def detect() -> Detection:
    """Run the detectors over the labelled set."""
    from . import vad_set

    scores, speech, truth = [], [], []
    onsets: list[int] = []
    peers: dict[int, list[bool]] = {mode: [] for mode in range(4 if webrtcvad else 0)}
    for track in vad_set.tracks("test"):
        result = dsp.EnergyVad(vad_set.RATE).process(track.pcm)
        count = len(track.truth)
        decided = np.array(result.speech[:count])
        scores.append(result.scores[:count])
        speech.append(decided)
        truth.append(track.truth)
        starts = np.nonzero(track.truth[1:] & ~track.truth[:-1])[0] + 1
        onsets += [int(np.argmax(np.append(decided[start : start + 50], True))) for start in starts]
        for mode, marks in peers.items():
            vad = webrtcvad.Vad(mode)
            pcm = track.pcm
            marks += [vad.is_speech(pcm[320 * i : 320 * i + 320], vad_set.RATE) for i in range(count)]
    alarms = total = 0
    for track in vad_set.quiet_tracks("test"):
        decided = np.array(dsp.EnergyVad(vad_set.RATE).process(track.pcm).speech[: len(track.truth)])
        alarms += int((decided & ~track.truth).sum())
        total += int((~track.truth).sum())
    return Detection(
        np.concatenate(scores), np.concatenate(speech), np.concatenate(truth), np.array(onsets), alarms / total,
        {mode: np.array(marks) for mode, marks in peers.items()},
    )  # fmt: skip


def vad_figures() -> Iterator[Figure]:
    """Accuracy on the labelled set; nothing without espeak-ng."""
    if not shutil.which("espeak-ng"):
        return
    found = detect()
    truth = found.truth
    points = [(0.0, 0.0), (1.0, 1.0)] + [
        (marks[~truth].mean(), marks[truth].mean()) for marks in found.webrtcvad.values()
    ]
    x, y = np.array(sorted(points)).T
    theirs = float(np.trapezoid(y, x)) if found.webrtcvad else None
    yield Figure("speech, all noises: area under ROC", "", auc(found.scores, truth), "webrtcvad", theirs)
    for mode, marks in found.webrtcvad.items():
        alarms, misses = float(marks[~truth].mean()), float(1 - marks[truth].mean())
        mine = float((found.scores[truth] <= np.quantile(found.scores[~truth], 1 - alarms)).mean())
        yield Figure(f"misses at {alarms:.0%} false alarms", "%", 100 * mine, f"webrtcvad {mode}", 100 * misses)
    yield Figure("onset, median", "ms", 20 * float(np.median(found.onsets)), "", None)
    yield Figure("onset, 90th percentile", "ms", 20 * float(np.quantile(found.onsets, 0.9)), "", None)
    yield Figure("false alarms on digital silence", "%", 100 * found.quiet_alarms, "", None)


def figures() -> Iterator[Figure]:
    yield from resample_figures()
    yield from vad_figures()
