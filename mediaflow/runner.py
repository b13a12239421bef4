"""A pipeline at work: its source, its calls, its ledger, and how it stops.

The sinks of a call wait in tasks of the runner's group, not in the task that the source reads in, and so they outlive
it: to stop, the source alone is cancelled.  That closes the front of every call; what is under way flows through, and
each sink finishes as it would have.  Only what has not finished ``drain_s`` seconds later is cut off, and booked.

    stop()  →  source cancelled  →  sessions end  →  sinks finish  →  run() returns
                                                        └ after drain_s, or at a second stop(): cut off
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import anyio

from . import graph
from .config import Pipeline
from .delivery.account import has_failed
from .delivery.edge import Edge
from .delivery.ledger import Ledger
from .delivery.snapshots import Snapshots
from .errors import FormatError, SessionError, SourceError
from .frame import Stream
from .plugins import Plugins
from .reply import LiveReply
from .session import Facts, Held, LiveSession

logger = logging.getLogger(__name__)

KEPT = 1000
"""How many accounts of calls that are over the runner keeps in memory, and for a ledger that cannot be written."""

PLANS = 64
"""How many formats the way through the pipeline is kept of; carriers have a few each."""

SNAPSHOT_S = 1.0
"""How often the ledger on disk is brought up to date."""


class Runner:
    """Runs one pipeline once.  It is the ``Engine`` that the source sees."""

    def __init__(self, pipeline: Pipeline, plugins: Plugins) -> None:
        graph.check(pipeline)
        self.pipeline = pipeline
        self.sessions: dict[str, LiveSession] = {}
        self.accounts: list[dict[str, Any]] = []
        """The accounts of the last ``KEPT`` calls that are over."""
        self.counts: dict[str, int] = {}
        self.ended = self.failed = 0
        self.url = ""
        self.up = anyio.Event()
        self._over = anyio.Event()
        self._plugins = plugins
        self._plan = lru_cache(PLANS)(partial(graph.plan, pipeline))  # immutable, and all calls of a format share it
        self._unwritten: list[dict[str, Any]] = []
        """Accounts of calls that are over which the ledger does not have as they are."""
        self.state = Path(pipeline.state)
        self._ledger = Ledger(self.state, pipeline.name)
        self._snapshots = Snapshots(self._ledger, self.sessions)
        self._front = anyio.CancelScope()

    async def run(self) -> None:
        """Run until the source has no more streams or ``stop`` is called, and every call is finished.

        Raises ``SourceError`` (or what the source raised) if the source failed; calls that failed are in ``accounts``.
        """
        try:
            async with anyio.create_task_group() as self._tasks:
                self._tasks.start_soon(self._keep_ledger)
                try:
                    with self._front, suppress(SessionError):  # that is in the account of its call
                        await self.pipeline.source.serve(self)
                finally:
                    self._limit()
                    with anyio.CancelScope(shield=True):
                        await self._drain()
                        await self._bring_up_to_date()
                self._tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            error = _single(group)
            if error is None:
                raise
            raise error from group
        finally:
            self._ledger.close()

    @property
    def name(self) -> str:
        """The name of the pipeline."""
        return self.pipeline.name

    def live(self, number: int) -> list[dict[str, Any]]:
        """Return the accounts of the first ``number`` calls that are live."""
        return [session.account() for session in islice(self.sessions.values(), number)]

    async def over(self, number: int) -> None:
        """Wait until ``number`` calls are over."""
        while self.ended < number:
            await self._over.wait()

    def stop(self) -> None:
        """Close the front and let the end flow through; a second time, cut off what has not finished."""
        if self._front.cancel_called:
            for session in self.sessions.values():
                session.limit(anyio.current_time())
        self._front.cancel()
        self._limit()

    def _limit(self) -> None:
        deadline = anyio.current_time() + self.pipeline.drain_s
        for session in self.sessions.values():
            session.limit(deadline)

    async def _drain(self) -> None:
        while self.sessions:
            await next(iter(self.sessions.values())).finished.wait()

    # What the source calls.

    @property
    def replies(self) -> bool:
        return self.pipeline.reply is not None

    def open(self, stream: Stream) -> Held:
        return Held(partial(self._begin, stream))

    def _begin(self, stream: Stream) -> LiveSession:
        if stream.id in self.sessions:
            raise SourceError(f"call {stream.id} is already open")
        try:
            session = LiveSession(self.pipeline, self._plan(stream.format, stream.tracks), stream, self)
        except FormatError:
            self.count("refused-format")
            raise
        self.sessions[stream.id] = session
        self._tell("session_started", stream=stream)
        session.open_sinks()
        if self.pipeline.reply is not None:
            session.reply = LiveReply(self.pipeline.reply, session, self)
            self._tasks.start_soon(session.reply.run)
        return session

    def listening(self, url: str) -> None:
        self.url = url
        self.up.set()
        self._tell("source_listening", url=url)

    def count(self, name: str, number: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + number
        self._tell("counted", name=name, number=number)

    # The rest of a call's life.

    def start(self, work: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
        self._tasks.start_soon(work, *args)

    def sinks_over(self, session: LiveSession) -> None:
        self._tasks.start_soon(self._settle, session)

    async def _settle(self, session: LiveSession) -> None:
        """Settle the account of a call whose sinks are over."""
        with anyio.CancelScope(shield=True):
            if session.reply is not None:
                await session.reply.over.wait()
            account = session.settled = session.account()
            with self._on_disk(account):
                await self._ledger.write([account])
        # From here on without waiting: whoever counts calls sees each either as live or as over.
        del self.sessions[session.stream.id]
        self.ended += 1
        self.failed += has_failed(account)
        self.accounts = [*self.accounts[1 - KEPT :], account]
        self._tell("session_ended", account=account)
        session.finished.set()
        self._over.set()
        self._over = anyio.Event()

    async def _keep_ledger(self) -> None:
        while True:
            await anyio.sleep(SNAPSHOT_S)
            await self._bring_up_to_date()

    async def _bring_up_to_date(self) -> None:
        """Give the ledger what it does not have: of calls that are over, and of those that live."""
        accounts, self._unwritten = self._unwritten, []
        with self._on_disk(*accounts):
            await self._ledger.write(accounts)
        with self._on_disk():
            await self._snapshots.update()

    @contextmanager
    def _on_disk(self, *over: dict[str, Any]) -> Iterator[None]:
        """Go on if the disk fails, for it must not end calls that need none; what is ``over`` is written later."""
        try:
            yield
        except sqlite3.Error as error:
            self._unwritten = [*over, *self._unwritten][-KEPT:]
            self.count("ledger-unwritten")
            logger.error("the ledger in %s cannot be written: %s", self.pipeline.state, error)

    # What the sessions tell.

    def sink_failed(self, session: LiveSession, edge: Edge) -> None:
        assert edge.failure is not None
        self._tell("sink_failed", stream=session.stream, sink=edge.label, code=edge.failure.code)

    def noted(self, session: LiveSession, name: str, facts: Facts) -> None:
        self._tell("noted", stream=session.stream, name=name, facts=facts)

    def amended(self, account: dict[str, Any]) -> None:
        self._unwritten.append(account)

    def _tell(self, hook: str, **news: Any) -> None:
        try:
            getattr(self._plugins.hook, hook)(pipeline=self.pipeline.name, **news)
        except Exception:  # a listener's fault is not the call's
            logger.exception("a plugin broke in the hook %s", hook)


def _single(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """Unwrap what a task group wrapped around one error."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        if len(error.exceptions) != 1:
            return None
        error = error.exceptions[0]
    return error
