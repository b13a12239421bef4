"""Compress 16-bit PCM to µ-law (ITU-T G.711): the law of North America and Japan, and of Vobiz."""

from __future__ import annotations

import msgspec

from mediaflow import AudioFormat, Compiled, Processor, Register, dsp, hookimpl

from . import _g711


class MulawEncode(_g711.Encode, frozen=True):
    """Compress 16-bit PCM to µ-law.  Left out where the audio is µ-law already."""

    def applies(self, format: AudioFormat) -> bool:
        return format.encoding != "mulaw"

    def output_format(self, format: AudioFormat) -> AudioFormat:
        return msgspec.structs.replace(super().output_format(format), encoding="mulaw")

    def open(self, format: AudioFormat) -> Processor:
        return Compiled(dsp.mulaw_encode, format, self.output_format(format))


@hookimpl
def register_components(register: Register) -> None:
    register("mulaw_encode", MulawEncode)
