"""Expand A-law telephone audio to 16-bit PCM (ITU-T G.711): the law of Europe, India and most of the world."""

from __future__ import annotations

from mediaflow import AudioFormat, Compiled, Processor, Register, dsp, hookimpl

from . import _g711


class AlawDecode(_g711.Decode, frozen=True):
    """Expand A-law to 16-bit PCM.  Left out where the audio is not A-law."""

    def applies(self, format: AudioFormat) -> bool:
        return format.encoding == "alaw"

    def open(self, format: AudioFormat) -> Processor:
        return Compiled(dsp.alaw_decode, format, self.output_format(format))


@hookimpl
def register_components(register: Register) -> None:
    register("alaw_decode", AlawDecode)
