"""What is played into a call while the call is carried.

A reply is a second session beside the call's own: its source and its transforms are those below ``reply:``, and its one
sink is the speaker that the source of the call offers for it::

    call    source ── push ──▶ transforms ──▶ sinks
              ▲                    │
    reply   speaker ◀── queue ◀── transforms ◀── source        stopped by SpeechStarted, if barge_in says so

It begins with the call, in tasks of the runner, and cannot harm it: whatever becomes of it is in its own account, under
``reply`` in the account of the call.  It ends as one of these::

    complete     the carrier confirmed that all of it was played
    barge-in     the caller spoke
    call-ended   the call was over first
    failed       it could not be read, or played, or nobody confirmed it, or this call cannot be spoken to

What had not been confirmed by then is booked as dropped, under the same word or under what failed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from . import graph
from .component import Sink
from .config import Reply
from .delivery.edge import Edge
from .errors import MediaflowError, SessionError, SinkError, SourceError
from .frame import SpeechStarted, Stream
from .session import Facts, Held, LiveSession

if TYPE_CHECKING:
    from .runner import Runner

logger = logging.getLogger(__name__)


class LiveReply:
    """The reply of one call.  It is the ``Engine`` that the reply's source sees."""

    replies = False
    state = None

    def __init__(
        self,
        reply: Reply,
        call: LiveSession,
        runner: Runner,
    ) -> None:
        self.over = anyio.Event()
        """Set when it has ended and its account is settled."""
        self._reply, self._call = reply, call
        self._decided = anyio.Event()  # whether this call can be spoken to
        self._speaker: Sink | None = None
        self._runner = runner
        self._front = anyio.CancelScope()
        self._session: LiveSession | None = None
        self._stopped = ""
        self._error = ""

    # What the runner and the call do with it.

    async def run(self) -> None:
        """Play to the end, whatever that is.  Raises only if cancelled."""
        try:
            await self._decided.wait()
            if self._speaker is None:
                self._error = "this call cannot be spoken to"
            else:
                self._reply = msgspec.structs.replace(self._reply, sinks=(self._speaker,))
                await self._serve()
        finally:
            self.over.set()
            status = self._status()
            self._call.note("ReplyEnded", status=status)
            if status == "failed":
                self._runner.count("reply-failed")
                logger.error("call %s: the reply failed: %s", self._call.stream.id, self._why())
            else:
                logger.info("call %s: the reply has ended: %s", self._call.stream.id, status)

    def offer(self, speaker: Sink | None) -> None:
        """Begin to play into ``speaker``, if the call has not ended."""
        self._speaker = speaker
        self._decided.set()

    def hear(self, event: SpeechStarted) -> None:
        """Take note that somebody speaks: if it is the caller, a reply that minds is cut off."""
        if self._reply.barge_in and self._session is not None and event.track != "outbound":
            self._stop("barge-in", "the caller spoke")

    def end(self) -> None:
        """Take note that the call is over: a reply that still plays is cut off."""
        self._stop("call-ended", "the call is over")
        self._decided.set()

    def account(self) -> dict[str, Any]:
        """Return the ledger of the reply as it stands; without tracks and sinks while nothing has come of it."""
        keys = ("sample_rate", "tracks", "sinks")
        figures = {} if self._session is None else self._session.account()
        empty: dict[str, Any] = {"sample_rate": 0, "tracks": {}, "sinks": []}
        return {"status": self._status(), "error": self._why(), **{key: figures.get(key, empty[key]) for key in keys}}

    # What its source calls.

    def open(self, stream: Stream) -> Held:
        return Held(partial(self._begin, stream))

    def _begin(self, stream: Stream) -> LiveSession:
        if self._session is not None:
            raise SourceError("its source brings a second stream, and a reply is one")
        plan = graph.plan(self._reply, stream.format, stream.tracks)
        stream = msgspec.structs.replace(stream, id=self._call.stream.id)
        session = self._session = LiveSession(self._reply, plan, stream, self)
        self._call.note("ReplyStarted")
        session.open_sinks()
        return session

    def listening(self, url: str) -> None:
        raise SourceError("its source takes connections, and a reply is one stream")

    def count(self, name: str, number: int = 1) -> None:
        self._runner.count(name, number)

    # The rest of its life.

    def _stop(self, code: str, text: str) -> None:
        """Cut the reply off, if it still plays, and book the rest of it under ``code``."""
        if self.over.is_set() or self._stopped:
            return
        self._stopped = code
        if self._session is not None and not self._session.finished.is_set():
            for edge in self._session.edges:
                edge.stop(SinkError(code, text))
        self._front.cancel()

    async def _serve(self) -> None:
        async with anyio.create_task_group() as self._tasks:
            try:
                with self._front:
                    await self._reply.source.serve(self)
                if self._session is None and not self._stopped:
                    self._error = "its source brought no stream"
            except SessionError:
                pass  # why nobody takes the audio any more is with the sink, or in the session
            except Exception as error:  # the border of the reply: its fault is not the call's
                self._error = str(error) if isinstance(error, MediaflowError) else f"{type(error).__name__}: {error}"

    # What its session asks for and tells.

    def start(self, work: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
        self._tasks.start_soon(work, *args)

    def sinks_over(self, session: LiveSession) -> None:
        session.finished.set()

    def sink_failed(self, session: LiveSession, edge: Edge) -> None:
        if not self._stopped:
            self._runner.sink_failed(self._call, edge)

    def noted(self, session: LiveSession, name: str, facts: Facts) -> None:
        """Nothing is on record of a reply by itself."""

    def amended(self, account: dict[str, Any]) -> None:
        """Nor is its account amended."""

    def _status(self) -> str:
        if not self.over.is_set():
            return "live"
        failure = self._failure()
        if self._error or (failure is not None and failure.code != self._stopped):
            return "failed"
        if failure is not None or self._session is None:
            return self._stopped or "failed"
        return "failed" if self._session.broke else "complete"

    def _why(self) -> str:
        """Say what failed."""
        failure = self._failure()
        if failure is not None and failure.code != self._stopped:
            return self._error or str(failure)
        return self._error or (self._session.error if self._session is not None and failure is None else "")

    def _failure(self) -> SinkError | None:
        return None if self._session is None else self._session.edges[0].failure
