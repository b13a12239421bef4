"""Take one side of a call and leave the other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from msgspec import Meta

from mediaflow import AudioFormat, AudioFrame, Event, FormatError, Item, Joiner, Processor, Register, hookimpl


class Select(Joiner, frozen=True, kw_only=True):
    """Carry one track only; a call without that track is refused."""

    track: Annotated[str, Meta(description="the track to carry: inbound or outbound")]

    @property
    def output_track(self) -> str:
        return self.track

    def applies(self, tracks: tuple[str, ...]) -> bool:
        return tracks != (self.track,)

    def keeps(self, tracks: tuple[str, ...]) -> tuple[str, ...]:
        return (self.track,)

    def open(self, format: AudioFormat, tracks: tuple[str, ...]) -> Processor:
        if self.track not in tracks:
            raise FormatError(f"the call has no track {self.track!r}, only {', '.join(tracks)}")
        return _Selector(self.track)


class _Selector(Processor):
    def __init__(self, track: str) -> None:
        self._track = track

    def process(self, frame: AudioFrame) -> Iterable[Item]:
        return (frame,) if frame.track == self._track else ()

    def event(self, event: Event) -> Iterable[Item]:
        return (event,) if event.track == self._track else ()


@hookimpl
def register_components(register: Register) -> None:
    register("select", Select)
