"""Make `pipelines/consent_notice.wav`, what the shipped pipeline with a reply plays to a caller.

    python tests/make_consent_notice.py

needs espeak-ng and sox, as `make_consultation.py` does, and makes the same bytes with the same versions of both.
"""

from __future__ import annotations

import wave
from pathlib import Path

import numpy
from make_consultation import DOCTOR, RATE, Turn, speak

TEXT = "This call is recorded and transcribed for your medical notes. If you do not agree, please say so now."
TARGET = Path(__file__).parents[1] / "pipelines" / "consent_notice.wav"


def main() -> None:
    """Write the file and say what is in it."""
    pcm = numpy.clip(numpy.rint(speak(Turn(DOCTOR, "en-gb+f3", TEXT))), -32768, 32767).astype("<i2")
    with wave.open(str(TARGET), "wb") as file:
        file.setparams((1, 2, RATE, len(pcm), "NONE", ""))
        file.writeframes(pcm.tobytes())
    print(f"{TARGET.name}: {len(pcm) / RATE:.2f} s, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
