"""Audio to EkaScribe in the Media Streams envelope: JSON text messages with base64, as telephone carriers send it.

It costs a third more bytes than raw PCM at the same rate, but its ``start`` says the rate, so that a telephone call can
go at the 8000 Hz that it has: 21 kB/s, where raw PCM at 16000 Hz is 32 kB/s.
"""

from __future__ import annotations

from typing import ClassVar

from mediaflow import AudioFormat, Register, hookimpl

from ._eka_stream import EkaStream


class EkaJson(EkaStream, frozen=True):
    """Stream a call to EkaScribe in JSON messages and fetch the clinical note.

    Takes one track of s16le at 16000 or 8000 Hz; µ-law has to be decoded before it, for the service would take it for
    PCM.  When the call is over the session is ended, and its result is written to ``results``.
    """

    in_json: ClassVar[bool] = True

    def check_format(self, format: AudioFormat, tracks: tuple[str, ...]) -> None:
        self.require(format, tracks, rates=(16000, 8000))


@hookimpl
def register_components(register: Register) -> None:
    register("eka_json", EkaJson)
