"""Make `mediaflow/lab/consultation.wav`, the call that the lab plays and the tests of speech listen to.

    python tests/make_consultation.py

needs espeak-ng and sox.  The voices are synthetic and the text is invented, so nobody's privacy or rights are touched.
The same versions of both programs make the same bytes: the noise has a fixed seed and nothing is dithered.
"""

from __future__ import annotations

import subprocess
import wave
from pathlib import Path
from typing import NamedTuple

import numpy

RATE = 8000
SPEECH_DBFS = -20.0  # RMS of a turn: what carriers aim at, with 20 dB to spare for peaks
NOISE_DBFS = -65.0  # a quiet line; digital silence between the turns would make speech detection too easy
PAUSE_S, LEAD_S, TAIL_S = 0.7, 0.6, 0.8
TARGET = Path(__file__).parents[1] / "mediaflow" / "lab" / "consultation.wav"

PATIENT, DOCTOR = 0, 1  # left is who called: the track `inbound`


class Turn(NamedTuple):
    side: int
    voice: str
    text: str


TURNS = (
    Turn(DOCTOR, "en-gb+m3", "Good morning, this is Doctor Mehta. How can I help you?"),
    Turn(PATIENT, "en-us+f3", "Good morning, doctor. I have had a fever and a dry cough for three days."),
    Turn(DOCTOR, "en-gb+m3", "How high is the fever?"),
    Turn(PATIENT, "hi+f3", "कल रात एक सौ दो था। सिर में भी दर्द है।"),
    Turn(
        DOCTOR, "en-gb+m3", "Take five hundred milligrams of paracetamol three times a day, and drink plenty of water."
    ),
    Turn(PATIENT, "en-us+f3", "Thank you, doctor. Goodbye."),
)


def speak(turn: Turn) -> numpy.ndarray:
    """Return a turn as a telephone would carry it: 8 kHz, 300 to 3400 Hz, without silence at its ends."""
    spoken = subprocess.run(
        ["espeak-ng", "-v", turn.voice, "-s", "165", "--stdout", turn.text], check=True, capture_output=True
    ).stdout
    command = ["sox", "-D", "-t", "wav", "-", "-t", "raw", "-e", "signed", "-b", "16", "-"]
    raw = subprocess.run(
        [*command, "rate", str(RATE), "sinc", "300-3400"], input=spoken, check=True, capture_output=True
    ).stdout
    samples = numpy.frombuffer(raw, "<i2").astype(float)
    loud = numpy.flatnonzero(numpy.abs(samples) > 100)
    samples = samples[loud[0] : loud[-1]]
    gain = 32768 * 10 ** (SPEECH_DBFS / 20) / float(numpy.sqrt(numpy.mean(samples**2)))
    return samples * gain


def main() -> None:
    """Write the file and print where each turn is."""
    spoken = [speak(turn) for turn in TURNS]
    length = round((LEAD_S + TAIL_S + PAUSE_S * (len(TURNS) - 1)) * RATE) + sum(map(len, spoken))
    noise = numpy.random.default_rng(2026).standard_normal((length, 2))
    call = noise * 32768 * 10 ** (NOISE_DBFS / 20)
    start = round(LEAD_S * RATE)
    for turn, samples in zip(TURNS, spoken, strict=True):
        end = start + len(samples)
        call[start:end, turn.side] += samples
        print(f"| {start / RATE:.2f} | {end / RATE:.2f} | {('patient', 'doctor')[turn.side]} | {turn.text} |")
        start = end + round(PAUSE_S * RATE)
    pcm = numpy.clip(numpy.rint(call), -32768, 32767).astype("<i2")
    with wave.open(str(TARGET), "wb") as file:
        file.setparams((2, 2, RATE, length, "NONE", ""))
        file.writeframes(pcm.tobytes())
    print(f"{TARGET.name}: {length / RATE:.2f} s, {TARGET.stat().st_size} bytes, peak {abs(call).max() / 32768:.2f}")


if __name__ == "__main__":
    main()
