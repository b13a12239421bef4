"""What the four G.711 steps share: what goes in and what comes out."""

from __future__ import annotations

import msgspec

from mediaflow import AudioFormat, FormatError, Transform


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
