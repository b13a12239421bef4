"""Find where speech is, by its energy over the noise; `mediaflow.dsp.EnergyVad` tells how.

The audio goes through unchanged.  Events are placed where they become certain: speech that lasted ``min_speech_ms`` has
started, a silence that lasted ``hangover_ms`` has ended it.  Their time says when it really began or ended, which is
a little earlier.  Frames are split where an event stands, so that the slicing of the input changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta

from mediaflow import (
    AudioFormat,
    AudioFrame,
    Compiled,
    Item,
    Processor,
    Register,
    SpeechEnded,
    SpeechStarted,
    Transform,
    dsp,
    hookimpl,
)

from ._pcm import require_mono_pcm

_FRAME_MS = 20


class EnergyVad(Transform, frozen=True):
    """Mark where speech starts and ends.  It marks and measures; it drops nothing."""

    start_db: Annotated[float, Meta(ge=0.5, le=18, description="score, 0 to 20, from which it is speech")] = 5.0
    stop_db: Annotated[float, Meta(ge=0, le=18, description="score below which it is no longer; ≤ start_db")] = 4.5
    min_speech_ms: Annotated[int, Meta(ge=0, le=1000, description="shorter sounds are not speech")] = 60
    hangover_ms: Annotated[int, Meta(ge=0, le=5000, description="shorter pauses do not end speech")] = 100

    emits = (SpeechStarted, SpeechEnded)

    def check(self) -> None:
        if self.stop_db > self.start_db:
            raise ValueError(f"stop_db ({self.stop_db:g}) must not be above start_db ({self.start_db:g})")

    def output_format(self, format: AudioFormat) -> AudioFormat:
        require_mono_pcm(format)
        return format

    def open(self, format: AudioFormat) -> Processor:
        return _Detector(self, format)


class _Detector(Compiled):
    def __init__(self, config: EnergyVad, format: AudioFormat) -> None:
        self._vad = dsp.EnergyVad(
            format.sample_rate,
            frame_ms=_FRAME_MS,
            start_db=config.start_db,
            stop_db=config.stop_db,
            min_speech_ms=config.min_speech_ms,
            hangover_ms=config.hangover_ms,
        )
        super().__init__(self._vad, format, format)
        self._rate = format.sample_rate
        # How long after its own position an event becomes certain.
        self._started_after = _whole_frames(config.min_speech_ms) * self._vad.frame_samples
        self._ended_after = _whole_frames(config.hangover_ms) * self._vad.frame_samples

    def tell(self, frame: AudioFrame) -> Iterator[Item]:
        size = frame.format.sample_bytes
        done = 0
        for event in self._vad.take().events:
            certain = event.position + (self._started_after if event.started else self._ended_after)
            at = min(max(self.origin + certain - frame.position, done), frame.sample_count)
            if at > done:
                yield frame.replace(frame.data[done * size : at * size], position=frame.position + done)
                done = at
            kind = SpeechStarted if event.started else SpeechEnded
            yield kind(self.track, (self.origin + event.position) / self._rate)
        if done == 0 and frame.data:
            yield frame
        elif done < frame.sample_count:
            yield frame.replace(frame.data[done * size :], position=frame.position + done)


def _whole_frames(ms: int) -> int:
    return max(1, -(-ms // _FRAME_MS))


@hookimpl
def register_components(register: Register) -> None:
    register("energy_vad", EnergyVad)
