"""The stream of a session: audio over a WebSocket.

::

    async with eka.stream.connect(session, 8000) as stream:
        await stream.send(pcm)         # s16le, mono
    await client.end(session.id)       # the service has closed: everything is stored

    connect [→ start] → audio … → stop → the SERVER closes
                                    └ what it still holds is stored before it closes: the close is the receipt

With a rate the audio goes in JSON, behind a ``start`` that says the rate; without one as raw PCM, which the service
takes for 16000 Hz.  A stream cannot be taken up again: the service forgets its id when the socket closes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import anyio
from anyio.abc import TaskGroup

from .. import envelope, http, websocket
from ..websocket import Address, Closed, WebSocket
from .model import EkaError, Session

CLOSE_S = 60.0
"""How long the service may take to store the last audio and close; its own client waits 10 s and loses some."""

ABORT_S = 5.0
"""How long an end by exception may take."""

UNKNOWN_STREAM = 4000
"""The close code for a stream id that is not known, or was used already."""

_RECEIPTS = (1000, 1005)
"""Close codes, with 1005 for none, that say that everything is stored."""


class AudioStream:
    """An open stream; get one from ``connect``.  One task may send at a time."""

    __slots__ = ("_finished", "_rate", "_sending", "_socket", "send_nowait")

    def __init__(self, socket: WebSocket, sample_rate: int | None) -> None:
        self._socket, self._rate = socket, sample_rate
        self._sending = self._finished = False
        self.send_nowait: Callable[[bytes], bool] = socket.send_nowait if sample_rate is None else self._send_json
        """Send whole samples if that needs no waiting, else return False."""
        socket.ignore()

    async def send(self, pcm: bytes) -> None:
        """Send whole samples, waiting for room; raise ``EkaError`` (``stream-lost``, ``stream-unknown``)."""
        await self._send(self._message(pcm))

    async def closed(self) -> None:
        """Wait until the service closes, which it should not do before ``finish``."""
        await self._socket.wait_closed()

    def mark(self) -> int:
        """Ask how far the service has read, by a ping, which it answers then; return the number of what was asked.

        The ping leaves with the next audio, or with ``press``.
        """
        with suppress(Closed):
            return self._socket.ping_along()
        return self.reached + 1  # never

    def press(self) -> None:
        """Ask now what was asked and has not left yet."""
        self._socket.push_along()

    async def confirmed(self) -> None:
        """Wait until the service has read all that was sent; raise ``EkaError`` if the stream ends before."""
        try:
            await self._socket.ping()
        except Closed as closed:
            raise self._lost(closed) from None

    @property
    def reached(self) -> int:
        """The number of the last mark that is answered: the service has read what was sent before it."""
        return self._socket.ponged

    async def finish(self, timeout_s: float = CLOSE_S) -> None:
        """Send ``stop`` and wait for the close that says that all is stored.

        Raises ``EkaError``: ``stream-lost`` or ``stream-unknown`` if it is not, ``not-closed`` if nobody knows.
        """
        self._finished = True
        code = 1001
        try:
            await self._send(envelope.build_eka_stop())
            await self._receipt(timeout_s)
            code = 1000
        finally:
            await self._socket.leave(code)

    async def _receipt(self, timeout_s: float) -> None:
        with anyio.move_on_after(timeout_s):
            closed = await self._socket.wait_closed()
            if closed.by != "peer" or closed.code not in _RECEIPTS:
                raise self._lost(closed)
            return
        raise EkaError("not-closed", f"the service did not close the stream within {timeout_s:g} s of stop")

    async def begin(self) -> None:
        """Send what goes before the audio."""
        if self._rate is not None:
            await self._send(envelope.build_eka_start(self._rate))

    async def abort(self) -> None:
        """Give up quickly: send ``stop`` and wait a little for the close, if the stream is still whole."""
        try:
            if not self._sending and not self._finished:
                with anyio.move_on_after(ABORT_S, shield=True), suppress(Closed):
                    await self._socket.send(envelope.build_eka_stop())
                    await self._socket.wait_closed()
        finally:
            await self._socket.leave(1001)

    @property
    def finished(self) -> bool:
        """True once ``finish`` was called."""
        return self._finished

    def _message(self, pcm: bytes) -> str | bytes:
        return pcm if self._rate is None else envelope.build_eka_media(pcm)

    def _send_json(self, pcm: bytes) -> bool:
        return self._socket.send_nowait(envelope.build_eka_media(pcm))

    async def _send(self, message: str | bytes) -> None:
        self._sending = True
        try:
            await self._socket.send(message)
        except Closed as closed:
            raise self._lost(closed) from None
        self._sending = False

    def _lost(self, closed: Closed) -> EkaError:
        if closed.code == UNKNOWN_STREAM:
            return EkaError("stream-unknown", "the service does not know the stream, or has seen it before (4000)")
        return EkaError("stream-lost", f"the stream was closed early with code {closed.code} ({closed.by})")


@asynccontextmanager
async def connect(session: Session, sample_rate: int | None = None) -> AsyncIterator[AudioStream]:
    """Open the stream of ``session``; leaving it normally finishes it, leaving it by an exception gives up quickly.

    Raises ``EkaError``; the address is a capability and shows up in none.
    """
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        try:
            stream = await open_in(tasks, session, sample_rate)
            try:
                yield stream
            except BaseException:
                await stream.abort()
                raise
            if not stream.finished:
                await stream.finish()
        except Exception as error:
            failure = error  # raised again where the task group does not wrap it
    if failure is not None:
        raise failure


async def open_in(tasks: TaskGroup | None, session: Session, sample_rate: int | None = None) -> AudioStream:
    """Open the stream of ``session``, to be ended with ``finish`` or ``abort`` in whatever task; raises as ``connect``.

    ``tasks`` is where the connection is read if that takes a task (``websocket.reads_in_tasks``).
    """
    socket = await _connect(tasks, session)
    stream = AudioStream(socket, sample_rate)
    try:
        await stream.begin()
    except BaseException:
        await stream.abort()
        raise
    return stream


async def _connect(tasks: TaskGroup | None, session: Session) -> WebSocket:
    import stamina

    url = session.upload_url.reveal()
    parts = urlsplit(url)
    secure = parts.scheme == "wss"
    loopback = Address(parts.scheme, parts.hostname or "", 0, "").is_loopback
    if not secure and not (parts.scheme == "ws" and loopback):
        raise EkaError("session-refused", f"session {session.id}: its upload_url is not a wss:// address")
    try:
        # A try that failed has not used the stream id up, so it can be made again.
        async for attempt in stamina.retry_context(on=websocket.Unreachable, attempts=3, timeout=20.0):
            with attempt:
                return await websocket.connect_in(tasks, url, tls=http.default_tls() if secure else None)
    except websocket.Unreachable as error:
        raise EkaError("unreachable", f"session {session.id}: {error}") from None
    except websocket.Refused as error:
        raise EkaError("stream-refused", f"session {session.id}: HTTP {error.status} for the stream") from None
    raise AssertionError("stamina ends by returning or raising")
