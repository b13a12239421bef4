"""Expand µ-law telephone audio to 16-bit PCM (ITU-T G.711)."""

from __future__ import annotations

import msgspec

from mediaflow import AudioFormat, AudioFrame, Processor, Register, Transform, dsp, hookimpl


class MulawDecode(Transform, frozen=True):
    """Expand µ-law codes to 16-bit PCM.  Left out where the audio is not µ-law."""

    def output_format(self, format: AudioFormat) -> AudioFormat:
        return msgspec.structs.replace(format, encoding="s16le")

    def applies(self, format: AudioFormat) -> bool:
        return format.encoding == "mulaw"

    def open(self, format: AudioFormat) -> Processor:
        return _Decoder(self.output_format(format))


class _Decoder(Processor):
    def __init__(self, output: AudioFormat) -> None:
        self._output = output

    def process(self, frame: AudioFrame) -> tuple[AudioFrame]:
        return (frame.replace(dsp.mulaw_decode(frame.data), self._output),)


@hookimpl
def register_components(register: Register) -> None:
    register("mulaw_decode", MulawDecode)
