from collections.abc import Iterable
from typing import NamedTuple, final

class VadEvent(NamedTuple):
    started: bool
    position: int

@final
class VadResult:
    def __init__(self, speech: Iterable[bool], scores: Iterable[float], events: Iterable[VadEvent]) -> None: ...
    @property
    def speech(self) -> list[bool]: ...
    @property
    def scores(self) -> list[float]: ...
    @property
    def events(self) -> list[VadEvent]: ...
    def __eq__(self, other: object) -> bool: ...
