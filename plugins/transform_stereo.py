"""Put the two sides of a call on the two channels of one track, as call recordings do."""

from __future__ import annotations

import msgspec

from mediaflow import AudioFormat, FormatError, Joiner, Processor, Register, dsp, hookimpl

from ._align import Aligner, WaitMs
from ._pcm import require_mono_pcm


class Stereo(Joiner, frozen=True):
    """Make one stereo track of two, the first on the left, aligned by timestamps.  Left out where there is one."""

    wait_ms: WaitMs = 1000

    @property
    def output_track(self) -> str:
        return "stereo"

    def output_format(self, format: AudioFormat, tracks: tuple[str, ...]) -> AudioFormat:
        require_mono_pcm(format)
        if len(tracks) > 2:
            raise FormatError(f"takes two tracks, not {len(tracks)}", "use mix")
        return msgspec.structs.replace(format, channels=2)

    def open(self, format: AudioFormat, tracks: tuple[str, ...]) -> Processor:
        return _Interleaver(format, self.output_format(format, tracks), self.output_track, tracks, self.wait_ms)


class _Interleaver(Aligner):
    def join(self, blocks: list[bytes]) -> bytes:
        return dsp.interleave(*blocks)


@hookimpl
def register_components(register: Register) -> None:
    register("stereo", Stereo)
