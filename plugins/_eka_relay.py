"""A call that is longer than a session of EkaScribe may be: one session hands over to the next.

A model takes sessions of a certain length, which the service tells (``lite`` 10 minutes, ``pro`` an hour).  Before a
session is full the next one is opened, and only when it can take audio the first is closed; that one then finishes,
ends and is asked for its note beside the call (``Writer.aside``), which goes on::

    session 1   ▄▄▄▄▄▄▄▄▄▄▄▄▄┊▄▄▄▄▄ stop → close → end → note
                             ┊soft ┊hard
    session 2                open ─┴▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄ …

It is done in a pause, so that no word is cut in two: from ``SOFT`` of the length on at the first ``SpeechEnded`` or
``Cut``, or at once if nobody speaks.  Where there is no pause, or nothing in the pipeline tells of pauses, it is done
at ``HARD``, wherever that is.  A sample is in one session or the other, never in both or none.

While the next session is opened the call's audio waits in front of the sink.  Where it cannot be had, or not within
``OPEN_S``, the call stays with the session it has, which may take it all the same.

``delivered`` goes up to the first sample that is in doubt: behind a session that has not confirmed all, what the next
one holds is not counted.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from math import inf
from types import MappingProxyType
from typing import Any, Protocol

import anyio

from mediaflow import AudioFormat, AudioFrame, Cut, Item, SinkError, SpeechEnded, SpeechStarted, Writer, eka

logger = logging.getLogger(__name__)

SOFT, HARD = 0.9, 0.99
"""Of the length of a session: where a pause is looked for, and where it is left at the latest.

The rest is for what the service may count and we do not: the time from its creation to the first sample."""

OPEN_S = 15.0
"""How long the next session may take to open: half of what waits in front of a sink before anything is dropped."""


_NO_FACTS: Mapping[str, Any] = MappingProxyType({})


class PartWriter(Writer):
    """Writes to one session."""

    __slots__ = ("put",)

    put: Callable[[bytes], bool]
    """Takes the audio of a frame without waiting; returns False, and has taken nothing, if that cannot be."""


class Part(ABC):
    """One session of a call; ``before`` is the id of the one before it.

    No task is kept while audio is written: ``open``, and ``finish`` or ``abort``, may run in different ones.
    """

    __slots__ = ("before", "facts", "given", "number", "session_id", "status", "writer")

    def __init__(self, number: int, before: str) -> None:
        self.number, self.before = number, before
        self.session_id = self.status = ""
        self.facts = _NO_FACTS
        """What else is known of its outcome."""
        self.given = 0
        """Samples that it was given, once it is closed."""
        self.writer: PartWriter
        """Takes the audio, once it is open."""

    @property
    def outcome(self) -> dict[str, Any]:
        """What has become of its audio."""
        return {"session_id": self.session_id, "status": self.status, **self.facts}

    @abstractmethod
    async def open(self) -> None:
        """Have the session and its writer.  Nothing is left behind by what raises."""

    @abstractmethod
    async def finish(self) -> None:
        """Nothing more will come: return when all is stored and the note is there."""

    @abstractmethod
    async def abort(self) -> None:
        """Give up quickly, whatever cancels."""


class Parts(Protocol):
    """The call that sessions are parts of."""

    def part(self, number: int, before: str) -> Part:
        """Return the session of that number, which goes on behind the one with the id ``before``."""


class Relay(eka.Quota, Writer):
    """Writes a call to one session after the other."""

    __slots__ = ("_call", "_format", "_longest_s", "_parts", "_writer", "aside", "note")

    def __init__(self, call: Parts, format: AudioFormat, longest_s: float | None) -> None:
        super().__init__()
        self.note, self.aside = Writer.note, Writer.aside
        self._call, self._format, self._longest_s = call, format, longest_s
        self.limit = self._hard
        self._writer: PartWriter
        self._parts: list[Part] = []

    # In bytes of the session that is written to, since that is what a frame knows without computing.

    @property
    def _soft(self) -> float:
        if self._longest_s is None:
            return inf
        return self._longest_s * self._format.sample_rate * SOFT * self._format.sample_bytes

    @property
    def _hard(self) -> float:
        if self._longest_s is None:
            return inf
        return max(self._longest_s * self._format.sample_rate * HARD // 1, 1) * self._format.sample_bytes

    @property
    def delivered(self) -> int:
        delivered = 0
        for part in self._parts:
            confirmed = part.writer.delivered  # once: who asks again at once has the question sent by itself
            delivered += confirmed
            if confirmed < part.given:
                break  # never the last one, whose figure is still open
        return delivered

    @property
    def outcome(self) -> Mapping[str, Any]:  # type: ignore[override]
        """That of the only session; of several, all of them, and how the worst one stands."""
        outcomes = [part.outcome for part in self._parts]
        if len(outcomes) == 1:
            return outcomes[0]
        states = [outcome["status"] for outcome in outcomes]
        return {"status": next((each for each in states if each != "completed"), "completed"), "sessions": outcomes}

    async def open(self) -> None:
        """Open the first session."""
        first = self._call.part(1, "")
        await first.open()
        self._go_on_with(first)

    async def leave(self, error: BaseException | None) -> None:
        """Finish the last session, or give it up where there is an error; those before it finish beside the call."""
        last = self._parts[-1]
        await (last.finish() if error is None else last.abort())

    def pass_nowait(self, event: Item) -> bool:
        self._listen(event)
        return self.given < self.limit and self._writer.write_nowait(event)

    async def write(self, item: Item) -> None:
        if isinstance(item, AudioFrame):
            if self.given >= self.limit:
                await self._hand_over()
            while self.given + len(item.data) > (hard := self._hard):
                head = int(hard) - self.given
                if head:
                    await self._write(item.replace(item.data[:head]))
                    item = item.replace(item.data[head:], position=item.position + head // self._format.sample_bytes)
                await self._hand_over()
            await self._write(item)
        else:
            self._listen(item)
            await self._writer.write(item)
            if self.given >= self.limit:
                await self._hand_over()

    async def _write(self, frame: AudioFrame) -> None:
        await self._writer.write(frame)
        self.given += len(frame.data)

    def _listen(self, item: Item) -> None:
        if isinstance(item, SpeechEnded | Cut):
            self.limit = self._soft
        elif isinstance(item, SpeechStarted):
            self.limit = self._hard

    def _go_on_with(self, part: Part) -> None:
        self._parts.append(part)
        self._writer, self.put, self.given = part.writer, part.writer.put, 0

    async def _hand_over(self) -> None:
        last = self._parts[-1]
        part = self._call.part(len(self._parts) + 1, last.session_id)
        refusal: SinkError | None = SinkError("unreachable", f"there was no other session within {OPEN_S:g} s")
        with anyio.move_on_after(OPEN_S):
            try:
                await part.open()
                refusal = None
            except SinkError as error:
                refusal = error
        if refusal is not None:
            last.facts = {**last.facts, "longer_than_s": self._longest_s}
            logger.warning(
                "EkaScribe session %s gets longer than the %g s that its model takes, for another could not be had "
                "(%s): what comes now may be missing in the note",
                last.session_id,
                self._longest_s,
                refusal.code,
            )
            self._longest_s, self.limit = None, inf
            return
        last.given = self.given // self._format.sample_bytes
        self._go_on_with(part)
        logger.info("EkaScribe session %s goes on as session %s", last.session_id, part.session_id)
        await self.aside(last.finish)
