"""Expand µ-law telephone audio to 16-bit PCM (ITU-T G.711): the law of North America and Japan, and of Vobiz."""

from __future__ import annotations

from mediaflow import AudioFormat, Compiled, Processor, Register, dsp, hookimpl

from . import _g711


class MulawDecode(_g711.Decode, frozen=True):
    """Expand µ-law to 16-bit PCM.  Left out where the audio is not µ-law."""

    def applies(self, format: AudioFormat) -> bool:
        return format.encoding == "mulaw"

    def open(self, format: AudioFormat) -> Processor:
        return Compiled(dsp.mulaw_decode, format, self.output_format(format))


@hookimpl
def register_components(register: Register) -> None:
    register("mulaw_decode", MulawDecode)
