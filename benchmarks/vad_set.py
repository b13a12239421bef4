"""Telephone talk with noise and with the truth: the labelled set that the speech detector is measured on.

espeak-ng speaks sentences of several languages with several voices, at different speeds, loudnesses and pauses. All of
it passes a telephone channel (300 to 3400 Hz, µ-law), alone and with white, pink, babble or hum noise at 20 to 0 dB.

The truth comes from the clean signal: a frame of 20 ms is speech if its energy reaches 35 dB below the loud frames of
the track, or if it lies in a gap shorter than 200 ms between such frames, which is a stop inside a word.  The
signal-to-noise ratio relates the mean power of the speech frames to that of the noise, both as the line carries them.

Two halves with different voices, texts and noises: parameters are chosen on ``dev``, figures are told from ``test``.
"""

from __future__ import annotations

import io
import itertools
import subprocess
import wave
from collections.abc import Iterator
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from mediaflow import dsp

RATE = 8000
FRAME = RATE // 50
SECONDS = 60
NOISES = ("white", "pink", "babble", "hum")
SNRS = (20, 10, 5, 0)

Half = Literal["dev", "test"]
Signal = NDArray[np.float64]

TEXTS = {
    "en": (
        "Good morning doctor, I have had a fever since Tuesday.",
        "How high was it? Did you take anything for it?",
        "Please take one tablet after food, three times a day.",
        "No.",
        "The pain is on the left side, and it gets worse at night when I lie down.",
        "Let us check your blood pressure first. Six, four, nine, one.",
        "Thank you. When shall I come again?",
        "Yes, that is possible.",
    ),
    "hi": (
        "नमस्ते डॉक्टर साहब, मुझे तीन दिन से बुखार है।",
        "क्या आपको खाँसी भी है?",
        "हाँ।",
        "यह दवा दिन में दो बार खाने के बाद लीजिए।",
        "रात को सीने में दर्द होता है और साँस फूलती है।",
        "ठीक है, मैं कल फिर आऊँगा।",
        "पानी ज़्यादा पीजिए और आराम कीजिए।",
    ),
    "ta": ("வணக்கம், எனக்கு இரண்டு நாட்களாக காய்ச்சல்.", "மாத்திரை சாப்பிட்டேன்.", "சரி, நாளை வருகிறேன்."),
    "de": ("Guten Tag, seit gestern habe ich starke Kopfschmerzen.", "Nein.", "Nehmen Sie bitte abends eine Tablette."),
    "es": ("Buenos días, me duele la garganta desde el lunes.", "Sí, claro.", "Tome esta medicina cada ocho horas."),
    "fr": ("Bonjour docteur, je tousse depuis une semaine.", "Non, jamais.", "Revenez me voir dans quinze jours."),
}
# Voice, words a minute, pitch.
VOICES: dict[Half, tuple[tuple[str, int, int], ...]] = {
    "dev": (("en-us", 160, 45), ("hi", 150, 50), ("en-gb+f2", 180, 60), ("hi+f3", 135, 65), ("de+m3", 170, 35),
            ("ta+f4", 150, 60)),
    "test": (("en-gb", 150, 40), ("hi+m4", 165, 40), ("en-us+f5", 145, 65), ("hi+f2", 150, 60), ("es+f3", 165, 60),
             ("fr+m2", 155, 40)),
}  # fmt: skip
BABBLE: dict[Half, tuple[str, ...]] = {
    "dev": ("en-us+m5", "hi+f5", "de+f1", "es+m1", "fr+f2", "ta+m2", "en-gb+m7", "hi+m1"),
    "test": ("en-us+f3", "hi+m6", "de+m2", "es+f1", "fr+m5", "ta+f2", "en-gb+f4", "hi+f1"),
}


class Track(NamedTuple):
    """One call side as it arrives, and for each of its whole 20 ms frames whether somebody speaks."""

    voice: str
    noise: str
    snr: int | None
    codes: bytes
    truth: NDArray[np.bool_]

    @property
    def pcm(self) -> bytes:
        return dsp.mulaw_decode(self.codes)


def say(text: str, voice: str, speed: int = 160, pitch: int = 50) -> Signal:
    """Speak, at RATE, without the silence around it."""
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", text]
    spoken = subprocess.run(command, check=True, capture_output=True).stdout
    with wave.open(io.BytesIO(spoken)) as file:
        rate, frames = file.getframerate(), file.readframes(file.getnframes())
    resampler = dsp.Resampler(rate, RATE, "strict")
    samples = np.frombuffer(resampler.process(frames) + resampler.flush(), np.int16).astype(float)
    loud = np.nonzero(np.abs(samples) > 50)[0]
    return samples[loud[0] : loud[-1] + 1]


