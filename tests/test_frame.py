"""What flows through a pipeline: frames that never change, and that tell no audio."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from mediaflow import AudioFormat, AudioFrame
from mediaflow.frame import new_frame

FORMAT = AudioFormat("s16le", 8000, channels=2)
DATA = bytes(range(1, 65))


def test_a_frame_says_where_it_stands() -> None:
    """A sample is one of each channel, and positions count samples."""
    frame = AudioFrame(DATA, FORMAT, "outbound", 400)
    assert (frame.sample_count, frame.end, frame.time, frame.duration) == (16, 416, 0.05, 0.002)
    assert frame.samples.shape == (16, 2)
    assert frame.samples.tobytes() == DATA
    assert (AudioFrame(DATA, FORMAT).track, AudioFrame(DATA, FORMAT).position) == ("inbound", 0)


def test_frames_are_values() -> None:
    """Two that are the same in all are equal, wherever they were made."""
    frame = AudioFrame(DATA, FORMAT, "outbound", 400)
    for same in (new_frame(DATA, FORMAT, "outbound", 400), pickle.loads(pickle.dumps(frame)), copy.copy(frame)):
        assert type(same) is AudioFrame
        assert same == frame and hash(same) == hash(frame)
    mono = AudioFormat("s16le", 8000)
    for other in (
        AudioFrame(DATA[::-1], FORMAT, "outbound", 400),
        AudioFrame(DATA, mono, "outbound", 400),
        AudioFrame(DATA, FORMAT, "inbound", 400),
        AudioFrame(DATA, FORMAT, "outbound", 401),
        (DATA, FORMAT, "outbound", 400),
    ):
        assert frame != other


def test_a_frame_with_other_bytes() -> None:
    """It has the track, and what is not said anew."""
    frame, mono = AudioFrame(DATA, FORMAT, "outbound", 400), AudioFormat("s16le", 8000)
    assert frame.replace(b"") == AudioFrame(b"", FORMAT, "outbound", 400)
    assert frame.replace(DATA, mono, 0) == AudioFrame(DATA, mono, "outbound", 0)


@pytest.mark.parametrize("name", ["data", "format", "track", "position", "more"])
def test_a_frame_never_changes(name: str) -> None:
    """Several sinks share it."""
    frame: Any = AudioFrame(DATA, FORMAT)
    with pytest.raises(AttributeError):
        setattr(frame, name, 1)


@pytest.mark.parametrize(
    ("data", "track", "position"),
    [("text", "inbound", 0), (bytearray(4), "inbound", 0), (b"", 1, 0), (b"", "inbound", "0")],
)
def test_a_frame_of_something_else(data: Any, track: Any, position: Any) -> None:
    """It is told where it is made, not where it is used."""
    with pytest.raises(TypeError):
        AudioFrame(data, FORMAT, track, position)


def test_a_frame_tells_no_audio() -> None:
    """What may come into a log says how much there is."""
    assert (
        repr(AudioFrame(DATA, FORMAT, "outbound", 400)) == "AudioFrame(64 bytes, s16le 8000 Hz stereo, 'outbound', 400)"
    )
