"""Frames of a carrier that does not keep their order, put back in it.

Telnyx says that media messages may overtake each other and that ``chunk`` tells where they belong.  A frame that comes
too early is held until those before it have come, or until more than ``window`` of its track wait: then the missing
ones are taken for lost, and what waits goes on.  In order nothing is delayed; a loss delays by ``window`` frames, once.

    arrives   1  3  2  4  6  7  8  9  10  11        (5 is lost, window 5)
    goes on   1  ·  2 3  4  ·  ·  ·  ·  ·  6 … 11

A carrier that numbered the frames of both tracks together would merely be carried ``window`` frames later.
"""

from __future__ import annotations

from itertools import chain
from typing import Generic, TypeVar

T = TypeVar("T")


class _Track(Generic[T]):
    def __init__(self) -> None:
        self.last = 0  # carriers count from 1
        self.early: dict[int, list[T]] = {}  # two under one number are a repeat, which the timeline books


class Reorder(Generic[T]):
    """Sorts the frames of every track by their number."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._tracks: dict[str, _Track[T]] = {}

    def take(self, track: str, chunk: int | None, frame: T) -> list[T]:
        """Return what can go on now that ``frame`` is here; one without a number goes on at once."""
        if chunk is None:
            return [frame]
        state = self._tracks.setdefault(track, _Track())
        if chunk <= state.last + 1:  # one from further back is for the timeline to judge
            state.last = max(state.last, chunk)
            return [frame, *self._following(state)]
        state.early.setdefault(chunk, []).append(frame)
        if len(state.early) <= self._window:
            return []
        state.last = min(state.early) - 1
        return self._following(state)

    def restart(self) -> list[T]:
        """Return everything that is held, and begin to count anew."""
        held = [frames for state in self._tracks.values() for _, frames in sorted(state.early.items())]
        self._tracks.clear()
        return list(chain.from_iterable(held))

    def _following(self, state: _Track[T]) -> list[T]:
        frames: list[T] = []
        while state.last + 1 in state.early:
            state.last += 1
            frames += state.early.pop(state.last)
        return frames
