"""Make one voice track of the two sides of a call.

Samples are added and kept within 16 bits.  Both sides keep their level: two people rarely speak at once, and when they
do a recogniser bears a rare clipped peak better than everything at half the level.
"""

from __future__ import annotations

from functools import reduce

from mediaflow import AudioFormat, Joiner, Processor, Register, dsp, hookimpl

from ._align import Aligner, WaitMs
from ._pcm import require_mono_pcm


class Mix(Joiner, frozen=True):
    """Add all tracks to one, aligned by their timestamps.  Left out where there is one track."""

    wait_ms: WaitMs = 1000

    @property
    def output_track(self) -> str:
        return "mix"

    def output_format(self, format: AudioFormat, tracks: tuple[str, ...]) -> AudioFormat:
        require_mono_pcm(format)
        return format

    def open(self, format: AudioFormat, tracks: tuple[str, ...]) -> Processor:
        return _Mixer(format, format, self.output_track, tracks, self.wait_ms)


class _Mixer(Aligner):
    def join(self, blocks: list[bytes]) -> bytes:
        return reduce(dsp.mix, blocks)


@hookimpl
def register_components(register: Register) -> None:
    register("mix", Mix)
