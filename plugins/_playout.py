"""What a carrier does with the audio that an app sends into a call: played piece after piece, at the pace of speech.

::

    playAudio ──▶ ┌───────────────────────────────┐ 20 ms at a time
    checkpoint ─▶ │ piece piece ⚑ piece piece ⚑ … │ ──────────────▶ the caller's ear (and a WAV file)
                  └───────────────────────────────┘
    clearAudio ─▶ empties it: what has not been played is gone, its checkpoints too      ⚑ reached: playedStream

A checkpoint is told once everything before it is *played*, not when it arrives; one whose audio was cleared is never
told.  So an app that waits for ``playedStream`` without a limit waits for ever: that is what there is to be rehearsed.

The file holds what was played and nothing else: of the silence between, and of what was cleared, there is none in it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal, TypeVar, TypeVarTuple, Unpack

import anyio
from anyio import current_time as clock, sleep_until, to_thread

from mediaflow import AudioFormat, SinkError
from mediaflow.envelope import Checkpoint, ClearAudio, PlayAudio
from mediaflow.wav import WavWriter

PIECE_MS = 20
"""What is played between two looks at the queue: so fast clearAudio takes effect."""

LONGEST_S = 600.0
"""Audio that may wait; the bound is ours, no carrier documents one."""

LONGEST_NAME = 200
"""Letters of a checkpoint's name that go on record."""

_WRITE_MS = 1000

R = TypeVar("R")
T = TypeVarTuple("T")


class PlayOut:
    """The queue of one stream; ``run`` plays it, ``played`` is told of each checkpoint that is reached."""

    def __init__(
        self, speed: float | Literal["max"], file: Path | None, played: Callable[[str], Awaitable[None]]
    ) -> None:
        self.played_s = 0.0
        """Seconds that were played."""
        self._speed, self._played = speed, played
        self._recording = _Recording(file) if file is not None else None
        self.waiting_s = 0.0
        """Seconds that are still to be played."""
        self._queue: deque[tuple[bytes, AudioFormat] | str] = deque()
        self._work = anyio.Event()

    @property
    def files(self) -> list[str]:
        """The files that hold what was played."""
        return self._recording.files if self._recording is not None else []

    def play(self, data: bytes, format: AudioFormat) -> bool:
        """Queue whole samples; False where too much waits already, and they are thrown away."""
        seconds = format.sample_count(data) / format.sample_rate
        if self.waiting_s + seconds > LONGEST_S:
            return False
        step = format.sample_rate * PIECE_MS // 1000 * format.sample_bytes
        self._queue.extend((data[at : at + step], format) for at in range(0, len(data), step))
        self.waiting_s += seconds
        self._work.set()
        return True

    def mark(self, name: str) -> None:
        """Queue a checkpoint."""
        self._queue.append(name)
        self._work.set()

    def clear(self) -> None:
        """Throw away what was not played."""
        self._queue.clear()
        self.waiting_s = 0.0

    async def run(self) -> None:
        """Play until cancelled; what was played by then is in the file."""
        try:
            free_at = 0.0
            while True:
                while not self._queue:
                    self._work = anyio.Event()
                    await self._work.wait()
                item = self._queue.popleft()
                if isinstance(item, str):
                    await self._played(item)
                    continue
                seconds = item[1].sample_count(item[0]) / item[1].sample_rate
                self.waiting_s -= seconds
                if self._recording is not None:
                    await self._recording.write(*item)
                if self._speed == "max":
                    await anyio.lowlevel.checkpoint()
                else:
                    free_at = max(free_at, clock()) + seconds / self._speed
                    await sleep_until(free_at)
                self.played_s += seconds
        finally:
            if self._recording is not None:
                with anyio.CancelScope(shield=True):
                    await self._recording.close()


