"""What ``eka_raw`` and ``eka_json`` share: the stream of a session, over a WebSocket.

    connect → audio … → stop → the SERVER closes
                          └ what it still holds is stored before it closes: the close is the receipt

    left how                      stop, then wait        raises
    normally                      ``close_timeout_s``    —
    … the server does not close   all of it              ``not-closed``, once the result is there
    … it closed too early         —                      ``stream-lost``, ``stream-unknown``
    by an exception               ``ABORT_S``            that exception

A stream cannot be taken up again: the service forgets its id when the socket closes.

``delivered`` follows the pongs: the peer answers a ping once it has read what came before it, so the pong says that it
holds this much.  One ping a second is enough to know where a broken stream has to be continued.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

import anyio
from msgspec import Meta

from mediaflow import AudioFormat, AudioFrame, Item, SinkError, eka, envelope, http, websocket
from mediaflow.websocket import Closed, WebSocket

from ._eka_session import ABORT_S, EkaSink, EkaWriter, is_loopback

MARK_S = 1.0
"""How often a ping asks how far the service has read."""

UNKNOWN_STREAM = 4000
"""The close code for a stream id that is not known, or was used already."""

_RECEIPTS = (1000, 1005)
"""Close codes, with 1005 for none, that say that everything is stored."""


class EkaStream(EkaSink, frozen=True):
    """The options of both sinks."""

    upload_type: ClassVar[Literal["stream", "chunked"]] = "stream"

    message_ms: Annotated[int, Meta(ge=20, le=1000, description="audio per message, in ms")] = 100
    trailing_silence_ms: Annotated[
        int, Meta(ge=0, le=5000, description="silence sent behind the last sample, in ms; it is not booked as audio")
    ] = 0
    close_timeout_s: Annotated[
        float, Meta(ge=30, description="how long the service may take to store the last audio and close")
    ] = 60.0

    @abstractmethod
    def start_message(self, format: AudioFormat) -> str | None:
        """Return what goes before the audio."""

    @abstractmethod
    def audio_message(self, pcm: bytes) -> str | bytes:
        """Return a message that holds ``pcm``."""

    @asynccontextmanager
    async def carry(
        self, client: eka.EkaClient, session: eka.Session, format: AudioFormat, longest_s: float | None
    ) -> AsyncIterator[EkaWriter]:
        async with _connect(session) as socket:
            writer = _Writer(self, session, socket, format, longest_s)
            try:
                await writer.begin()
                async with writer.attended():
                    yield writer
            except BaseException:
                with anyio.move_on_after(ABORT_S, shield=True):
                    await writer.abort()
                raise
            await writer.finish()


@asynccontextmanager
async def _connect(session: eka.Session) -> AsyncIterator[WebSocket]:
    """Connect to where the session takes its audio; the URL is a capability and shows up in no error."""
    import stamina

    url = session.upload_url.reveal()
    parts = urlsplit(url)
    secure = parts.scheme == "wss"
    if not secure and not (parts.scheme == "ws" and is_loopback(parts)):
        raise SinkError("session-refused", f"session {session.id}: its upload_url is not a wss:// address")
    async with AsyncExitStack() as stack:
        try:
            # A try that failed has not used the stream id up, so it can be made again.
            async for attempt in stamina.retry_context(on=websocket.Unreachable, attempts=3, timeout=20.0):
                with attempt:
                    connecting = websocket.connect(url, tls=http.default_tls() if secure else None)
                    socket = await stack.enter_async_context(connecting)
        except websocket.Unreachable as error:
            raise SinkError("unreachable", f"session {session.id}: {error}") from None
        except websocket.Refused as error:
            raise SinkError("stream-refused", f"session {session.id}: HTTP {error.status} for the stream") from None
        yield socket


class _Writer(EkaWriter):
    def __init__(
        self, sink: EkaStream, session: eka.Session, socket: WebSocket, format: AudioFormat, longest_s: float | None
    ) -> None:
        super().__init__(session, format, sink.model, longest_s)
        self._sink, self._socket = sink, socket
        self._size = format.sample_rate * sink.message_ms // 1000 * format.sample_bytes
        self._pending = bytearray()
        self._sending = False

    def write_nowait(self, item: Item) -> bool:
        if not isinstance(item, AudioFrame):
            return True
        size = self._size
        if len(self._pending) + len(item.data) < size:
            self._pending += item.data
            return True
        data = bytes(self._pending) + item.data
        done = 0
        while len(data) - done >= size:
            if not self._socket.send_nowait(self._sink.audio_message(data[done : done + size])):
                break
            done += size
            self._count(self._format.sample_count(data[:size]))
        if not done:
            return False
        self._pending = bytearray(data[done:])
        return True

    async def write(self, item: Item) -> None:
        if isinstance(item, AudioFrame):
            self._pending += item.data
            while len(self._pending) >= self._size:
                await self._send_audio(self._size)

    async def begin(self) -> None:
        """Send what goes before the audio."""
        start = self._sink.start_message(self._format)
        if start is not None:
            await self._send(start)

    @asynccontextmanager
    async def attended(self) -> AsyncIterator[None]:
        """Notice, while audio is written, that the service closes, and how far it has read."""
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._socket.wait_closed)
            tasks.start_soon(self._mark)
            try:
                yield
            except Exception as error:
                failure = error  # raised again where the task group does not wrap it
            finally:
                tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def finish(self) -> None:
        """Send the rest and ``stop``, and wait for the close that says that all is stored.

        Raises ``SinkError`` if the stream is lost.
        """
        while self._pending:
            await self._send_audio(min(self._size, len(self._pending)))
        silence = self._format.silence(self._format.sample_rate * self._sink.trailing_silence_ms // 1000)
        for start in range(0, len(silence), self._size):
            await self._send(self._sink.audio_message(silence[start : start + self._size]))
        await self._send(envelope.build_eka_stop())
        with anyio.move_on_after(self._sink.close_timeout_s):
            closed = await self._socket.wait_closed()
            if closed.by != "peer" or closed.code not in _RECEIPTS:
                raise self._lost(closed)
            self._delivered = self._sent
            return
        timeout = self._sink.close_timeout_s
        self.doubt = SinkError("not-closed", f"the service did not close the stream within {timeout:g} s of stop")

    async def abort(self) -> None:
        """Send ``stop`` and wait for the close, if the stream is still whole."""
        if not self._sending:
            with suppress(Closed):
                await self._socket.send(envelope.build_eka_stop())
                await self._socket.wait_closed()

    async def _mark(self) -> None:
        with suppress(Closed):
            while True:
                await anyio.sleep(MARK_S)
                sent = self._sent
                if sent > self._delivered:
                    await self._socket.ping()
                    self._delivered = sent

    async def _send_audio(self, size: int) -> None:
        pcm = bytes(self._pending[:size])
        await self._send(self._sink.audio_message(pcm))
        del self._pending[:size]
        self._count(self._format.sample_count(pcm))

    async def _send(self, message: str | bytes) -> None:
        self._sending = True
        try:
            await self._socket.send(message)
        except Closed as closed:
            raise self._lost(closed) from None
        self._sending = False

    def _lost(self, closed: Closed) -> SinkError:
        if closed.code == UNKNOWN_STREAM:
            return SinkError("stream-unknown", "the service does not know the stream, or has seen it before (4000)")
        return SinkError(
            "stream-lost",
            f"the stream was closed early with code {closed.code} ({closed.by}): of {self._sent} samples sent, "
            f"{self._delivered} are confirmed",
        )
