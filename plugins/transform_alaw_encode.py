"""Compress 16-bit PCM to A-law (ITU-T G.711): the law of Europe, India and most of the world."""

from __future__ import annotations

import msgspec

from mediaflow import AudioFormat, Compiled, Processor, Register, dsp, hookimpl

from . import _g711


class AlawEncode(_g711.Encode, frozen=True):
    """Compress 16-bit PCM to A-law.  Left out where the audio is A-law already."""

    def applies(self, format: AudioFormat) -> bool:
        return format.encoding != "alaw"

    def output_format(self, format: AudioFormat) -> AudioFormat:
        return msgspec.structs.replace(super().output_format(format), encoding="alaw")

    def open(self, format: AudioFormat) -> Processor:
        return Compiled(dsp.alaw_encode, format, self.output_format(format))


@hookimpl
def register_components(register: Register) -> None:
    register("alaw_encode", AlawEncode)