class TalkBack:
    """Takes what the app says: plays it, answers by ``send``, and notes what a carrier's callback would tell."""

    def __init__(
        self,
        stream_id: str,
        bidirectional: bool,
        speed: float | Literal["max"],
        file: Path | None,
        send: Callable[[str], Awaitable[None]],
        note: Callable[..., None],
        played: Callable[[str], str],
        cleared: str,
    ) -> None:
        self._stream_id, self._bidirectional, self._send, self._note = stream_id, bidirectional, send, note
        self._build_played, self._cleared = played, cleared  # how a carrier answers; nothing if it does not
        self._playout = PlayOut(speed, file, self._tell_played)
        self._counts: Counter[str] = Counter()

    @property
    def outcome(self) -> dict[str, Any]:
        """What was said, and what became of it."""
        played: dict[str, Any] = {}
        if self._playout.played_s:
            played["played_s"] = round(self._playout.played_s, 3)
        if self._playout.files:
            played["played"] = self._playout.files
        if unplayed := round(self._playout.waiting_s, 3):
            played["unplayed_s"] = unplayed
        return {**self._counts, **played}

    async def run(self) -> None:
        """Play until cancelled."""
        await self._playout.run()

    async def take(self, message: PlayAudio | Checkpoint | ClearAudio) -> None:
        """Do what a message says."""
        if not self._bidirectional:
            self._counts["one_way"] += 1
        elif isinstance(message, PlayAudio):
            self._play(message)
        elif isinstance(message, Checkpoint):
            self._counts["checkpoint"] += 1
            self._playout.mark(message.name)
        else:
            self._counts["clear_audio"] += 1
            self._playout.clear()
            self._note("ClearedAudio", stream_id=self._stream_id)
            if self._cleared:
                await self._send(self._cleared)

    def _play(self, message: PlayAudio) -> None:
        if message.stream_id != self._stream_id:
            self._counts["play_audio_elsewhere"] += 1
            return
        size = message.format.sample_bytes
        whole = len(message.payload) // size * size
        self._counts["play_audio"] += 1
        self._counts["play_audio_bytes"] += len(message.payload)
        if whole < len(message.payload):
            self._counts["play_audio_odd"] += 1
        if not self._playout.play(message.payload[:whole], message.format):
            self._counts["play_audio_full"] += 1

    async def _tell_played(self, name: str) -> None:
        self._note("PlayedStream", stream_id=self._stream_id, name=name[:LONGEST_NAME])
        await self._send(self._build_played(name))


class _Recording:
    """The WAV file of what was played; where the app changes its format, or the file is there, the next one.

    Raises ``SinkError`` (``unwritten``) where the disk does not take it.
    """

    def __init__(self, file: Path) -> None:
        self.files: list[str] = []
        self._file = file
        self._writer: WavWriter | None = None
        self._format: AudioFormat | None = None
        self._data = bytearray()

    async def write(self, data: bytes, format: AudioFormat) -> None:
        if format != self._format:
            await self.close()
            self._writer = await _on_disk(self._open, format)
            self._format = format
        self._data += data
        if len(self._data) // format.sample_bytes >= format.sample_rate * _WRITE_MS // 1000:
            await self._flush()

    async def close(self) -> None:
        if self._writer is not None:
            await self._flush()
            await _on_disk(self._writer.close)
            self._writer = None

    async def _flush(self) -> None:
        data, self._data = bytes(self._data), bytearray()
        if self._writer is not None:
            await _on_disk(_put, self._writer, data)

    def _open(self, format: AudioFormat) -> WavWriter:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            path = self._file if number == 1 else self._file.with_stem(f"{self._file.stem}-{number}")
            try:
                writer = WavWriter(path, format)
            except FileExistsError:
                number += 1
            else:
                self.files.append(str(path))
                return writer


async def _on_disk(do: Callable[[Unpack[T]], R], *given: *T) -> R:
    try:
        return await to_thread.run_sync(do, *given)
    except OSError as error:
        raise SinkError("unwritten", f"what was played cannot be written: {error.strerror or error}") from None


def _put(writer: WavWriter, data: bytes) -> None:
    writer.write(data)
    writer.sync(durable=False)
