"""The kit for those who write components: drive one by itself and look at what it did.

``feed`` runs audio through a transform or joiner in any slices, ``RecordingEngine`` stands where the engine would and
keeps what a source brings, ``write_all`` gives frames to a sink.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import anyio

from ..component import Joiner, Sink, Transform, Writer
from ..frame import AudioFormat, AudioFrame, Event, Item, Stream

__all__ = ["RecordedSession", "RecordingEngine", "feed", "frames", "write_all"]


def frames(data: bytes, format: AudioFormat, cuts: Sequence[int] = (), track: str = "inbound") -> list[AudioFrame]:
    """Slice ``data`` at the sample positions ``cuts`` into frames that follow one another."""
    edges = [0, *sorted(cuts), format.sample_count(data)]
    size = format.sample_bytes
    return [AudioFrame(data[start * size : end * size], format, track, start) for start, end in pairwise(edges)]


def feed(transform: Transform | Joiner, items: Iterable[Item], tracks: tuple[str, ...] = ("inbound",)) -> list[Item]:
    """Run ``items`` through a new processor of ``transform`` and return everything that comes out, flush included."""
    pending = list(items)
    format = next(item.format for item in pending if isinstance(item, AudioFrame))
    processor = transform.open(format, tracks) if isinstance(transform, Joiner) else transform.open(format)
    out: list[Item] = []
    for item in pending:
        out += processor.process(item) if isinstance(item, AudioFrame) else processor.event(item)
    out += processor.flush()
    return out


class RecordedSession:
    """A session that keeps what its source does."""

    def __init__(self, stream: Stream, changed: Callable[[], None] = lambda: None) -> None:
        self.stream = stream
        self._changed = changed
        self.audio: dict[str, bytearray] = {}
        self.concealed: list[tuple[str, int, int, str]] = []
        """(track, position, samples, reason) of each concealed run; its silence is in ``audio`` too."""
        self.dropped: list[tuple[str, int, str]] = []
        """(track, samples, reason)"""
        self.events: list[Event] = []
        self.notes: list[tuple[str, dict[str, str | int | float]]] = []
        """(name, facts)"""
        self.starts: dict[str, int] = {}
        self.speakers: list[Sink | None] = []
        """What was offered to speak through."""
        self.ended = False

    def _samples(self, track: str) -> int:
        return len(self.audio.get(track, b"")) // self.stream.format.sample_bytes

    def push(self, data: bytes, track: str = "inbound") -> bool:
        if track not in self.stream.tracks:
            raise ValueError(f"the stream has no track {track!r}, only {', '.join(self.stream.tracks)}")
        self.stream.format.sample_count(data)
        self.audio.setdefault(track, bytearray()).extend(data)
        self._changed()
        return True

    async def ready(self) -> None:
        await anyio.lowlevel.checkpoint()

    async def send(self, data: bytes, track: str = "inbound") -> None:
        self.push(data, track)
        await self.ready()

    def begin(self, track: str, position: int) -> None:
        if self._samples(track):
            raise ValueError(f"track {track!r} has begun already")
        self.starts[track] = position

    def conceal(self, samples: int, reason: str, track: str = "inbound") -> bool:
        self.concealed.append((track, self.starts.get(track, 0) + self._samples(track), samples, reason))
        return self.push(self.stream.format.silence(samples), track)

    def drop(self, samples: int, reason: str, track: str = "inbound") -> None:
        self.dropped.append((track, samples, reason))
        self._changed()

    def emit(self, event: Event) -> None:
        self.events.append(event)
        self._changed()

    def offer(self, speaker: Sink | None) -> None:
        self.speakers.append(speaker)
        self._changed()

    def note(self, name: str, /, **facts: str | int | float) -> None:
        self.notes.append((name, facts))
        self._changed()

    def time(self, track: str = "inbound") -> float:
        return (self.starts.get(track, 0) + self._samples(track)) / self.stream.format.sample_rate


class RecordingEngine:
    """An engine that keeps every session; ``await engine.url()`` waits for the source to listen.

    With ``state`` a source finds there what it kept before.
    """

    def __init__(self, state: Path | None = None) -> None:
        self.state = state
        self.sessions: list[RecordedSession] = []
        self.replies = False
        """Set it to be taken for a pipeline with a reply."""
        self.counts: dict[str, int] = {}
        self._url = ""
        self._listening = anyio.Event()
        self._changed = anyio.Event()

    @asynccontextmanager
    async def open(self, stream: Stream) -> AsyncIterator[RecordedSession]:
        session = RecordedSession(stream, self._notify)
        self.sessions.append(session)
        self._notify()
        try:
            yield session
        finally:
            session.ended = True
            self._notify()

    def listening(self, url: str) -> None:
        self._url = url
        self._listening.set()

    def count(self, name: str, number: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + number
        self._notify()

    async def url(self) -> str:
        """Wait until the source listens and return where."""
        await self._listening.wait()
        return self._url

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition`` holds; it is looked at whenever the source has done something."""
        while not condition():
            await self._changed.wait()

    async def ended(self, number: int = 1) -> list[RecordedSession]:
        """Wait until ``number`` sessions are over and return them."""
        await self.until(lambda: sum(session.ended for session in self.sessions) >= number)
        return [session for session in self.sessions if session.ended]

    async def counted(self, name: str, number: int = 1) -> None:
        """Wait until ``name`` was counted ``number`` times."""
        await self.until(lambda: self.counts.get(name, 0) >= number)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


async def write_all(sink: Sink, stream: Stream, items: Sequence[Item]) -> Writer:
    """Open ``sink`` for ``stream``, write ``items``, finish, and return the writer with its outcome."""
    first = next(item for item in items if isinstance(item, AudioFrame))
    async with sink.open(stream, first.format, stream.tracks) as writer:
        for item in items:
            if not writer.write_nowait(item):
                await writer.write(item)
    return writer
