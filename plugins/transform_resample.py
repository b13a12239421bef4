"""Change the sample rate.

Telephone audio has 8,000 samples a second, recognisers want 16,000.  Resampling is filtering: between two rates only
what lies below half of the lower one may pass.  The filter needs some samples of future, and so the output lags by a
few milliseconds; `mediaflow.dsp.Resampler` says how many and why.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mediaflow import AudioFormat, Compiled, Processor, Register, Transform, dsp, hookimpl

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
        return Compiled(dsp.Resampler(format.sample_rate, self.rate, self.quality), format, self.output_format(format))


@hookimpl
def register_components(register: Register) -> None:
    register("resample", Resample)
