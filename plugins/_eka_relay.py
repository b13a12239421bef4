"""A call in several sessions of EkaScribe: one hands over to the next when it is full, or when its stream has broken.

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

A stream that has broken cannot be taken up again.  So the call goes on in another session, that of what came through is
ended beside the call, and has its note::

    session 1   ▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▒▒▒▒▒┊ broken                  end → note
                       confirmed     ┊ what had not left waits
    session 2                        open, for up to AGAIN_S ───┴▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄ …

What had left and was not confirmed (▒) is lost, or at least in doubt, and is booked so (``Writer.lose``), as is that of
a session that breaks when the next one has the call already and it has not stored all.  A service
that breaks every stream is not asked for ever: after ``VAIN`` sessions in a row that confirmed nothing the sink fails.
So that little is in doubt, no more than ``PartWriter.in_doubt_s`` of audio may be; what exceeds that waits as well.  At
half of it the session is asked how far it is, if the ledger has not asked before.

``delivered`` goes up to the first sample that is in doubt: behind a session that has not confirmed all, what the next
one holds is not counted.  Nor is what was lost in a later one booked before, since what is lost is counted on from what
is delivered.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
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

LOST = "stream-lost"
"""The failure that another session helps against."""

AGAIN_S = 60.0
"""For how long another one is asked for then: as long as all waits that can wait in front of a sink."""

VAIN, VAIN_S = 3, 1.0
"""How many sessions in a row may break and have confirmed nothing, and how much longer each is waited for."""


NOTED = ("completed", "partial")
"""What the status of a session is once its note is there."""

_NO_FACTS: Mapping[str, Any] = MappingProxyType({})


class PartWriter(Writer):
    """Writes to one session."""

    __slots__ = ("put",)

    put: Callable[[bytes], bool]
    """Takes the audio of a frame without waiting; returns False, and has taken nothing, if that cannot be."""

    in_doubt_s: float = inf
    """How much audio may have been sent and not be confirmed."""

    def rest(self) -> bytes:
        """Give back what it was given and has not sent."""
        raise NotImplementedError

    async def sure(self) -> None:
        """Return once all that was sent is delivered."""
        raise NotImplementedError


class Part(ABC):
    """One session of a call; ``before`` is the id of the one before it.

    No task is kept while audio is written: ``open``, and ``finish`` or ``abort``, may run in different ones.
    """

    __slots__ = ("before", "facts", "given", "lost", "number", "session_id", "status", "writer")

    def __init__(self, number: int, before: str) -> None:
        self.number, self.before = number, before
        self.session_id = self.status = ""
        self.facts = _NO_FACTS
        """What else is known of its outcome."""
        self.given = 0
        """Samples that it was given, once it is closed; 0 where it broke."""
        self.lost = 0
        """Samples that are lost behind what it has confirmed, where it broke, and are not booked yet."""
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
    async def salvage(self) -> None:
        """Its stream is broken: return when the note of what came through is there."""

    @abstractmethod
    async def abort(self) -> None:
        """Give up quickly, whatever cancels."""


class Parts(Protocol):
    """The call that sessions are parts of."""

    def part(self, number: int, before: str) -> Part:
        """Return the session of that number, which goes on behind the one with the id ``before``."""


class Relay(eka.Quota, Writer):
    """Writes a call to one session after the other."""

    __slots__ = (
        "_call",
        "_format",
        "_full",
        "_longest_s",
        "_parts",
        "_sure",
        "_vain",
        "_writer",
        "aside",
        "lose",
        "note",
    )

    def __init__(self, call: Parts, format: AudioFormat, longest_s: float | None) -> None:
        super().__init__()
        self.note, self.aside, self.lose = Writer.note, Writer.aside, Writer.lose
        self._call, self._format, self._longest_s = call, format, longest_s
        # Where it is left, and where it is waited for; before both is ``limit``, where something has to be done.
        self._full, self._sure = self._hard, 0.0
        self._writer: PartWriter
        self._parts: list[Part] = []
        self._vain = 0

    # In bytes of the session that is written to, since that is what a frame knows without computing.

    @property
    def _second(self) -> int:
        return self._format.sample_rate * self._format.sample_bytes

    @property
    def _soft(self) -> float:
        if self._longest_s is None:
            return inf
        return self._longest_s * SOFT * self._second

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
            if confirmed < part.given or part.lost:
                break  # never the last one, whose figure is still open
        else:
            self._is_confirmed(confirmed)
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
        return self.given < self._full and self._writer.write_nowait(event)

    def extend(self, given: int) -> bool:
        if given > self._full:
            return False
        self._is_confirmed(self._writer.delivered)  # which is asked by that, and has its answer the next time
        self.limit = min(self._full, self._sure, max(self.limit, given + self._second))
        return given <= self.limit

    async def write(self, item: Item) -> None:
        if isinstance(item, AudioFrame):
            if self.given >= self._full:
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
            if self.given >= self._full:
                await self._hand_over()

    async def _write(self, frame: AudioFrame) -> None:
        self.given += len(frame.data)
        try:
            await self._writer.write(frame)
            if self.given > self._sure:
                await self._writer.sure()
                self._is_confirmed(self._writer.delivered)
        except SinkError as error:
            if error.code != LOST:
                raise
            await self._mend(error)

    def _listen(self, item: Item) -> None:
        if isinstance(item, SpeechEnded | Cut):
            self._full = self._soft
        elif isinstance(item, SpeechStarted):
            self._full = self._hard
        self.limit = min(self._full, self.limit)

    def _is_confirmed(self, samples: int) -> None:
        """Let so much more be given to the session that has confirmed ``samples``, and half as much without asking."""
        confirmed, doubt = samples * self._format.sample_bytes, self._writer.in_doubt_s * self._second
        self._sure = confirmed + doubt
        self.limit = min(self._full, confirmed + doubt / 2)

    def _go_on_with(self, part: Part) -> None:
        self._parts.append(part)
        self._writer, self.put, self.given = part.writer, part.writer.put, 0
        self._is_confirmed(0)

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
            self._longest_s, self._full = None, inf
            self._is_confirmed(self._writer.delivered)
            return
        last.given = self.given // self._format.sample_bytes
        self._go_on_with(part)
        logger.info("EkaScribe session %s goes on as session %s", last.session_id, part.session_id)
        await self.aside(partial(self._finish, last))

    async def _finish(self, part: Part) -> None:
        failure: SinkError | None = None
        try:
            await part.finish()
        except SinkError as error:
            if error.code != LOST:
                raise
            confirmed = part.writer.delivered
            self._write_off(part, part.given - confirmed)
            logger.warning(
                "EkaScribe session %s, which was handed over, has not ended well: %s; %d samples are lost or in doubt",
                part.session_id,
                error,
                part.lost,
            )
            if part.status not in NOTED:
                part.status = "broken"
                failure = error if confirmed else None
        self._book_lost()
        if failure is not None:
            raise failure

    async def _mend(self, failure: SinkError) -> None:
        """Go on in another session, for the stream of the last one has broken; raise ``failure`` if there is none."""
        last, rest = self._parts[-1], self._writer.rest()
        confirmed = self._writer.delivered
        self._vain = 0 if confirmed else self._vain + 1
        if self._vain > VAIN:
            raise failure
        await anyio.sleep(self._vain * VAIN_S)
        part = await self._another(failure)
        last.status = "broken"
        self._write_off(last, (self.given - len(rest)) // self._format.sample_bytes - confirmed)
        logger.warning(
            "EkaScribe session %s goes on as session %s, for %s; %d samples are lost or in doubt",
            last.session_id,
            part.session_id,
            failure,
            last.lost,
        )
        self._go_on_with(part)
        self._book_lost()
        await self.aside(last.salvage if confirmed else last.abort)
        if rest:
            await self._write(AudioFrame(rest, self._format))

    async def _another(self, failure: SinkError) -> Part:
        import stamina

        last = self._parts[-1]
        try:
            async for attempt in stamina.retry_context(on=_may_pass, attempts=None, timeout=AGAIN_S):
                with attempt:
                    part = self._call.part(len(self._parts) + 1, last.session_id)
                    await part.open()
                    return part
        except SinkError as error:
            raise SinkError(failure.code, f"{failure}; another session could not be had: {error}") from None
        raise AssertionError("stamina ends by returning or raising")

    def _write_off(self, part: Part, samples: int) -> None:
        """Put on record that so much of what ``part`` was given is lost, behind what it has confirmed."""
        part.given, part.lost = 0, samples
        part.facts = {**part.facts, "lost_samples": samples}
        self.note("StreamLost", session_id=part.session_id, samples=samples)

    def _book_lost(self) -> None:
        """Have booked what is lost, as far as nothing before it is in doubt."""
        for part in self._parts:
            if part.writer.delivered < part.given:
                break
            if part.lost:
                self.lose(part.lost, LOST)
                part.lost = 0


def _may_pass(error: Exception) -> bool:
    """Tell whether what kept a session from being opened may be over in a moment."""
    return isinstance(error, SinkError) and error.code in ("unreachable", "stream-refused", LOST)
