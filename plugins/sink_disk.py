"""Write calls to files that survive a crash.

Frames are gathered in memory; every ``sync_ms`` of audio a worker thread appends them to the files, brings the
headers up to date and has the disk confirm.  Only then do they count as delivered.  So a kill costs at most ``sync_ms``
of audio, and the event loop never waits for a disk.

FLAC and Opus cannot be kept valid while they grow (a killed FLAC has no length, a killed Opus lacks its last pages), so
a recording is always a WAV file first and is encoded when it is complete::

    call.flac.part.wav   while the call runs; stays, and plays, if the process dies or the encoding fails
    call.flac.part       while it is encoded
    call.flac            when everything is in it

Encoding takes a thread 0.6 s for an hour of 16 kHz FLAC, and 45 s for an hour of Opus: cut long calls into chunks.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import anyio
from anyio import from_thread, to_thread
from msgspec import Meta

from mediaflow import (
    AudioFormat,
    AudioFrame,
    Cut,
    Finding,
    FormatError,
    Item,
    PathTemplate,
    Register,
    Sink,
    SinkError,
    Stream,
    Writer,
    hookimpl,
)
from mediaflow.wav import WavReader, WavWriter

LITTLE_ROOM_H = 24
"""Hours of one call's audio; less is worth a note."""

logger = logging.getLogger(__name__)

# How libsndfile calls what the suffixes stand for.
_ENCODED = {".flac": ("FLAC", "PCM_16"), ".opus": ("OGG", "OPUS"), ".ogg": ("OGG", "OPUS")}
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
_CODES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "disk-full"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "disk-refused"),
}


class Disk(Sink, frozen=True):
    """Write each call to a file: WAV, or by the suffix of ``path`` FLAC or Opus (``pip install mediaflow[files]``).

    ``path`` may hold ``{call_id}``, ``{track}``, ``{chunk}``, ``{date}`` and ``{time}`` (of the call's beginning, UTC),
    and whatever else the source tells of a call, such as ``{stream_id}``; telephone numbers get into a file name only
    if they are named here.  With ``{track}`` every side of the call has a file of its own, which begins with the first
    sample of that side.  With ``{chunk}`` (0001, 0002, …) a new file begins wherever a step before says that it is a
    good place to cut; without it the cuts are ignored.  A file that exists is never touched: the new one gets ``-2``.
    Files can be read by their owner only.
    """

    path: Annotated[PathTemplate, Meta(description="where to; .wav, .flac, .opus or .ogg")] = PathTemplate(
        "mediaflow-data/recordings/{call_id}.wav"
    )
    sync_ms: Annotated[int, Meta(ge=20, le=60_000, description="audio that a crash may cost, in ms")] = 1000

    @property
    def _suffix(self) -> str:
        return Path(self.path.text).suffix.lower()

    def check(self) -> None:
        if self._suffix not in (".wav", *_ENCODED):
            raise ValueError(f"path {self.path} must end in .wav, .flac, .opus or .ogg")
        if self._suffix in _ENCODED and find_spec("soundfile") is None:
            raise ValueError(f"{self._suffix} files need soundfile: pip install mediaflow[files]")

    async def diagnose(self) -> AsyncIterator[Finding]:
        """Say whether the folder can be written to, and for how long."""
        folder = Path(self.path.text.partition("{")[0] + "_").parent
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir():
            yield Finding(False, f"{folder} is no folder", "remove it, or change path")
            return
        if not os.access(folder, os.W_OK | os.X_OK):
            yield Finding(False, f"{folder} cannot be written to", "let this user write there, or change path")
            return
        free = await to_thread.run_sync(shutil.disk_usage, folder)
        hours = free.free / (3600 * 32_000)
        ok = None if hours < LITTLE_ROOM_H else True
        yield Finding(ok, f"{folder} has room for {hours:,.0f} hours of 16 kHz audio", "make room")

    def check_format(self, format: AudioFormat, tracks: tuple[str, ...]) -> None:
        if len(tracks) > 1 and "track" not in self.path.names:
            raise FormatError(
                f"{len(tracks)} tracks ({', '.join(tracks)}) do not fit in one file",
                "add `- use: stereo` or `- use: mix` before it, or put {track} into path",
            )
        if self._suffix in _ENCODED and format.encoding != "s16le":
            raise FormatError(
                f"{self._suffix} files take s16le, not {format.encoding}", f"add `- use: {format.encoding}_decode`"
            )
        if self._suffix in (".opus", ".ogg") and format.sample_rate not in _OPUS_RATES:
            raise FormatError(
                f"Opus takes {', '.join(map(str, _OPUS_RATES))} Hz, not {format.sample_rate}",
                "add `- use: resample` with `rate: 16000`",
            )

    @asynccontextmanager
    async def open(self, stream: Stream, format: AudioFormat, tracks: tuple[str, ...]) -> AsyncIterator[Writer]:
        writer = _Writer(self, stream, format, tracks)
        try:
            yield writer
            await writer.finish()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(writer.keep)
            raise


