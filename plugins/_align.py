"""Bring tracks that arrive one after the other, or not at all, to the same place in time.

A carrier interleaves the two sides of a call, one may begin later, and one may stop sending for a while.  The aligner
holds each track's samples until every track has reached the same position, or until one lags ``wait`` samples behind
the leader: it is then taken to be silent.  What arrives after its place is gone is reported as lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from msgspec import Meta

from mediaflow import AudioFormat, AudioFrame, Event, Item, Lost, Processor

WaitMs = Annotated[int, Meta(ge=0, le=60_000, description="how long one track waits for another, in ms of audio")]


class Aligner(Processor):
    """Gives aligned blocks of all tracks to ``join`` and passes events on once the audio has reached them."""

    def __init__(
        self, format: AudioFormat, output: AudioFormat, track: str, tracks: Sequence[str], wait_ms: int
    ) -> None:
        self._format, self._output, self._track = format, output, track
        self._wait = wait_ms * format.sample_rate // 1000
        self.latency = 0.0
        self._size = format.sample_bytes
        self._held = {name: bytearray() for name in tracks}
        self._ends: dict[str, int] = {}
        self._next: int | None = None
        self._events: list[Event] = []

    def join(self, blocks: list[bytes]) -> bytes:
        """Make one block of one block per track, all of the same length."""
        raise NotImplementedError

    def process(self, frame: AudioFrame) -> Iterator[Item]:
        yield from self._take(frame)
        lead = max(self._ends.values())
        slowest = min(self._ends.values()) if len(self._ends) == len(self._held) else lead - self._wait
        yield from self._emit(max(slowest, lead - self._wait))

    def event(self, event: Event) -> Iterator[Item]:
        self._events.append(event)
        yield from self._passed()

    def flush(self) -> Iterator[Item]:
        if self._ends:
            yield from self._emit(max(self._ends.values()))
        yield from self._events
        self._events.clear()

    def _take(self, frame: AudioFrame) -> Iterator[Lost]:
        held, data, start = self._held[frame.track], frame.data, frame.position
        if self._next is not None and start < self._next:
            late = min(self._next - start, frame.sample_count)
            data, start = data[late * self._size :], start + late
            if late:
                yield Lost(frame.track, frame.time, late / self._format.sample_rate, "late")
        end = self._ends.get(frame.track, start)
        held += self._format.silence(max(0, start - end))
        held += data
        self._ends[frame.track] = max(end, start) + len(data) // self._size

    def _start(self) -> int:
        """Return the first position that is not given out yet."""
        if self._next is None:
            self._next = min(end - len(self._held[name]) // self._size for name, end in self._ends.items())
            for name, end in self._ends.items():
                missing = end - len(self._held[name]) // self._size - self._next
                self._held[name][:0] = self._format.silence(missing)
        return self._next

    def _emit(self, end: int) -> Iterator[Item]:
        if self._next is None and end <= min(
            last - len(self._held[name]) // self._size for name, last in self._ends.items()
        ):
            return
        start = self._start()
        if end <= start:
            return
        wanted = (end - start) * self._size
        blocks = []
        for name, held in self._held.items():
            block = bytes(held[:wanted])
            del held[:wanted]
            blocks.append(block + self._format.silence((wanted - len(block)) // self._size))
            self._ends[name] = max(self._ends.get(name, end), end)
        self._next = end
        yield AudioFrame(self.join(blocks), self._output, self._track, start)
        yield from self._passed()

    def _passed(self) -> Iterator[Event]:
        """Give the events out that lie before the audio still held."""
        reached = 0.0 if self._next is None else self._next / self._format.sample_rate
        passed = [event for event in self._events if event.time <= reached]
        self._events = [event for event in self._events if event.time > reached]
        yield from passed
