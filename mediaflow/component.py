"""The parts of a pipeline, as their authors write them.

A component *is* its configuration: a frozen struct whose fields are the YAML options, whose annotations validate them
and whose docstring documents them.  It can be checked, printed and compared without starting anything.  When a stream
arrives, ``open`` makes the running part, which lives exactly as long as that stream.

    Source      serve(engine)           brings streams: opens one call each, pushes bytes into it
    Transform   open(format)            → Processor, one per track: frame in, frames and events out
    Joiner      open(format, tracks)    → Processor, one for all tracks, which become one
    Sink        open(stream, format)    → Writer, inside ``async with``: takes the frames to somewhere

A processor is synchronous and gives the same samples for any way the input is sliced.  A writer may wait.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Protocol

import msgspec
from msgspec import Meta

from .frame import AudioFormat, AudioFrame, Event, Item, Stream


class Secret:
    """A configured string that never shows itself: not in ``repr``, logs, tracebacks or ``explain``."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the string itself."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret('…')" if self._value else "Secret('')"

    __str__ = __repr__


class Finding(NamedTuple):
    """What ``mediaflow doctor`` found: ``ok`` is True, False, or None for what is only worth knowing."""

    ok: bool | None
    text: str
    fix: str = ""


class Component(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What sources, transforms, joiners and sinks share: they are configuration."""

    def check(self) -> None:
        """Raise ValueError if options contradict each other; the engine adds the place in the file."""

    async def diagnose(self) -> AsyncIterator[Finding]:
        """Examine what the component depends on (devices, addresses, credentials) without moving audio."""
        return
        yield  # an empty iterator


class Session(Protocol):
    """One call in its pipeline, as the source sees it."""

    stream: Stream

    def push(self, data: bytes, track: str = "inbound") -> bool:
        """Carry ``data``, whole samples of the stream's format, which follow what came before on ``track``.

        It runs the transforms and hands the result to the sinks without waiting.  False asks the source to
        ``await ready()`` before it pushes more: a sink's queue is full.  A source that cannot wait may go on; what does
        not fit is then dropped and booked.  Raises ``SessionError`` once every sink has failed or a transform broke.
        """

    async def ready(self) -> None:
        """Wait until the sinks have room again."""

    async def send(self, data: bytes, track: str = "inbound") -> None:
        """``push``, then wait for room where there is none."""

    def begin(self, track: str, position: int) -> None:
        """Let ``track`` start at ``position`` samples rather than 0; only before its first sample."""

    def conceal(self, samples: int, reason: str, track: str = "inbound") -> bool:
        """Put silence in the place of ``samples`` that were lost before they reached us; as ``push`` otherwise."""

    def drop(self, samples: int, reason: str, track: str = "inbound") -> None:
        """Book ``samples`` that arrived and have no place in the stream (doubled, too late)."""

    def emit(self, event: Event) -> None:
        """Send ``event`` down the pipeline behind the audio pushed so far."""

    def time(self, track: str = "inbound") -> float:
        """Return the stream time, in seconds, of the next sample of ``track``."""

    def offer(self, speaker: Sink | None) -> None:
        """Offer a sink that plays into this call, for the reply of the pipeline; None: this call cannot be spoken to.

        It is opened at most once, for a stream of its own, and cut off when the call ends.
        """

    def note(self, name: str, /, **facts: str | int | float) -> None:
        """Put on record that ``name`` happened now, with what is known of it: neither secrets nor numbers of people.

        It stands in the call's account under ``events``, with the stream time, as long as there is room; unlike
        ``emit`` it goes to no sink.  It may be called at any time: of a call that is over the ledger is amended.
        """


class Engine(Protocol):
    """The running pipeline, as a source sees it."""

    @property
    def state(self) -> Path | None:
        """The folder for what has to outlive the process; None where nothing is to be kept."""

    @property
    def replies(self) -> bool:
        """True if the pipeline has a reply: each call should be one that can be spoken to, and be offered a speaker."""

    def open(self, stream: Stream) -> AbstractAsyncContextManager[Session]:
        """Open a call.

        Leaving the block ends it, in whatever way it is left: what was pushed flows through and the sinks finish; a
        reply that still plays is cut off.  It may be entered in one task and left in another.  Raises ``FormatError``
        if the pipeline cannot take the stream's format, and ``SessionError`` at the end if every sink has failed, so
        that a source can tell its peer that nothing is stored.
        """

    def listening(self, url: str) -> None:
        """Tell everybody who waits for it that the source takes connections at ``url``."""

    def count(self, name: str, number: int = 1) -> None:
        """Count something worth knowing that belongs to no call (``refused-token``)."""


class Source(Component, frozen=True):
    """Where streams come from."""

    emits: ClassVar[tuple[type[Event], ...]] = ()
    """Events that its streams may bring, so that a transform may need them."""

    listens: ClassVar[bool] = False
    """True if it takes connections and so may bring any number of streams; such a source cannot be a reply."""

    divisible: ClassVar[bool] = False
    """True if several processes may serve it at once, each taking some of its streams (``mediaflow.fellows``)."""

    speaker: ClassVar[Sink | None] = None
    """What plays into its calls, for checking: like those that calls are offered.  None: they cannot be spoken to."""

    def check_reply(self) -> None:
        """Raise ValueError if options are in the way of a reply; asked only where the pipeline has one."""

    @abstractmethod
    def formats(self) -> Iterable[tuple[AudioFormat, tuple[str, ...]]]:
        """Yield every format, with its tracks, that a stream of this source may have, as far as it is known before."""

    @abstractmethod
    async def serve(self, engine: Engine) -> None:
        """Bring streams until there are no more; it is cancelled to stop early."""


class Processor:
    """The running part of a transform, for one track of one stream."""

    latency: float = 0.0
    """Seconds by which the output lags behind the input."""

    def process(self, frame: AudioFrame) -> Iterable[Item]:
        """Take a frame, return what can be told from it and those before."""
        raise NotImplementedError

    def event(self, event: Event) -> Iterable[Item]:
        """Take an event from further up; by default it goes on down."""
        return (event,)

    def flush(self) -> Iterable[Item]:
        """Return what is left; the stream has ended."""
        return ()


class Transform(Component, frozen=True):
    """A step that works on each track by itself."""

    needs: ClassVar[tuple[type[Event], ...]] = ()
    """Events that the source, or some transform before this one, has to make."""

    emits: ClassVar[tuple[type[Event], ...]] = ()
    """Events that this one makes."""

    def output_format(self, format: AudioFormat) -> AudioFormat:
        """Return what comes out when ``format`` goes in; raise ``FormatError`` if it cannot go in."""
        return format

    def applies(self, format: AudioFormat) -> bool:
        """Return False where there is nothing to do for ``format``; the step is then left out."""
        return True

    @abstractmethod
    def open(self, format: AudioFormat) -> Processor:
        """Return a new processor for a track of ``format``."""


class Joiner(Component, frozen=True):
    """A step that makes one track of several."""

    @property
    def output_track(self) -> str:
        """The name of the track that comes out."""
        return "joined"

    def output_format(self, format: AudioFormat, tracks: tuple[str, ...]) -> AudioFormat:
        """Return what comes out; raise ``FormatError`` if these tracks cannot be joined."""
        return format

    def applies(self, tracks: tuple[str, ...]) -> bool:
        """Return False where there is nothing to join; the step is then left out."""
        return len(tracks) > 1

    def keeps(self, tracks: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of ``tracks`` that the output is made of."""
        return tracks

    @abstractmethod
    def open(self, format: AudioFormat, tracks: tuple[str, ...]) -> Processor:
        """Return a processor that is given the frames of all ``tracks`` as they arrive.

        Raises ``FormatError`` if a stream of these tracks cannot be carried.
        """


class Note(Protocol):
    """Puts on record that something happened; see ``Session.note``."""

    def __call__(self, name: str, /, **facts: str | int | float) -> None: ...


def _unheard(name: str, /, **facts: str | int | float) -> None:
    """Nobody keeps a record where a writer is used by itself."""


class Aside(Protocol):
    """Runs what a writer has to do beside the call; see ``Writer.aside``."""

    def __call__(self, work: Callable[[], Coroutine[Any, Any, None]], /) -> Awaitable[None]: ...


async def _at_once(work: Callable[[], Coroutine[Any, Any, None]], /) -> None:
    """Nobody else runs it where a writer is used by itself."""
    await work()


class Lose(Protocol):
    """Has samples booked as lost; see ``Writer.lose``."""

    def __call__(self, samples: int, reason: str, /) -> None: ...


def _unbooked(samples: int, reason: str, /) -> None:
    """Nobody keeps an account where a writer is used by itself."""


class Writer(ABC):
    """The running part of a sink, for one stream."""

    __slots__ = ("__dict__",)  # which is not made for a class that has slots for all it holds

    note: Note = staticmethod(_unheard)
    """What ``Session.note`` is to a source: call it to put on record what the other side has said of the stream.  The
    engine sets it once it has opened the writer."""

    aside: Aside = staticmethod(_at_once)
    """Await it, in ``write``, with work that need not hold the call up: the engine, which sets this as it sets
    ``note``, does it in a task beside the call, also when the block is left meanwhile.  The sink is not over before it
    is done; what it raises fails the sink, but not before its end; and it is cancelled if the sink is cut off.  Where a
    writer is used by itself the work is done at once."""

    lose: Lose = staticmethod(_unbooked)
    """Call it, in ``write`` or in work ``aside``, where audio is lost and the call goes on all the same: the next
    ``samples`` of what was written, behind what is ``delivered``, are booked as dropped for ``reason``.  They are none
    that ``delivered`` counts later.  Raises ValueError for more than were written and are not delivered.  The engine
    sets it as it sets ``note``."""

    outcome: Mapping[str, Any] = {}
    """What became of the audio (a path, a session id, a status), for the ledger and for people.

    The ledger keeps JSON, and tells what that has no word for as text."""

    @property
    @abstractmethod
    def delivered(self) -> int:
        """How many samples, counted in the order they were written, the other side is known to hold."""

    def write_nowait(self, item: Item) -> bool:
        """Take ``item`` if that needs no waiting; return False to have it queued and given to ``write``."""
        return False

    @abstractmethod
    async def write(self, item: Item) -> None:
        """Take ``item``, waiting as long as that needs."""


class Sink(Component, frozen=True):
    """Where streams go."""

    queue_ms: Annotated[int, Meta(ge=20, le=3_600_000, description="audio that may wait for the sink, in ms")] = 30_000
    when_full: Annotated[
        Literal["block", "drop_oldest"],
        Meta(description="block holds the source up; drop_oldest drops what has waited longest and books it"),
    ] = "block"

    resident: ClassVar[bool] = True
    """False promises that the block of ``open`` may be left in another task than it was entered in: across the
    ``yield`` it holds no task group and no cancel scope.  Then no task is kept for it while the call streams."""

    def check_format(self, format: AudioFormat, tracks: tuple[str, ...]) -> None:
        """Raise ``FormatError`` if the sink cannot take this format or these tracks."""

    @abstractmethod
    def open(self, stream: Stream, format: AudioFormat, tracks: tuple[str, ...]) -> AbstractAsyncContextManager[Writer]:
        """Open a writer for ``stream``.

        Leaving the block normally finishes the delivery and returns when the other side has everything; leaving it by
        an exception gives up quickly.  What cannot be delivered raises ``SinkError``.
        """