class _Writer(Writer):
    """Gathers frames on the event loop; everything that touches the disk runs in a thread, one call at a time."""

    def __init__(self, sink: Disk, stream: Stream, format: AudioFormat, tracks: tuple[str, ...]) -> None:
        self._template, self._format = sink.path, format
        now = datetime.now(UTC)
        self._values = {
            **stream.metadata,
            "call_id": stream.id,
            "date": f"{now:%Y-%m-%d}",
            "time": f"{now:%H%M%S}",
        }
        self._chunks = dict.fromkeys(tracks, 0)
        self._running: dict[str, _Recording] = {}
        self._complete: list[_Recording] = []
        self._limit = sink.sync_ms * format.sample_rate * len(tracks) // 1000
        self._taken = self._stored = 0
        self._failed = False
        self._files: list[dict[str, Any]] = []
        self.outcome = {"files": self._files}

    @property
    def delivered(self) -> int:
        return self._stored

    def write_nowait(self, item: Item) -> bool:
        if self._taken - self._stored >= self._limit and isinstance(item, AudioFrame):
            return False
        self._take(item)
        return True

    async def write(self, item: Item) -> None:
        self._take(item)
        if self._taken - self._stored >= self._limit:
            await self._sync()

    async def finish(self) -> None:
        """Store what is left and complete every file."""
        self._cut(list(self._running))
        await self._sync()

    def keep(self) -> None:
        """Save what was taken, quickly; called in a thread when there is no time or a failure came before."""
        self._cut(list(self._running))
        taken = self._taken
        try:
            if not self._failed:
                self._store([(each, each.take()) for each in self._complete], durable=False)
                self._stored = taken
        except OSError as error:
            logger.error("call %s: audio could not be kept: %s", self._values["call_id"], error.strerror)
        finally:
            for recording in self._complete:
                recording.close()
                self._report(recording)

    def _take(self, item: Item) -> None:
        if isinstance(item, AudioFrame):
            if item.data:
                self._recording(item).pending += item.data
                self._taken += item.sample_count
        elif isinstance(item, Cut) and "chunk" in self._template.names:
            # A cut found before the tracks were joined names a track that is no more.
            self._cut([item.track] if item.track in self._chunks else list(self._running))

    def _recording(self, frame: AudioFrame) -> _Recording:
        recording = self._running.get(frame.track)
        if recording is None:
            self._chunks[frame.track] += 1
            values = {**self._values, "track": frame.track, "chunk": f"{self._chunks[frame.track]:04}"}
            recording = _Recording(self._template.fill(values), self._format, frame.time)
            self._running[frame.track] = recording
        return recording

    def _cut(self, tracks: list[str]) -> None:
        self._complete += [self._running.pop(track) for track in tracks if track in self._running]

    async def _sync(self) -> None:
        taken = self._taken
        work = [(each, each.take()) for each in (*self._complete, *self._running.values())]
        with anyio.CancelScope(shield=True):  # a few ms; cut short, the audio in ``work`` would be nowhere
            await self._in_thread(lambda: self._store(work, durable=True))
        self._stored = taken
        while self._complete:
            recording = self._complete[0]
            await self._in_thread(recording.complete)
            self._complete.remove(recording)
            self._report(recording)

    @staticmethod
    def _store(work: list[tuple[_Recording, bytearray]], durable: bool) -> None:
        for recording, data in work:
            if data:
                recording.store(data, durable)

    async def _in_thread(self, function: Callable[[], None]) -> None:
        try:
            await to_thread.run_sync(function)
        except OSError as error:
            self._failed = True
            code = _CODES.get(error.errno or 0, "disk-error")
            # The template, not the path: a file name may tell who called.
            raise SinkError(code, f"cannot write {self._template}: {error.strerror or error}") from None

    def _report(self, recording: _Recording) -> None:
        if recording.samples:
            seconds = round(recording.samples / self._format.sample_rate, 3)
            file = {"path": str(recording.path), "samples": recording.samples, "seconds": seconds}
            self._files.append({**file, "start": round(recording.start, 3)})


