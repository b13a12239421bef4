"""What an intake listens to; what it does with messages is in the tests of the sources, over real sockets."""

from __future__ import annotations

import wave
from collections.abc import Callable

import numpy
import pytest

from mediaflow import AudioFormat, Stream, dsp, envelope
from mediaflow.envelope import Start
from mediaflow.intake import Intake
from mediaflow.lab import CLIP
from mediaflow.testing import RecordedSession, RecordingEngine

MULAW = AudioFormat("mulaw", 8000)
FRAME = 160


def speech() -> bytes:
    """Return what the doctor says in the lab's clip, from the first word on."""
    with wave.open(str(CLIP)) as file:
        samples = numpy.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    return samples[4800 : 4800 + 8 * 8000, 1].tobytes()


def noise(seconds: int) -> bytes:
    """Return white noise at -40 dBFS."""
    return (numpy.random.default_rng(7).standard_normal(seconds * 8000) * 328).astype("<i2").tobytes()


@pytest.mark.anyio
@pytest.mark.parametrize(("encode", "found"), [(dsp.alaw_encode, {"sounds-like-alaw": 1}), (dsp.mulaw_encode, {})])
async def test_a_wrong_label_is_found_behind_noise(encode: Callable[[bytes], bytes], found: dict[str, int]) -> None:
    """Though most of the noise is passed over; and all of the audio goes on as it came."""
    engine = RecordingEngine()
    codes = encode(noise(30) + speech())
    async with engine.open(Stream("c", MULAW, ("inbound",))) as session:
        assert isinstance(session, RecordedSession)
        intake = Intake("c", Start("c", "", "", MULAW, ("inbound",), {}), session, "little", engine)
        for number in range(len(codes) // FRAME):
            data = codes[number * FRAME : (number + 1) * FRAME]
            assert intake.take(envelope.build_media("s", number, "inbound", number + 1, 1000 + 20 * number, data))
        intake.end()
    assert engine.counts == found
    assert bytes(session.audio["inbound"]) == codes
