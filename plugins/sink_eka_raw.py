"""Audio to EkaScribe as raw PCM in binary WebSocket messages: the documented default, and the cheapest.

A binary message cannot say what rate it has: the service takes everything for 16000 Hz.
"""

from __future__ import annotations

from typing import ClassVar

from mediaflow import AudioFormat, Register, hookimpl

from ._eka_stream import EkaStream


class EkaRaw(EkaStream, frozen=True):
    """Stream a call to EkaScribe as raw PCM and fetch the clinical note.

    Takes one track of s16le at 16000 Hz.  The whole audio is sent: the service looks for pauses itself.  When the call
    is over the session is ended, and its result is written to ``results``.
    """

    in_json: ClassVar[bool] = False

    def check_format(self, format: AudioFormat, tracks: tuple[str, ...]) -> None:
        self.require(format, tracks, rates=(16000,))


@hookimpl
def register_components(register: Register) -> None:
    register("eka_raw", EkaRaw)
