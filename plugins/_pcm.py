"""The one demand that most steps have in common."""

from __future__ import annotations

from mediaflow import AudioFormat, FormatError


def require_mono_pcm(format: AudioFormat) -> None:
    """Raise ``FormatError``, with the step that is missing, unless ``format`` is 16-bit mono PCM."""
    if format.encoding != "s16le":
        raise FormatError(f"takes s16le, not {format.encoding}", f"add `- use: {format.encoding}_decode` before it")
    if format.channels != 1:
        raise FormatError(f"takes one channel a track, not {format.channels}", "put it before `- use: stereo`")
