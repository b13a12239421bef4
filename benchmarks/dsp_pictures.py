"""Draw the pictures of docs/dsp.md: ``mediaflow bench dsp --pictures``.  Needs matplotlib."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from .dsp_quality import Convert, amplitude, detect, ours, soxr_hq, steady, tone
from .dsp_speed import QUALITIES, soxr

COLOURS = {"fast": "tab:blue", "strict": "tab:green", "soxr HQ": "tab:grey"}


def converters(rate_in: int, rate_out: int) -> dict[str, Convert]:
    found: dict[str, Convert] = {quality: ours(rate_in, rate_out, quality) for quality in QUALITIES}
    if soxr:
        found["soxr HQ"] = soxr_hq(rate_in, rate_out)
    return found


def response(plot: Any) -> None:
    """Gain of a tone that goes from 8 to 16 kHz."""
    frequencies = np.concatenate([np.arange(50, 3600, 150), np.arange(3600, 4000, 20)])
    for name, convert in converters(8000, 16000).items():
        gains = [amplitude(steady(convert, tone(8000, f), 16000), 16000, f) / 20000 for f in frequencies]
        plot.plot(frequencies, 20 * np.log10(gains), label=name, color=COLOURS[name])
    plot.set(xlabel="Hz", ylabel="dB", ylim=(-8, 0.5), title="8 to 16 kHz: what passes")


def aliases(plot: Any) -> None:
    """Where a tone above 4 kHz folds to, and how loudly, from 16 to 8 kHz."""
    frequencies = np.concatenate([np.arange(4010, 4600, 10), np.arange(4600, 7900, 100)])
    for name, convert in converters(16000, 8000).items():
        levels = []
        for frequency in frequencies:
            pcm = tone(16000, frequency) + tone(16000, 573, 9000)
            levels.append(amplitude(steady(convert, pcm, 8000), 8000, 8000 - frequency) / 20000)
        plot.plot(frequencies, 20 * np.log10(np.maximum(levels, 1e-7)), label=name, color=COLOURS[name])
    plot.axhline(-100, color="black", linewidth=0.5)
    plot.set(xlabel="Hz", ylabel="dB", title="16 to 8 kHz: what folds back")


def roc(plot: Any) -> None:
    """Hits over false alarms on the labelled set."""
    found = detect()
    thresholds = np.unique(np.quantile(found.scores, np.linspace(0, 1, 200)))
    noise, speech = found.scores[~found.truth], found.scores[found.truth]
    alarms = [(noise >= threshold).mean() for threshold in thresholds]
    hits = [(speech >= threshold).mean() for threshold in thresholds]
    plot.plot(alarms, hits, label="EnergyVad", color="tab:blue")
    for mode, marks in found.webrtcvad.items():
        plot.plot(marks[~found.truth].mean(), marks[found.truth].mean(), "o", color="tab:grey")
        plot.annotate(f"webrtcvad {mode}", (marks[~found.truth].mean(), marks[found.truth].mean() - 0.012), fontsize=7)
    plot.set(xlabel="false alarms", ylabel="hits", ylim=(0.7, 1.005), title="speech in noise, 20 to 0 dB")


def main(folder: Path) -> None:
    """Write one picture per subject."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "mediaflow"  # the same picture gives the same file
    pictures = {"dsp_response": response, "dsp_aliases": aliases}
    if shutil.which("espeak-ng"):
        pictures["dsp_vad"] = roc
    folder.mkdir(exist_ok=True)
    for name, draw in pictures.items():
        figure, plot = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
        draw(plot)
        plot.grid(linewidth=0.3)
        plot.legend(fontsize=8)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        pyplot.close(figure)
        print(folder / f"{name}.svg")
