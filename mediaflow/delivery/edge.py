"""The one queue of a pipeline: between the transforms, which never wait, and a sink, which may.

A frame goes straight into the sink where the sink takes it without waiting and nothing stands in front of it; only
then is there no queue, no task switch, no copy.  Otherwise it waits here, bounded in milliseconds of audio.  What
happens at the bound is the sink's ``when_full``::

    block         the source is asked to wait; one that cannot loses what exceeds twice the bound, booked
    drop_oldest   what has waited longest is dropped, booked

A sink that fails loses its own audio, booked under the code of its failure, and nobody else's.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import anyio

from ..component import Note, Sink, Writer
from ..errors import SinkError
from ..frame import AudioFormat, AudioFrame, Item, Stream
from .account import SinkAccount

logger = logging.getLogger(__name__)


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
        failed: Callable[[Edge], None],
        note: Note,
    ) -> None:
        self.label, self.account = label, account
        self.failure: SinkError | None = None
        self.outcome: Mapping[str, Any] = {}
        self._sink, self._stream, self._format, self._tracks = sink, stream, format, tracks
        self._failed, self._note = failed, note
        self._bound = sink.queue_ms * format.sample_rate * len(tracks) // 1000
        self._queue: deque[Item] | None = None  # made when something has to wait: an empty one takes 760 bytes
        self._queued = 0
        self._blocks = sink.when_full == "block"
        self._writer: Writer | None = None
        self._busy = True
        self._closing = False
        self._scope = anyio.CancelScope(shield=True)
        self._work: anyio.Event | None = None  # while the sink's task has nothing to do
        self._room: anyio.Event | None = None  # once the source had to wait

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
        if not self._busy and self._writer is not None:
            try:
                if self._writer.write_nowait(item):
                    if frame is not None:
                        self.account.write(frame)
                    return
            except Exception as error:  # the sink's fault must not become the source's
                self._fail(error)
                self._scope.cancel()
                self.put(item)
                return
        self._enqueue(item, frame)

    def _enqueue(self, item: Item, frame: AudioFrame | None) -> None:
        if frame is not None:
            if self._queued > 2 * self._bound and self._blocks:
                self.account.drop(frame, "queue-full")
                return
            self._queued += frame.sample_count
        if self._queue is None:
            self._queue = deque()
        self._queue.append(item)
        self._busy = True
        self._tell_work()
        if self._queued > self._bound and not self._blocks:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        kept: deque[Item] = deque()
        while self._queued > self._bound and self._queue:
            item = self._queue.popleft()
            if isinstance(item, AudioFrame):
                self.account.drop(item, "queue-full")
                self._queued -= item.sample_count
            else:
                kept.append(item)
        if self._queue is not None:
            self._queue.extendleft(reversed(kept))

    async def room(self) -> None:
        """Wait while the queue is full."""
        while self.full():
            if self._room is None or self._room.is_set():
                self._room = anyio.Event()
            await self._room.wait()

    def close(self) -> None:
        """Say that nothing more will come."""
        self._closing = True
        self._tell_work()

    def confirm(self) -> None:
        """Bring the account up to what the writer says."""
        if self._writer is not None:
            self.account.confirm(self._writer.delivered)
            self.outcome = dict(self._writer.outcome)

    def stop(self, failure: SinkError) -> None:
        """Cut the sink off: what it is not known to have delivered is booked under the code of ``failure``.

        One that has delivered all there is needs no more than to leave, and does so by itself.
        """
        self.confirm()
        if self._closing and not self._queue and self.account.is_delivered:
            return
        self._give_up(failure)
        self._scope.cancel()

    def limit(self, deadline: float) -> None:
        """Cut the sink off at that time, unless it is to be cut off before; what is left is booked as ``deadline``."""
        self._scope.deadline = min(self._scope.deadline, deadline)

    async def run(self) -> None:
        """Open the sink, feed it until ``close``, finish it, and settle the account.

        It is shielded: only ``stop`` and ``limit`` end it earlier.
        """
        reason = "unconfirmed"
        try:
            with self._scope:
                await anyio.lowlevel.checkpoint_if_cancelled()  # one that was stopped already is not opened
                async with self._sink.open(self._stream, self._format, self._tracks) as writer:
                    self._writer = writer
                    writer.note = self._note
                    await self._feed(writer)
            if self._scope.cancelled_caught:
                self._give_up(SinkError("deadline", "the sink did not finish before the deadline"))
        except Exception as error:  # the engine's border: a sink's fault ends that sink alone
            self._fail(error)
        finally:
            self.confirm()
            if self.failure is not None:
                reason = self.failure.code
            self._drain(reason)
            self.account.close(reason)
            self._tell_room()

    async def _feed(self, writer: Writer) -> None:
        while True:
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
                return
            self._work = anyio.Event()
            await self._work.wait()

    def _tell_work(self) -> None:
        if self._work is not None:
            self._work.set()

    def _tell_room(self) -> None:
        if self._room is not None:
            self._room.set()

    def _drain(self, reason: str) -> None:
        while self._queue:
            item = self._queue.popleft()
            if isinstance(item, AudioFrame):
                self.account.drop(item, reason)
        self._queued = 0

    def _fail(self, error: Exception) -> None:
        failure = _sink_error(error)
        if failure is None:
            logger.exception("%s broke in call %s", self.label, self._stream.id, exc_info=error)
            failure = SinkError("broken", f"{type(error).__name__}: {error}")
        else:
            logger.error("%s failed in call %s: %s: %s", self.label, self._stream.id, failure.code, failure)
        self._give_up(failure)

    def _give_up(self, failure: SinkError) -> None:
        if self.failure is None:
            self.failure = failure
            self._drain(failure.code)
            self._tell_room()
            self._failed(self)


def _sink_error(error: BaseException) -> SinkError | None:
    """Find the sink's own word in what its task groups may have wrapped around it."""
    if isinstance(error, SinkError):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next((found for each in error.exceptions if (found := _sink_error(each)) is not None), None)
    return None
