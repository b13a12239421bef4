"""What the tests of configuration share: audio to name in pipelines, and a transform with options of every kind."""

from __future__ import annotations

import wave
from pathlib import Path

import msgspec

from mediaflow import AudioFormat, Processor, Register, Transform, hookimpl
from mediaflow.plugins import Plugins, load

RATE = 8000


class Voice(msgspec.Struct, forbid_unknown_fields=True):
    """A mapping among the options."""

    pitch: int


class Shout(Transform, frozen=True, kw_only=True):
    """Pass the audio on.  It has options of every kind, and can be told to break."""

    loud: bool = False
    words: list[str] = msgspec.field(default_factory=list)
    grid: list[list[int]] = msgspec.field(default_factory=list)
    levels: dict[str, int] = msgspec.field(default_factory=dict)
    voice: Voice | None = None
    breaks: bool = False
    misfits: bool = False

    def check(self) -> None:
        if self.breaks:
            raise KeyError("loud")

    def output_format(self, format: AudioFormat) -> AudioFormat:
        if self.misfits:
            raise ZeroDivisionError("division by zero")
        return format

    def open(self, format: AudioFormat) -> Processor:
        return Processor()


class ShoutPlugin:
    """Brings ``shout``."""

    @hookimpl
    def register_components(self, register: Register) -> None:
        register("shout", Shout)


def with_shout() -> Plugins:
    """Return what is installed, and ``shout``."""
    plugins = load()
    plugins.add(ShoutPlugin(), "shout")
    assert not plugins.broken
    return plugins


def make_audio(folder: Path) -> None:
    """Make the files that the pipelines name: half a second of silence, mono, stereo and µ-law."""
    for name, channels in (("call.wav", 1), ("stereo.wav", 2)):
        with wave.open(str(folder / name), "wb") as file:
            file.setnchannels(channels)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(bytes(RATE * channels))
    (folder / "call.ulaw").write_bytes(b"\xff" * (RATE // 2))
