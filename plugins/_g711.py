"""What the four G.711 steps share: a codec that maps bytes to bytes and keeps no state."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from mediaflow import AudioFormat, AudioFrame, FormatError, Processor, Transform


class Decode(Transform, frozen=True):
    """Expand the codes of one law to 16-bit PCM; what is not of that law goes on as it is."""

    def output_format(self, format: AudioFormat) -> AudioFormat:
        return msgspec.structs.replace(format, encoding="s16le")


class Encode(Transform, frozen=True):
    """Compress 16-bit PCM to the codes of one law."""

    def output_format(self, format: AudioFormat) -> AudioFormat:
        if format.encoding != "s16le":
            raise FormatError(f"takes s16le, not {format.encoding}", f"add `- use: {format.encoding}_decode` before it")
        return format


class Codec(Processor):
    """Applies ``convert`` to the bytes of every frame."""

    def __init__(self, convert: Callable[[bytes], bytes], output: AudioFormat) -> None:
        self._convert, self._output = convert, output

    def process(self, frame: AudioFrame) -> tuple[AudioFrame]:
        return (frame.replace(self._convert(frame.data), self._output),)
