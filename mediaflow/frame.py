"""What flows through a pipeline: audio frames, and events in their midst.

A *track* is one side of a call: ``inbound`` is the voice that comes in from the caller, ``outbound`` the voice of the
one who was called.  A *frame* is a run of samples of one track, of any length: 20 ms from a telephone carrier, a few
bytes after a resampler.  It says where it stands: ``position`` counts samples from the stream's first, in the frame's
own sample rate.  An *event* stands between two frames and says when it happened in seconds of the stream, so it keeps
its meaning when the rate changes on the way.

Frames carry ``bytes`` and never change, so several sinks can share one.

Every call makes fifty of these a second, so this module is compiled as it stands (``frame.pxd`` has its types).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, cast

import msgspec

if TYPE_CHECKING:
    import numpy

Encoding = Literal["s16le", "mulaw", "alaw"]

SAMPLE_BYTES: dict[Encoding, int] = {"s16le": 2, "mulaw": 1, "alaw": 1}

# The code of amplitude zero: G.711 stores its codes inverted (µ-law) or with even bits inverted (A-law).
SILENT_BYTE: dict[Encoding, bytes] = {"s16le": b"\x00", "mulaw": b"\xff", "alaw": b"\xd5"}


def rescale(position: int, rate_in: int, rate_out: int) -> int:
    """Return the position at ``rate_out`` that is nearest in time to ``position`` at ``rate_in``."""
    return (2 * position * rate_out + rate_in) // (2 * rate_in)


class AudioFormat(msgspec.Struct, frozen=True):
    """How the bytes of a frame are to be read.

    ``s16le`` is signed 16-bit linear PCM, least byte first; ``mulaw`` and ``alaw`` are the two codes of ITU-T G.711.
    With two channels the samples interleave, left first, and one *sample* means one of each.
    """

    encoding: Encoding
    sample_rate: int
    channels: int = 1

    @property
    def sample_bytes(self) -> int:
        """Bytes that one sample takes, over all channels."""
        return SAMPLE_BYTES[self.encoding] * self.channels

    def sample_count(self, data: bytes) -> int:
        """Return how many samples ``data`` holds; raise ValueError if it ends inside one."""
        count, rest = divmod(len(data), self.sample_bytes)
        if rest:
            raise ValueError(f"{len(data)} bytes of {self} end inside a sample of {self.sample_bytes} bytes")
        return count

    def silence(self, samples: int) -> bytes:
        """Return ``samples`` of silence."""
        return SILENT_BYTE[self.encoding] * (samples * self.sample_bytes)

    def __str__(self) -> str:
        channels = {1: "mono", 2: "stereo"}.get(self.channels, f"{self.channels} channels")
        return f"{self.encoding} {self.sample_rate} Hz {channels}"


class AudioFrame:
    """A run of samples of one track."""

    def __init__(self, data: bytes, format: AudioFormat, track: str = "inbound", position: int = 0) -> None:
        self.data, self.format, self.track, self.position = data, format, track, position

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AudioFrame):
            return NotImplemented
        same_place = self.position == other.position and self.track == other.track
        return same_place and self.data == other.data and self.format == other.format

    def __hash__(self) -> int:
        return hash((self.data, self.format, self.track, self.position))

    def __repr__(self) -> str:
        return f"AudioFrame({len(self.data)} bytes, {self.format}, {self.track!r}, {self.position})"

    @property
    def sample_count(self) -> int:
        """Number of samples."""
        return len(self.data) // self.format.sample_bytes

    @property
    def end(self) -> int:
        """Position of the sample after the last."""
        return self.position + self.sample_count

    @property
    def time(self) -> float:
        """Seconds from the start of the stream to the first sample."""
        return self.position / self.format.sample_rate

    @property
    def duration(self) -> float:
        """Seconds that the frame lasts."""
        return self.sample_count / self.format.sample_rate

    @property
    def samples(self) -> numpy.ndarray:
        """A read-only numpy view: int16 (or uint8 codes), shape ``(n,)``, with channels ``(n, channels)``."""
        import numpy  # here, because nothing on the hot path may pay 100 ms for importing it

        dtype = "<i2" if self.format.encoding == "s16le" else "u1"
        view = numpy.frombuffer(self.data, dtype)
        return view if self.format.channels == 1 else view.reshape(-1, self.format.channels)

    def replace(self, data: bytes, format: AudioFormat | None = None, position: int | None = None) -> AudioFrame:
        """Return a frame of the same track with other bytes."""
        return AudioFrame(
            data,
            self.format if format is None else format,
            self.track,
            self.position if position is None else position,
        )


def new_frame(data: bytes, format: AudioFormat, track: str, position: int) -> AudioFrame:
    """Return ``AudioFrame(data, format, track, position)``: for compiled code, which has no arguments parsed here."""
    frame = AudioFrame.__new__(AudioFrame)
    frame.data, frame.format, frame.track, frame.position = data, format, track, position
    return frame


class Event(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Something that happened on ``track``, ``time`` seconds after the start of the stream."""

    track: str
    time: float


class SpeechStarted(Event, frozen=True, gc=False):
    """Speech begins."""


class SpeechEnded(Event, frozen=True, gc=False):
    """Speech has ended; a pause begins."""


class Gap(Event, frozen=True, gc=False):
    """Audio is missing here: ``duration`` seconds of silence stand in its place."""

    duration: float
    reason: str


class Cut(Event, frozen=True, gc=False):
    """A good place to end one chunk of audio and begin the next."""


class Lost(Event, frozen=True, gc=False):
    """A transform had to leave ``duration`` seconds of its input out; the ledger books them under ``reason``."""

    duration: float
    reason: str


class Dtmf(Event, frozen=True, gc=False):
    """A key of the telephone was pressed."""

    digit: str


class WireAlarm(Event, frozen=True, gc=False):
    """The wire is not what it says it is; ``finding`` tells how, as ``wire_truth`` names it."""

    finding: str


Item = AudioFrame | Event
"""What a transform takes and gives."""


class Stream(msgspec.Struct, frozen=True):
    """What a source knows of a call when it opens it.

    ``id`` is the identity of the call, unique among the live ones of its pipeline: the carrier's call id, not the id of
    a socket.  ``tracks`` are the sides that will arrive.  ``metadata`` is for path templates and for the sinks; it may
    hold telephone numbers, so nothing of it is ever logged.
    """

    id: str
    format: AudioFormat
    tracks: tuple[str, ...] = ("inbound",)
    metadata: Mapping[str, str] = msgspec.field(default_factory=lambda: cast("dict[str, str]", {}))
