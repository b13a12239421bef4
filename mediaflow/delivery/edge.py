"""The one queue of a pipeline: between the transforms, which never wait, and a sink, which may.

A frame goes straight into the sink where the sink takes it without waiting and nothing stands in front of it; only
then is there no queue, no task switch, no copy.  Otherwise it waits here, bounded in milliseconds of audio.  What
happens at the bound is the sink's ``when_full``::

    block         the source is asked to wait; one that cannot loses what exceeds twice the bound, booked
    drop_oldest   what has waited longest is dropped, booked

A sink that fails loses its own audio, booked under the code of its failure, and nobody else's.

A task is there while something has to be awaited.  While a call streams that is nothing, so a sink that is not
``resident`` has none then: 4 KiB less of every call::

    task 1   open ── write what has waited ──▶ ends here      resident: it goes on as the second one does
                                                 │ frames go into the sink
    task 2   begun when one has to wait, or to leave: write, wait for more, write … ──▶ leave the block
                                                 ▲ and ends where a frame goes into the sink by itself again

So a sink for which every frame has to wait keeps its task, and one that was held up for a moment does not.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from math import inf
from typing import Any, Protocol

import anyio
import msgspec

from ..component import Sink, Writer
from ..errors import SinkError
from ..frame import AudioFormat, AudioFrame, Item, Stream
from .account import SinkAccount

logger = logging.getLogger(__name__)


class Owner(Protocol):
    """The call that an edge belongs to."""

    changed: bool
    """Set when more has happened than that the audio went on."""

    def start(self, work: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
        """Begin a task."""

    def note(self, name: str, /, **facts: str | int | float) -> None:
        """Put on record what the other side has said; see ``Session.note``."""

    def sink_failed(self, edge: Edge) -> None:
        """Take note that the sink has failed."""

    def sink_over(self) -> None:
        """Take note that the sink has left, and that its account is settled."""


class Edge:
    """The way into one sink, for one call."""

    def __init__(
        self,
        label: str,
        sink: Sink,
        stream: Stream,
        format: AudioFormat,
        tracks: tuple[str, ...],
        account: SinkAccount,
        owner: Owner,
    ) -> None:
        self.label, self.account = label, account
        self.failure: SinkError | None = None
        self.over = False
        """True once the sink has left, whatever it ran beside the call is done, and the account is settled."""
        self._sink, self._stream, self._format, self._tracks = sink, stream, format, tracks
        self._owner = owner
        self._bound = sink.queue_ms * format.sample_rate * len(tracks) // 1000
        self._queue: deque[Item] | None = None  # made when something has to wait: an empty one takes 760 bytes
        self._queued = 0
        self._blocks = sink.when_full == "block"
        self._block: AbstractAsyncContextManager[Writer] | None = None  # while it is open
        self._writer: Writer | None = None
        self._write_nowait: Callable[[Item], bool] | None = None  # the writer's, looked up once
        self._busy = True
        self._closing = False
        self._stays = sink.resident  # whether a task waits here while there is nothing to do
        self._left = False  # whether there is nothing to do any more
        self._running = False  # whether there is a task
        self._scope: anyio.CancelScope | None = None  # of that task
        self._deadline = inf
        self._beside: tuple[anyio.CancelScope, ...] = ()  # of what runs beside the call
        self._late: SinkError | None = None  # what failed there
        self._work: anyio.Event | None = None  # while the task has nothing to do
        self._room: anyio.Event | None = None  # once the source had to wait

    def open(self) -> None:
        """Begin to open the sink; frames may come at once."""
        self._begin()

    def full(self) -> bool:
        """True while the source should wait."""
        return self._queued > self._bound and self._blocks and self.failure is None

    def put(self, item: Item) -> None:
        """Take an item without waiting."""
        frame = item if isinstance(item, AudioFrame) else None
        if self.failure is not None:
            if frame is not None:
                self.account.drop(frame, self.failure.code)
            return
        if not self._busy and self._write_nowait is not None:
            try:
                if self._write_nowait(item):
                    if frame is not None:
                        self.account.write(frame)
                    if self._work is not None:
                        self._rest(self._work)
                    return
            except Exception as error:  # the sink's fault must not become the source's
                self._fail(error)
                self.put(item)
                return
        self._enqueue(item, frame)

    def _enqueue(self, item: Item, frame: AudioFrame | None) -> None:
        if frame is not None:
            if self._queued > 2 * self._bound and self._blocks:
                self._lose(frame)
                return
            self._queued += frame.sample_count
        if self._queue is None:
            self._queue = deque()
        self._queue.append(item)
        self._busy = True
        self._see_to_it()
        if self._queued > self._bound and not self._blocks:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        kept: deque[Item] = deque()
        while self._queued > self._bound and self._queue:
            item = self._queue.popleft()
            if isinstance(item, AudioFrame):
                self._lose(item)
                self._queued -= item.sample_count
            else:
                kept.append(item)
        if self._queue is not None:
            self._queue.extendleft(reversed(kept))

    def _lose(self, frame: AudioFrame) -> None:
        self.account.drop(frame, "queue-full")
        self._owner.changed = True

    async def room(self) -> None:
        """Wait while the queue is full."""
        while self.full():
            if self._room is None:
                self._room = anyio.Event()
            await self._room.wait()

    def close(self) -> None:
        """Say that nothing more will come."""
        self._closing = True
        self._see_to_it()

    def confirm(self) -> None:
        """Bring the account up to what the writer says."""
        if self._writer is not None:
            try:
                self.account.confirm(self._writer.delivered)
            except Exception as error:  # whoever asks, asks for all calls
                self._misspoke(error)

    def _book_lost(self, samples: int, reason: str) -> None:
        """Book what the writer has given up (``Writer.lose``)."""
        self.confirm()
        self.account.lose(samples, reason)
        self._owner.changed = True

    @property
    def outcome(self) -> dict[str, Any]:
        """What the writer says that has become of the audio; what JSON has no word for, a path or a date, as text."""
        try:
            outcome = {} if self._writer is None else self._writer.outcome
            return msgspec.to_builtins(outcome, str_keys=True, enc_hook=str)  # type: ignore[no-any-return]
        except Exception as error:
            self._misspoke(error)
            return {}

    def stop(self, failure: SinkError) -> None:
        """Cut the sink off: what it is not known to have delivered is booked under the code of ``failure``.

        One that has delivered all there is needs no more than to leave, and does so by itself.
        """
        self.confirm()
        if self._closing and not self._queue and self.account.is_delivered:
            return
        self._give_up(failure)
        for scope in self._beside:
            scope.cancel()

    def limit(self, deadline: float) -> None:
        """Cut the sink off at that time, unless it is to be cut off before; what is left is booked as ``deadline``."""
        self._deadline = deadline = min(self._deadline, deadline)
        self._stays = True  # for it takes a task to mind the time
        self._begin()
        for scope in (self._scope, *self._beside):
            if scope is not None:
                scope.deadline = deadline

    # The tasks.  They are shielded: only ``stop``, ``limit`` and a failure end them early.

    def _see_to_it(self) -> None:
        """Have a task look at what there is to do."""
        if self._work is not None:
            self._work.set()
        else:
            self._begin()

    def _rest(self, work: anyio.Event) -> None:
        """Let the task end that waits for more: there is more, and it needed none."""
        if not self._sink.resident and self._deadline == inf:
            self._stays = False
            work.set()

    def _begin(self) -> None:
        """Begin a task, unless there is one, or nothing to do for one any more."""
        if not self._running and not self._left:
            self._stays = self._stays or self._block is not None
            self._owner.start(self._run)
            self._running = True

    async def _run(self) -> None:
        rests = False
        try:
            with anyio.CancelScope(deadline=self._deadline, shield=True) as scope:
                self._scope = scope
                if self.failure is not None:  # it was cut off before this task had begun
                    scope.cancel()
                rests = await self._go_on()
            if scope.cancelled_caught:
                self._give_up(_too_late())
        except Exception as error:  # the engine's border: a sink's fault ends that sink alone
            self._fail(error)
        finally:
            self._running, self._scope, self._left = False, None, not rests
            self._settle()

    async def _go_on(self) -> bool:
        """Open the sink if it is not, and feed it; return True if it rests, and False once it has been left."""
        block, writer = self._block, self._writer
        if block is None or writer is None:
            await anyio.lowlevel.checkpoint_if_cancelled()  # one that was stopped already is not opened
            block = self._sink.open(self._stream, self._format, self._tracks)
            writer = await block.__aenter__()
            writer.note, writer.aside, writer.lose = self._owner.note, self._run_aside, self._book_lost
            self._block, self._writer, self._write_nowait = block, writer, writer.write_nowait
            self._owner.changed = True
        try:
            if await self._feed(writer):
                return True
        except BaseException as error:
            if not await block.__aexit__(type(error), error, error.__traceback__):
                raise
        else:
            await block.__aexit__(None, None, None)
        return False

    async def _feed(self, writer: Writer) -> bool:
        """Write what waits until nothing more will come; return True at once if more needs no task to wait for it."""
        while True:
            await anyio.lowlevel.checkpoint_if_cancelled()  # one that is cut off is not left as one that has finished
            while self._queue:
                item = self._queue.popleft()
                if isinstance(item, AudioFrame):
                    self._queued -= item.sample_count
                    # Booked before it is written: should the write be cut short, it is undelivered, not unknown.
                    self.account.write(item)
                await writer.write(item)
                if not self.full():
                    self._tell_room()
            self._queue = None
            self._busy = False
            if self._closing:
                return False
            if not self._stays and self.failure is None:  # with a failure it is about to be cancelled
                return True
            self._work = anyio.Event()
            await self._work.wait()
            self._work = None

    async def _run_aside(self, work: Callable[[], Awaitable[None]]) -> None:
        """Begin a task for what the writer does beside the call (``Writer.aside``)."""
        scope = anyio.CancelScope(deadline=self._deadline, shield=True)
        if self.failure is not None:  # it was cut off just now
            scope.cancel()
        self._beside = (*self._beside, scope)
        self._owner.start(self._run_beside, work, scope)

    async def _run_beside(self, work: Callable[[], Awaitable[None]], scope: anyio.CancelScope) -> None:
        try:
            with scope:
                await work()
            if scope.cancelled_caught:
                self._give_up(_too_late())
        except Exception as error:  # of what is over for the call: it goes on, and is told at its end
            self._late = self._late or self._understood(error)
        finally:
            self._beside = tuple([each for each in self._beside if each is not scope])
            self._settle()

    def _settle(self) -> None:
        """Book what is left, once nothing runs any more."""
        if not self._left or self._beside or self.over:
            return
        if self._late is not None:
            self._give_up(self._late)
        self.confirm()
        reason = "unconfirmed" if self.failure is None else self.failure.code
        self._drain(reason)
        self.account.close(reason)
        self._tell_room()
        self.over = True
        self._owner.sink_over()

    def _tell_room(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None

    def _drain(self, reason: str) -> None:
        while self._queue:
            item = self._queue.popleft()
            if isinstance(item, AudioFrame):
                self.account.drop(item, reason)
        self._queued = 0

    def _fail(self, error: Exception) -> None:
        failure = self._understood(error)
        self._give_up(self._late or failure)

    def _misspoke(self, error: Exception) -> None:
        if self.failure is None:
            self._fail(error)

    def _understood(self, error: Exception) -> SinkError:
        """Return the failure that ``error`` is, and log it."""
        failure = _sink_error(error)
        if failure is None:
            logger.exception("%s broke in call %s", self.label, self._stream.id, exc_info=error)
            return SinkError("broken", f"{type(error).__name__}: {error}")
        logger.error("%s failed in call %s: %s: %s", self.label, self._stream.id, failure.code, failure)
        return failure

    def _give_up(self, failure: SinkError) -> None:
        """Take nothing more, and have the block left by an exception."""
        if self.failure is not None:
            return
        self.failure = failure
        self._drain(failure.code)
        self._tell_room()
        self._begin()
        if self._scope is not None:
            self._scope.cancel()
        self._owner.sink_failed(self)


def _too_late() -> SinkError:
    return SinkError("deadline", "the sink did not finish before the deadline")


def _sink_error(error: BaseException) -> SinkError | None:
    """Find the sink's own word in what its task groups may have wrapped around it."""
    if isinstance(error, SinkError):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next((found for each in error.exceptions if (found := _sink_error(each)) is not None), None)
    return None
