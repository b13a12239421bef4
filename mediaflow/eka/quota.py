"""Audio given on up to a limit: what a session of EkaScribe takes of a call, counted where every frame goes through.

This module is compiled as it stands (``quota.pxd`` has its types).
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from ..frame import AudioFrame, Item


class Quota:
    """The part of a writer that gives frames on to ``put``, as long as all together stay within ``limit`` bytes."""

    put: Callable[[bytes], bool]
    """Takes the audio of a frame without waiting; returns False, and has taken nothing, if that cannot be."""

    def __init__(self) -> None:
        self.limit = inf
        self.given = 0
        """Bytes that ``put`` has taken, and what was added by hand."""
        self.put = _nothing

    def write_nowait(self, item: Item) -> bool:
        """Take ``item`` if that needs no waiting and there is room for it."""
        if not isinstance(item, AudioFrame):
            return self.pass_nowait(item)
        pcm = item.data
        given = self.given + len(pcm)
        if given > self.limit and not self.extend(given):
            return False
        if not self.put(pcm):
            return False
        self.given = given
        return True

    def extend(self, given: int) -> bool:
        """Raise ``limit`` to ``given`` or more if that needs no waiting; return whether that was done."""
        return False

    def pass_nowait(self, event: Item) -> bool:
        """Take an event if that needs no waiting."""
        raise NotImplementedError


def _nothing(pcm: bytes) -> bool:
    return False
