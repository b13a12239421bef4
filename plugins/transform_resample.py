"""Change the sample rate.

Telephone audio has 8,000 samples a second, recognisers want 16,000.  Resampling is filtering: between two rates only
what lies below half of the lower one may pass.  The filter needs some samples of future, and so the output lags by a
few milliseconds; `mediaflow.dsp.Resampler` says how many and why.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mediaflow import AudioFormat, AudioFrame, Processor, Register, Transform, dsp, hookimpl, rescale

from ._pcm import require_mono_pcm


class Resample(Transform, frozen=True, kw_only=True):
    """Change the sample rate of 16-bit mono PCM.  Left out where the rate is right already.

    A track of n samples becomes ceil(n · rate / input rate) samples exactly.
    """

    rate: Annotated[int, Meta(ge=4000, le=192_000, description="samples per second that come out")]
    quality: Annotated[
        Literal["strict", "fast"],
        Meta(description="strict keeps everything above half the lower rate out; fast lets a little fold near it"),
    ] = "fast"

    def output_format(self, format: AudioFormat) -> AudioFormat:
        require_mono_pcm(format)
        return msgspec.structs.replace(format, sample_rate=self.rate)

    def applies(self, format: AudioFormat) -> bool:
        return format.sample_rate != self.rate

    def open(self, format: AudioFormat) -> Processor:
        return _Resampler(format, self.output_format(format), self.quality)


class _Resampler(Processor):
    def __init__(self, input: AudioFormat, output: AudioFormat, quality: Literal["strict", "fast"]) -> None:
        self._resampler = dsp.Resampler(input.sample_rate, output.sample_rate, quality)
        self.latency = self._resampler.latency
        self._input, self._output = input, output
        self._last: AudioFrame | None = None

    def process(self, frame: AudioFrame) -> tuple[AudioFrame, ...]:
        return self._next(frame, self._resampler.process(frame.data))

    def flush(self) -> tuple[AudioFrame, ...]:
        return () if self._last is None else self._next(self._last, self._resampler.flush())

    def _next(self, frame: AudioFrame, pcm: bytes) -> tuple[AudioFrame, ...]:
        if self._last is None:
            start = rescale(frame.position, self._input.sample_rate, self._output.sample_rate)
            self._last = AudioFrame(b"", self._output, frame.track, start)
        if not pcm:
            return ()
        self._last = AudioFrame(pcm, self._output, frame.track, self._last.end)
        return (self._last,)


@hookimpl
def register_components(register: Register) -> None:
    register("resample", Resample)
