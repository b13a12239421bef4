"""Play an audio file as if it were a call.

A file is read in blocks of about a second by a worker thread, so one of many hours needs no more memory than a short
one and the event loop never waits for the disk.  Three readers share one shape (``format``, ``read``, ``close``): our
own for WAV, which takes files that a crash has left; one for samples without a header; and libsndfile for the rest.

Paced playing works from the clock, not from the length of its sleeps: frame *k* leaves at start + k · frame_ms / speed,
so that an hour takes an hour.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import anyio
import msgspec
from anyio import to_thread
from msgspec import Meta

from mediaflow import AudioFormat, Engine, Register, Session, SessionError, Source, SourceError, Stream, dsp, hookimpl
from mediaflow.wav import WavReader, float_to_pcm

_RAW: dict[str, AudioFormat] = {
    ".ulaw": AudioFormat("mulaw", 8000),
    ".alaw": AudioFormat("alaw", 8000),
    ".raw": AudioFormat("s16le", 0),
    ".pcm": AudioFormat("s16le", 0),
}
_WAV_MAGIC = (b"RIFF", b"RF64", b"BW64")
_TRACKS = ("inbound", "outbound")
_BLOCK_MS = 1000


class File(Source, frozen=True):
    """Play a file as one call, then end.

    Takes WAV, what soundfile reads (``pip install mediaflow[files]``: FLAC, Ogg, MP3, …), and samples without a header
    (``.raw``, ``.pcm``, ``.ulaw``, ``.alaw``, or any file when ``encoding`` is set).  A file with one channel gives the
    track ``inbound``; in one with two, left is ``inbound`` and right ``outbound``, as calls are commonly recorded.
    G.711 comes out as it is; everything else as 16-bit PCM.
    """

    path: Annotated[str, Meta(min_length=1, description="the file")]
    encoding: Annotated[
        Literal["s16le", "mulaw", "alaw"] | None, Meta(description="of a file without a header; it is then read as one")
    ] = None
    sample_rate: Annotated[int, Meta(ge=1000, le=384_000, description="in Hz, of a file without a header")] | None = (
        None
    )
    channels: Annotated[Literal[1, 2] | None, Meta(description="of a file without a header; 1 if not given")] = None
    speed: Annotated[
        Annotated[float, Meta(gt=0)] | Literal["max"],
        Meta(description="1.0 plays in real time, 2.0 twice as fast, max as fast as the sinks take it"),
    ] = "max"
    start_s: Annotated[
        float, Meta(ge=0, description="where in the file to begin, in seconds; its stream counts on from there")
    ] = 0.0
    frame_ms: Annotated[int, Meta(ge=5, le=1000, description="length of the frames, in ms")] = 20
    id: Annotated[str, Meta(description="the id of the call; the file's name without suffix if not given")] = ""

    def check(self) -> None:
        if not self._is_raw and (self.sample_rate or self.channels):
            raise ValueError("sample_rate and channels are for files without a header; set encoding too")
        if self._is_raw and not self._raw_format.sample_rate:
            raise ValueError(f"{self.path} has no header: add sample_rate (and channels, if there are two)")
        try:
            self._open().close()
        except SourceError as error:
            raise ValueError(str(error)) from None

    def formats(self) -> Iterator[tuple[AudioFormat, tuple[str, ...]]]:
        reader = self._open()
        reader.close()
        yield _of_a_track(reader.format), _TRACKS[: reader.format.channels]

    async def serve(self, engine: Engine) -> None:
        reader = await to_thread.run_sync(self._open)
        try:
            tracks = _TRACKS[: reader.format.channels]
            stream = Stream(self.id or Path(self.path).stem, _of_a_track(reader.format), tracks)
            with suppress(SessionError):  # nobody takes the audio any more; the engine has said why
                async with engine.open(stream) as session:
                    await self._skip(reader, session)
                    await self._play(reader, session)
        finally:
            reader.close()

    async def _skip(self, reader: _Reader, session: Session) -> None:
        """Pass over what lies before ``start_s``, a block at a time."""
        rate, size = reader.format.sample_rate, reader.format.sample_bytes
        position, start = 0, round(self.start_s * rate)
        while position < start:
            block = await to_thread.run_sync(reader.read, min(start - position, rate * _BLOCK_MS // 1000))
            if not block:
                break
            position += len(block) // size
        if position:
            for track in session.stream.tracks:
                session.begin(track, position)

    async def _play(self, reader: _Reader, session: Session) -> None:
        format, tracks = session.stream.format, session.stream.tracks
        rate, size = format.sample_rate, format.sample_bytes
        frames_per_block = -(-_BLOCK_MS // self.frame_ms)
        begun = anyio.current_time()
        for first in itertools.count(0, frames_per_block):
            # Worked out from the frame's number: 11025 Hz has no whole number of samples in 20 ms.
            edges = [(first + k) * rate * self.frame_ms // 1000 for k in range(frames_per_block + 1)]
            offset = edges[0]
            block = await to_thread.run_sync(_read, reader, edges[-1] - offset)
            end_of_block = offset + len(block[0]) // size
            if end_of_block == offset:
                return
            for start, end in itertools.pairwise(edges):
                if start >= end_of_block:
                    break
                await self._until(begun, start / rate)
                for track, data in zip(tracks, block, strict=True):
                    if not session.push(data[(start - offset) * size : (end - offset) * size], track):
                        await session.ready()
            await self._until(begun, end_of_block / rate)  # a call lasts as long as its audio

    async def _until(self, begun: float, time: float) -> None:
        if self.speed != "max":
            await anyio.sleep_until(begun + time / self.speed)

    @property
    def _is_raw(self) -> bool:
        return self.encoding is not None or Path(self.path).suffix.lower() in _RAW

    @property
    def _raw_format(self) -> AudioFormat:
        format = _RAW.get(Path(self.path).suffix.lower(), AudioFormat("s16le", 0))
        if self.encoding is not None and self.encoding != format.encoding:
            format = AudioFormat(self.encoding, 0)
        return AudioFormat(format.encoding, self.sample_rate or format.sample_rate, self.channels or 1)

    def _open(self) -> _Reader:
        path = Path(self.path)
        try:
            with open(path, "rb") as file:
                magic = file.read(4)
        except OSError as error:
            raise SourceError(f"{self.path}: {error.strerror}") from None
        if self._is_raw:
            return _RawReader(path, self._raw_format)
        reader: _Reader = WavReader(path) if magic in _WAV_MAGIC else _SoundReader(path)
        channels = reader.format.channels
        if channels > len(_TRACKS):
            reader.close()
            raise SourceError(
                f"{self.path} has {channels} channels, expected 1 or 2; "
                "take two of them with `sox in.wav out.wav remix 1 2`"
            )
        return reader


class _Reader(Protocol):
    format: AudioFormat

    def read(self, samples: int) -> bytes:
        """Return up to ``samples`` samples, fewer only at the end; raise SourceError."""

    def close(self) -> None: ...


def _of_a_track(format: AudioFormat) -> AudioFormat:
    return msgspec.structs.replace(format, channels=1)


def _read(reader: _Reader, samples: int) -> list[bytes]:
    """Read a block and take its channels apart."""
    data = reader.read(samples)
    if reader.format.channels == 1:
        return [data]
    if reader.format.encoding == "s16le":
        return dsp.deinterleave(data, 2)
    return [data[0::2], data[1::2]]


class _RawReader:
    """Reads samples that have no header."""

    def __init__(self, path: Path, format: AudioFormat) -> None:
        self.format = format
        self._path = path
        self._file = open(path, "rb")  # noqa: SIM115 - open as long as the reader

    def read(self, samples: int) -> bytes:
        try:
            data = self._file.read(samples * self.format.sample_bytes)
        except OSError as error:
            raise SourceError(f"{self._path}: {error.strerror}") from None
        rest = len(data) % self.format.sample_bytes
        if rest and len(data) == rest:
            raise SourceError(f"{self._path}: {rest} bytes at the end are no whole sample of {self.format}")
        if rest:
            self._file.seek(-rest, os.SEEK_CUR)
        return data[: len(data) - rest]

    def close(self) -> None:
        self._file.close()


class _SoundReader:
    """Reads what libsndfile knows, without asking how long it is: a writer that died has left 2⁶³-1 frames there."""

    def __init__(self, path: Path) -> None:
        try:
            import soundfile  # here, because it is optional and loads numpy
        except (ImportError, OSError) as error:  # OSError: the package without its library
            raise SourceError(
                f"{path}: only WAV can be read without soundfile: pip install mediaflow[files]"
            ) from error
        self._path = path
        self._error: type[Exception] = soundfile.LibsndfileError
        try:
            self._file: Any = soundfile.SoundFile(path)
        except self._error as error:
            raise SourceError(f"{error}") from None
        self.format = AudioFormat("s16le", self._file.samplerate, self._file.channels)
        # libsndfile converts everything to 16 bits by itself but floats, which it does not scale.
        self._is_float = self._file.subtype in ("FLOAT", "DOUBLE")

    def read(self, samples: int) -> bytes:
        block = bytearray(samples * self.format.channels * (4 if self._is_float else 2))
        try:
            count = self._file.buffer_read_into(block, "float32" if self._is_float else "int16")
        except self._error as error:
            raise SourceError(f"{self._path}: {error}") from None
        data = bytes(block[: count * len(block) // samples])
        return float_to_pcm(data) if self._is_float else data

    def close(self) -> None:
        self._file.close()


@hookimpl
def register_components(register: Register) -> None:
    register("file", File)