class _Recording:
    """One file.  ``pending`` belongs to the event loop, the rest to the thread that stores."""

    def __init__(self, path: Path, format: AudioFormat, start: float) -> None:
        self.path = path
        """Where the audio is: the wanted path until the file is made, then the real one."""
        self.start = start
        """Seconds from the beginning of the stream to the first sample."""
        self.pending = bytearray()
        self.samples = 0
        self._format = format
        self._final = path
        self._wav: WavWriter | None = None

    def take(self) -> bytearray:
        """Return what is pending and begin anew."""
        data, self.pending = self.pending, bytearray()
        return data

    def store(self, data: bytearray, durable: bool) -> None:
        """Append ``data`` and make the file valid."""
        if self._wav is None:
            self._wav = self._create()
        try:
            self._wav.write(data)
            self._wav.sync(durable)
        except OSError:
            with suppress(OSError):
                self._wav.rollback()
            raise
        self.samples = self._wav.samples

    def complete(self) -> None:
        """Close the file, and encode it where that is wanted."""
        self.close()
        if self.samples and self.path != self._final:
            part = Path(f"{self._final}.part")
            try:
                _encode(self.path, part, *_ENCODED[self._final.suffix.lower()])
                os.replace(part, self._final)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
            self.path.unlink()
            self.path = self._final

    def close(self) -> None:
        """Close the file as it is."""
        if self._wav is not None:
            self._wav.close()
            self._wav = None
            if not self.samples:  # the disk took the name and then no audio
                self.path.unlink(missing_ok=True)

    def _create(self) -> WavWriter:
        wanted = self._final
        encoded = wanted.suffix.lower() in _ENCODED
        wanted.parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(2):
            self.path = Path(f"{self._final}.part.wav") if encoded else self._final
            with suppress(FileExistsError):
                wav = WavWriter(self.path, self._format)
                # Looked for after the name is ours: whoever completes the same file has it in place by then.
                if not encoded or not self._final.exists():
                    return wav
                wav.close()
                self.path.unlink()
            self._final = wanted.with_stem(f"{wanted.stem}-{number}")
        raise AssertionError("unreachable")


def _encode(source: Path, target: Path, container: str, subtype: str) -> None:
    """Encode a WAV file; raises OSError where the library does not take all of it, and stops when cancelled."""
    import soundfile  # here, because it is optional and loads numpy

    fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with WavReader(source) as wav:
            format = wav.format
            try:
                with soundfile.SoundFile(
                    fd, "w", format.sample_rate, format.channels, subtype, None, container, closefd=False
                ) as encoder:
                    while data := wav.read(format.sample_rate):
                        from_thread.check_cancelled()
                        encoder.buffer_write(data, "int16")
            except soundfile.LibsndfileError as error:
                raise OSError(0, f"encoding {container} failed: {error}; the audio stays in a .part.wav file") from None
        os.fsync(fd)
    finally:
        os.close(fd)


@hookimpl
def register_components(register: Register) -> None:
    register("disk", Disk)