def on_line(samples: Signal) -> Signal:
    """Keep what a telephone line carries."""
    return np.asarray(signal.sosfilt(signal.butter(4, (300, 3400), "bandpass", fs=RATE, output="sos"), samples))


def talk(voice: str, speed: int, pitch: int, generator: np.random.Generator) -> Signal:
    """Speak one side of a conversation: one to three sentences, then 1.5 to 6 seconds of listening, and so on."""
    texts = TEXTS[voice[:2]]
    result = np.zeros(SECONDS * RATE)
    position = int(generator.uniform(0.8, 2) * RATE)
    left = int(generator.integers(1, 4))
    for i in generator.permutation(1000):
        sentence = say(texts[i % len(texts)], voice, int(speed * generator.uniform(0.9, 1.15)), pitch)
        sentence *= 10 ** (generator.uniform(-3, 3) / 20)
        if position + len(sentence) > len(result):
            return result
        result[position : position + len(sentence)] = sentence
        left -= 1
        pause = generator.uniform(0.25, 0.8) if left else generator.uniform(1.5, 6)
        left = left or int(generator.integers(1, 4))
        position += len(sentence) + int(pause * RATE)
    raise AssertionError("a thousand sentences last longer")


def powers(samples: Signal) -> Signal:
    """Mean square of each whole frame."""
    return np.asarray(np.mean(samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME) ** 2, axis=1))


def label(clean: Signal, gap_ms: int = 200) -> NDArray[np.bool_]:
    """Tell which frames of a clean signal are speech."""
    energy = powers(clean)
    truth = energy > np.percentile(energy[energy > 0], 90) * 10 ** (-35 / 10)
    spoken = np.nonzero(truth)[0]
    for last, following in itertools.pairwise(spoken):
        if following - last <= gap_ms // 20:
            truth[last:following] = True
    return truth


def noise(kind: str, half: Half, generator: np.random.Generator) -> Signal:
    """Make SECONDS of a noise."""
    count = SECONDS * RATE
    if kind == "white":
        return generator.standard_normal(count)
    if kind == "pink":
        spectrum = np.fft.rfft(generator.standard_normal(count))
        return np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), count)
    if kind == "hum":
        times = 2 * np.pi * 50 * (1 + 1e-3 * generator.uniform(-1, 1)) * np.arange(count) / RATE
        weights = ((n, generator.uniform(0.5, 1) / n, generator.uniform(0, 6)) for n in (1, 2, 3, 5, 6, 7, 9, 11, 13))
        hum = sum(weight * np.sin(n * times + phase) for n, weight, phase in weights)
        return np.asarray(hum + 0.01 * generator.standard_normal(count))
    # A waiting room: 32 talkers, four at a time with the same voice but at different places of their speech.
    voices = np.zeros(count)
    for voice in BABBLE[half]:
        once = say(" ".join(TEXTS[voice[:2]]), voice, int(generator.uniform(140, 190)), int(generator.uniform(30, 70)))
        endless = np.resize(once, count + len(once)) / np.std(once)
        for start in generator.integers(len(once), size=4):
            voices += endless[start : start + count] * generator.uniform(0.5, 1)
    return voices


@cache
def clean_talk(half: Half) -> tuple[tuple[str, Signal], ...]:
    """Speak the half's tracks, as the line carries them, at -26 dBFS while somebody speaks."""
    generator = np.random.default_rng({"dev": 11, "test": 23}[half])
    tracks = []
    for voice, speed, pitch in VOICES[half]:
        clean = on_line(talk(voice, speed, pitch, generator))
        level = np.sqrt(np.mean(powers(clean)[label(clean)]))
        tracks.append((voice, clean / level * 32768 * 10 ** (-26 / 20)))
    return tuple(tracks)


def encode(samples: Signal) -> bytes:
    return dsp.mulaw_encode(np.clip(np.rint(samples), -32768, 32767).astype(np.int16).data)


def tracks(half: Half, noises: tuple[str, ...] = NOISES, snrs: tuple[int, ...] = SNRS) -> Iterator[Track]:
    """Yield every track of the half with every noise at every ratio."""
    for number, (voice, clean) in enumerate(clean_talk(half)):
        truth = label(clean)
        level = np.sqrt(np.mean(powers(clean)[truth]))
        for kind in noises:
            generator = np.random.default_rng([len(half), number, NOISES.index(kind)])
            added = on_line(noise(kind, half, generator))
            added *= level / np.std(added)
            for snr in snrs:
                yield Track(voice, kind, snr, encode(clean + added * 10 ** (-snr / 20)), truth)


def quiet_tracks(half: Half) -> Iterator[Track]:
    """Yield every track of the half without noise: digital silence between the words."""
    for voice, clean in clean_talk(half):
        truth = label(clean)
        silent = np.repeat(~truth, FRAME)
        clean = clean[: len(silent)] * ~silent
        yield Track(voice, "none", None, encode(clean), truth)
