"""One call on its way through the pipeline.

Everything from the source's ``push`` to the edges of the sinks happens in one synchronous call: no frame changes tasks
unless a sink has to wait.  Every way a call can end comes to ``end``: the front is closed, what the processors hold is
flushed, and the edges are closed behind it, so that the sinks finish.  Doing it twice is doing it once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from .compiled import Fused
from .component import Sink
from .config import Pipeline
from .delivery.account import SinkAccount, Span, Timeline, TrackAccount
from .delivery.edge import Edge
from .errors import SessionError
from .frame import AudioFrame, Event, Gap, Item, Lost, SpeechStarted, Stream
from .graph import Chain, Plan
from .latch import Latch

if TYPE_CHECKING:
    from .reply import LiveReply

logger = logging.getLogger(__name__)

NOBODY = "every sink has failed"

NOTES = 200
"""How many notes an account holds: of a call that never settles the first ones tell most; more are only counted."""

Facts = Mapping[str, str | int | float]
"""What a note holds."""

_CONCEAL_MS = 1000
"""Silence for a long gap goes down in frames of this length, so that its size in memory is bounded."""


class Keeper(Protocol):
    """What runs the tasks of sessions, and hears their news."""

    def start(self, work: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
        """Begin a task that outlives the source's."""

    def sinks_over(self, session: LiveSession) -> None:
        """Take note that every sink has finished and the source has left: the account of the call is complete."""

    def sink_failed(self, session: LiveSession, edge: Edge) -> None:
        """Take note that a sink has failed."""

    def noted(self, session: LiveSession, name: str, facts: Facts) -> None:
        """Take note of what was put on record."""

    def amended(self, account: dict[str, Any]) -> None:
        """Take note that the account of a call that is over has changed."""


class _Lane(TrackAccount):
    """The account of one track, and what its audio goes through."""

    def __init__(self, track: str, chain: Chain) -> None:
        super().__init__()
        self.track, self.chain = track, chain
        label, first = chain[0] if chain else ("", None)
        fused = isinstance(first, Fused)
        self.first: Fused | None = first if fused else None  # type: ignore[assignment]
        """The first step where it is a fused one, which nearly every call has and which needs no frame made for it."""
        self.label, self.rest = label, chain[1:] if fused else chain


