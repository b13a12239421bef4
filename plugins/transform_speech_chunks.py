"""Cut a stream into chunks of 10 to 25 seconds, in the pauses.

Recognisers work on pieces of audio, and a word that is cut in two is lost in both.  The EkaScribe service cuts where
its detector hears a pause once a chunk has 10 seconds, and at 25 seconds wherever it is; so does this.  A cut is an
event between two frames: the disk sink begins its next file there.

That speech has begun is known a little after it has (the detector wants to be sure), so the audio is held back for
``_HOLD_MS``: what is then still silent was silent.  The cut is the first silent sample after the shortest length.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta

from mediaflow import (
    AudioFormat,
    AudioFrame,
    Cut,
    Event,
    Item,
    Processor,
    Register,
    SpeechEnded,
    SpeechStarted,
    Transform,
    hookimpl,
)

_HOLD_MS = 100
"""More than the 60 ms that energy_vad takes to be sure that speech has started."""


class SpeechChunks(Transform, frozen=True):
    """Cut the stream in pauses, into chunks between two lengths.  Needs speech events: put energy_vad before it."""

    min_s: Annotated[float, Meta(ge=1, le=600, description="shortest chunk, in seconds")] = 10.0
    max_s: Annotated[float, Meta(ge=1, le=600, description="longest chunk: it is then cut wherever it is")] = 25.0

    needs = (SpeechStarted, SpeechEnded)
    emits = (Cut,)

    def check(self) -> None:
        if self.max_s < self.min_s:
            raise ValueError(f"max_s ({self.max_s:g}) must not be below min_s ({self.min_s:g})")

    def open(self, format: AudioFormat) -> Processor:
        return _Chunker(self, format)


class _Chunker(Processor):
    def __init__(self, config: SpeechChunks, format: AudioFormat) -> None:
        self._rate = format.sample_rate
        self._shortest, self._longest = round(config.min_s * self._rate), round(config.max_s * self._rate)
        self._hold = _HOLD_MS * self._rate // 1000
        self.latency = _HOLD_MS / 1000
        self._held: deque[Item] = deque()
        self._chunk_start: int | None = None
        self._released = 0
        self._silent_from: int | None = None
        """Where the present silence begins; None while somebody speaks."""
        self._speech_from: int | None = None
        """Where speech that ends it begins, once that is known."""

    def process(self, frame: AudioFrame) -> Iterator[Item]:
        if self._chunk_start is None:
            self._chunk_start = self._released = self._silent_from = frame.position
        self._held.append(frame)
        yield from self._release(frame.end - self._hold, frame.track)

    def event(self, event: Event) -> Iterator[Item]:
        if isinstance(event, SpeechStarted):
            self._speech_from = round(event.time * self._rate)
        elif isinstance(event, SpeechEnded):
            self._silent_from, self._speech_from = round(event.time * self._rate), None
        self._held.append(event)
        return iter(())

    def flush(self) -> Iterator[Item]:
        yield from self._held
        self._held.clear()

    def _release(self, until: int, track: str) -> Iterator[Item]:
        while (cut := self._next_cut()) <= until:
            yield from self._give(cut)
            yield Cut(track, cut / self._rate)
            self._chunk_start = cut
        yield from self._give(until)

    def _next_cut(self) -> int:
        """Return the first place at or after what is released where this chunk may end."""
        assert self._chunk_start is not None
        latest = self._chunk_start + self._longest
        if self._silent_from is None:
            return latest
        cut = max(self._chunk_start + self._shortest, self._released, self._silent_from)
        if self._speech_from is not None and cut > self._speech_from:
            return latest
        return min(cut, latest)

    def _give(self, until: int) -> Iterator[Item]:
        """Release what is held up to the position ``until``, splitting the frame that reaches over it."""
        while self._held:
            item = self._held[0]
            if isinstance(item, AudioFrame):
                if item.position >= until:
                    break
                if item.end > until:
                    split = (until - item.position) * item.format.sample_bytes
                    self._held[0] = item.replace(item.data[split:], position=until)
                    item = item.replace(item.data[:split])
                else:
                    self._held.popleft()
                self._released = item.end
            else:
                self._held.popleft()
            yield item


@hookimpl
def register_components(register: Register) -> None:
    register("speech_chunks", SpeechChunks)