class LiveSession:
    """A call that is being carried: what a source sees as ``Session``, and what the runner keeps."""

    def __init__(
        self,
        pipeline: Pipeline,
        plan: Plan,
        stream: Stream,
        keeper: Keeper,
    ) -> None:
        self.stream, self.plan = stream, plan
        self._format, self._sample_bytes = stream.format, stream.format.sample_bytes
        self._pipeline = pipeline.name
        self.started = time.time()
        self.changed, self.due = True, 0
        """For ``delivery.snapshots``."""
        self.finished = Latch()
        """Set by the runner when every sink is done and the ledger is written."""
        self.error = ""
        self.settled: dict[str, Any] | None = None
        """The account once the call is over; only notes are still added to it."""
        self.undelivered = False
        """True once every sink has failed."""
        self.reply: LiveReply | None = None
        """What is played into the call, where its pipeline has a reply."""
        self.broke = False
        """True once a transform has broken."""
        self._sinks_done = False
        self._keeper = keeper
        chains = plan.open()
        self._lanes = tuple([_Lane(track, chains[track]) for track in stream.tracks])
        self._others: dict[str, TrackAccount] | None = None  # of tracks that were not announced
        self._lane: _Lane | None = None  # the last one that was asked for
        self._lost: dict[str, dict[str, int]] = {}
        self._notes: list[dict[str, str | int | float]] = []
        self._notes_left_out = 0
        self._ending = False
        self.edges = tuple(
            [
                Edge(
                    pipeline.label(("sinks", index)),
                    sink,
                    stream,
                    plan.output,
                    plan.output_tracks,
                    SinkAccount(plan.output, plan.path),
                    self,
                )
                for index, sink in enumerate(pipeline.sinks)
            ]
        )

    # What the source calls.

    def push(self, data: bytes, track: str = "inbound") -> bool:
        lane = self._find(track)
        size = len(data)
        if size % self._sample_bytes:
            self._format.sample_count(data)  # raises
        position = lane.end
        lane.end = position + size // self._sample_bytes
        self._deliver(self._enter(lane, data, position))
        if self.undelivered:
            raise SessionError(NOBODY)
        for edge in self.edges:
            if edge.full():
                return False
        return True

    async def ready(self) -> None:
        for edge in self.edges:
            await edge.room()

    async def send(self, data: bytes, track: str = "inbound") -> None:
        if self.push(data, track):
            await anyio.lowlevel.checkpoint()
        else:
            await self.ready()

    def begin(self, track: str, position: int) -> None:
        lane = self._find(track)
        if lane.end != lane.start:
            raise ValueError(f"track {track} has begun already")
        lane.start = lane.end = position

    def conceal(self, samples: int, reason: str, track: str = "inbound") -> bool:
        self.changed = True
        lane = self._find(track)
        format = self.stream.format
        gap = Gap(track, lane.end / format.sample_rate, samples / format.sample_rate, reason)
        self._carry(lane.chain, (gap,))
        longest = format.sample_rate * _CONCEAL_MS // 1000
        room = True
        for done in range(0, samples, longest):
            step = min(longest, samples - done)
            lane.conceal(step, reason)
            room = self.push(format.silence(step), track)
        return room

    def drop(self, samples: int, reason: str, track: str = "inbound") -> None:
        account: TrackAccount | None = self._lane_of(track)
        if account is None:
            self._others = {} if self._others is None else self._others
            account = self._others.setdefault(track, TrackAccount())
        account.dropped[reason] += samples
        self.changed = True

    def emit(self, event: Event) -> None:
        self._carry(self._find(event.track).chain, (event,))

    def time(self, track: str = "inbound") -> float:
        return self._find(track).end / self.stream.format.sample_rate

    def offer(self, speaker: Sink | None) -> None:
        if self.reply is not None:
            self.reply.offer(speaker)

    def note(self, name: str, /, **facts: str | int | float) -> None:
        if len(self._notes) < NOTES:
            reached = max(lane.end for lane in self._lanes)
            self._notes.append(facts | {"event": name, "at": reached / self.stream.format.sample_rate})
        else:
            self._notes_left_out += 1
        self.changed = True
        if self.settled is not None:
            self.settled |= self._events()
            self._keeper.amended(self.settled)
        self._keeper.noted(self, name, facts)

    # What the runner calls.

    def open_sinks(self) -> None:
        """Begin to open the sinks; audio may come at once."""
        for edge in self.edges:
            edge.open()

    async def leave(self, error: BaseException | None) -> None:
        """End the call for its source, which has met ``error`` or nothing, and wait until it is finished."""
        if isinstance(error, SessionError):
            self.error = self.error or str(error)
        elif isinstance(error, Exception):
            self.error = self.error or f"the source failed: {error}"
        self.end()
        with anyio.CancelScope(shield=True):
            await self.finished.wait()
        if error is None and self.undelivered:
            raise SessionError(NOBODY)

    def end(self) -> None:
        """Close the front: flush what the processors hold into the sinks and close their edges."""
        if self._ending:
            return
        if self.reply is not None:
            self.reply.end()
        try:
            if not self.broke:
                self._flush()
        except SessionError:
            pass  # it is in ``error`` and in the log
        finally:
            self._ending = self.changed = True
            for edge in self.edges:
                edge.close()
            self.sink_over()

    def limit(self, deadline: float) -> None:
        """Cut off, at that time, the sinks that have not finished by then."""
        for edge in self.edges:
            edge.limit(deadline)

    def account(self) -> dict[str, Any]:
        """Return the ledger of the call as it stands."""
        self.confirm()
        timeline = self._timeline()
        tracks: dict[str, dict[str, Any]] = {}
        for track, account in self._accounts().items():
            tracks[track] = account.figures()
            tracks[track]["lost"] = dict(self._lost.get(track, ()))
        sinks: list[dict[str, Any]] = []
        for edge in self.edges:
            failure = edge.failure
            sink: dict[str, Any] = {"sink": edge.label}
            sink |= edge.account.figures(timeline)
            sink["failure"] = None if failure is None else {"code": failure.code, "text": str(failure)}
            sink["outcome"] = edge.outcome
            sinks.append(sink)
        return {
            "pipeline": self._pipeline,
            "call": self.stream.id,
            "started": self.started,
            "status": self._status(),
            "error": self.error,
            "sample_rate": self.stream.format.sample_rate,
            "tracks": tracks,
            "sinks": sinks,
            **self._events(),
            **({} if self.reply is None else {"reply": self.reply.account()}),
        }

    def confirm(self) -> None:
        """Bring the account up to what the sinks say."""
        for edge in self.edges:
            edge.confirm()

    def _events(self) -> dict[str, Any]:
        return {"events": list(self._notes), "events_left_out": self._notes_left_out}

    def _status(self) -> str:
        if not self._sinks_done:
            return "ending" if self._ending else "live"
        return "failed" if self.error or any(edge.failure for edge in self.edges) else "complete"

    def _timeline(self) -> Timeline:
        extents: dict[str, Span] = {}
        concealed: dict[str, list[Span]] = {}
        for lane in self._lanes:
            if lane.end != lane.start:
                extents[lane.track] = Span(lane.start, lane.end)
                concealed[lane.track] = lane.concealed
        return Timeline(extents, concealed)

    def _find(self, track: str) -> _Lane:
        if self._ending or self.broke or self.undelivered:
            raise SessionError(self.error or f"call {self.stream.id} has ended")
        lane = self._lane
        if lane is None or lane.track != track:
            lane = self._lane_of(track)
            if lane is None:
                raise ValueError(f"call {self.stream.id} has no track {track!r}, only {', '.join(self.stream.tracks)}")
            self._lane = lane
        return lane

    def _lane_of(self, track: str) -> _Lane | None:
        for lane in self._lanes:
            if lane.track == track:
                return lane
        return None

    def _accounts(self) -> dict[str, TrackAccount]:
        accounts: dict[str, TrackAccount] = {lane.track: lane for lane in self._lanes}
        return accounts if self._others is None else accounts | self._others

    def _enter(self, lane: _Lane, data: bytes, position: int) -> Iterable[Item]:
        """Send new audio through its lane."""
        first = lane.first
        if first is None:
            return self._through(lane.rest, (AudioFrame(data, self._format, lane.track, position),))
        try:
            items = first.take(data, lane.track, position)
            if not isinstance(items, tuple):
                items = tuple(items)
        except Exception as error:
            raise self._broken(lane.label, error) from error
        return self._through(lane.rest, items) if lane.rest else items

    def _through(self, chain: Chain, items: Iterable[Item]) -> Iterable[Item]:
        for label, processor in chain:
            try:
                out: list[Item] = []
                for item in items:
                    out += processor.process(item) if type(item) is AudioFrame else processor.event(item)  # type: ignore[arg-type]
                items = out
            except Exception as error:
                raise self._broken(label, error) from error
        return items

    def _carry(self, chain: Chain, items: Iterable[Item]) -> None:
        self._deliver(self._through(chain, items))

    def _deliver(self, items: Iterable[Item]) -> None:
        for item in items:
            if type(item) is not AudioFrame:
                self._hear(item)
            for edge in self.edges:
                edge.put(item)

    def _hear(self, event: Item) -> None:
        if isinstance(event, Lost):
            self._lose(event)
        elif isinstance(event, SpeechStarted) and self.reply is not None:
            self.reply.hear(event)

    def _lose(self, lost: Lost) -> None:
        reasons = self._lost.setdefault(lost.track, {})
        samples = round(lost.duration * self.stream.format.sample_rate)
        reasons[lost.reason] = reasons.get(lost.reason, 0) + samples
        self.changed = True

    def _flush(self) -> None:
        """Flush track by track up to where they are joined, then what all tracks share."""
        chains = [lane.chain for lane in self._lanes]
        shared = [step for step in chains[0] if len(chains) > 1 and all(step in chain for chain in chains[1:])]
        own = len(chains[0]) - len(shared)
        for chain in chains:
            self._flush_steps(chain, range(own if shared else len(chain)))
        if shared:
            self._flush_steps(chains[0], range(own, len(chains[0])))

    def _flush_steps(self, chain: Chain, steps: Iterable[int]) -> None:
        for index in steps:
            label, processor = chain[index]
            try:
                left = list(processor.flush())
            except Exception as error:
                raise self._broken(label, error) from error
            self._carry(chain[index + 1 :], left)

    def _broken(self, label: str, error: Exception) -> SessionError:
        self.broke = self.changed = True
        self.error = self.error or f"{label} broke: {type(error).__name__}: {error}"
        logger.error("call %s: %s", self.stream.id, self.error, exc_info=error)
        return SessionError(self.error)

    # What the edges call.

    def start(self, work: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
        self._keeper.start(work, *args)

    def sink_over(self) -> None:
        if self._ending and all(edge.over for edge in self.edges):
            self._sinks_done = True
            self._keeper.sinks_over(self)

    def sink_failed(self, edge: Edge) -> None:
        self.changed = True
        self.undelivered = all(edge.failure is not None for edge in self.edges)
        if self.undelivered:
            self.error = self.error or NOBODY
        self._keeper.sink_failed(self, edge)


class Held:
    """The block in which a source has its call open.  A class: one that is a generator takes a kilobyte a call."""

    __slots__ = ("_begin", "_session")

    def __init__(self, begin: Callable[[], LiveSession]) -> None:
        self._begin = begin
        self._session: LiveSession

    async def __aenter__(self) -> LiveSession:
        self._session = self._begin()
        del self._begin  # and what it was made of
        return self._session

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        await self._session.leave(error)
