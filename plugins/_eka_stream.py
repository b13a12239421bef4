"""What ``eka_raw`` and ``eka_json`` share: a session of EkaScribe from its creation to its result.

The order is the service's, and anything earlier loses words::

    create session → connect → audio … → stop → the SERVER closes → end session → poll → result
                                          │                          └ lists what is stored at this moment
                                          └ what it still holds is stored before it closes: the close is the receipt

How the ways out differ::

    left how                      stop, then wait        end           result    raises
    normally                      ``close_timeout_s``    yes           yes       —
    … the server does not close   all of it              yes           yes       ``not-closed``
    … it closed too early         —                      quickly       no        ``stream-lost``, ``stream-unknown``
    by an exception               ``ABORT_S``            quickly       no        that exception

So audio that arrived is processed even when a call is cut off.  A stream cannot be taken up again: the service forgets
its id when the socket closes.

``delivered`` follows the pongs: the peer answers a ping once it has read what came before it, so the pong says that it
holds this much.  One ping a second is enough to know where a broken stream has to be continued.
"""

from __future__ import annotations

import logging
import os
from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import msgspec
from msgspec import Meta

from mediaflow import (
    AudioFormat,
    AudioFrame,
    FormatError,
    Item,
    PathTemplate,
    Secret,
    Sink,
    SinkError,
    Stream,
    Writer,
    eka,
    envelope,
    http,
    websocket,
)
from mediaflow.websocket import Address, Closed, WebSocket

logger = logging.getLogger(__name__)

MARK_S = 1.0
"""How often a ping asks how far the service has read."""

ABORT_S = 5.0
"""How long each step of an end by exception may take."""

UNKNOWN_STREAM = 4000
"""The close code for a stream id that is not known, or was used already."""

_RECEIPTS = (1000, 1005)
"""Close codes, with 1005 for none, that say that everything is stored."""


class EkaStream(Sink, frozen=True):
    """The options of both sinks."""

    base_url: Annotated[str, Meta(description="address of the service; https beyond loopback")] = eka.BASE_URL
    token: Annotated[Secret, Meta(description="long-lived token of the service, instead of a client id")] = Secret("")
    client_id: Annotated[str, Meta(description="client id to log in with")] = ""
    client_secret: Annotated[Secret, Meta(description="secret of the client id")] = Secret("")
    model: Annotated[str, Meta(description="pro takes an hour and ten languages, lite ten minutes, en and hi")] = "pro"
    session_mode: Annotated[str, Meta(description="consultation or dictation")] = "consultation"
    templates: Annotated[tuple[str, ...], Meta(max_length=2, description="ids of the documents to be made")] = (
        "clinical_notes_template",
    )
    language_hint: Annotated[tuple[str, ...], Meta(description="languages spoken, or auto_detect")] = ("auto_detect",)
    message_ms: Annotated[int, Meta(ge=20, le=1000, description="audio per message, in ms")] = 100
    trailing_silence_ms: Annotated[
        int, Meta(ge=0, le=5000, description="silence sent behind the last sample, in ms; it is not booked as audio")
    ] = 0
    close_timeout_s: Annotated[
        float, Meta(ge=30, description="how long the service may take to store the last audio and close")
    ] = 60.0
    poll_s: Annotated[float, Meta(gt=0, description="least time between two questions for the result")] = 1.0
    result_timeout_s: Annotated[float, Meta(gt=0, description="how long the service may take for the result")] = 600.0
    results: Annotated[PathTemplate, Meta(description="file that the result is written to")] = PathTemplate(
        "mediaflow-data/results/{call_id}/{session_id}.json"
    )

    def check(self) -> None:
        parts = urlsplit(self.base_url)
        if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts))):
            raise ValueError(f"base_url {self.base_url!r} is not an https:// address; only loopback may do without TLS")
        pair = bool(self.client_id), bool(self.client_secret)
        if self.token and any(pair):
            raise ValueError("give either token or client_id with client_secret, not both")
        if not self.token and not all(pair):
            raise ValueError(
                "give token (EKA_TOKEN), or client_id and client_secret (EKA_CLIENT_ID, EKA_CLIENT_SECRET)"
            )

    def require(self, format: AudioFormat, tracks: tuple[str, ...], rates: Sequence[int]) -> None:
        """Raise ``FormatError``, with the step that is missing, unless this is mono 16-bit PCM at one of ``rates``."""
        if format.encoding != "s16le":
            raise FormatError(f"takes s16le, not {format.encoding}", f"add `- use: {format.encoding}_decode` before it")
        if len(tracks) > 1:
            raise FormatError(f"takes one track, not {' and '.join(tracks)}", "add `- use: mix` before it")
        if format.channels > 1:
            raise FormatError("takes mono, not stereo", "use `- use: mix` instead of `- use: stereo`")
        if format.sample_rate not in rates:
            raise FormatError(
                f"takes {' or '.join(map(str, rates))} Hz, not {format.sample_rate}",
                f"add `- use: resample` with `rate: {rates[0]}` before it",
            )

    @abstractmethod
    def start_message(self, format: AudioFormat) -> str | None:
        """Return what goes before the audio."""

    @abstractmethod
    def audio_message(self, pcm: bytes) -> str | bytes:
        """Return a message that holds ``pcm``."""

    @asynccontextmanager
    async def open(self, stream: Stream, format: AudioFormat, tracks: tuple[str, ...]) -> AsyncIterator[Writer]:
        self.check_format(format, tracks)
        credentials = eka.Credentials(self.token, self.client_id, self.client_secret)
        async with eka.connect(self.base_url, credentials) as client:
            session = await client.create(self._request(stream))
            logger.info("call %s: EkaScribe session created", stream.id)
            ended = False
            try:
                async with _connect(session) as socket:
                    writer = _Writer(self, socket, format)
                    writer.outcome = {"session_id": session.id, "status": "streaming"}
                    try:
                        await writer.begin()
                        async with writer.attended():
                            yield writer
                    except BaseException:
                        with anyio.move_on_after(ABORT_S, shield=True):
                            await writer.abort()
                        raise
                    unclosed = await writer.finish()
                ended = True
                await client.end(session.id)
            except BaseException:
                if not ended:
                    with anyio.move_on_after(ABORT_S, shield=True), suppress(SinkError):
                        await client.end(session.id)
                raise
            writer.outcome = {"session_id": session.id, "status": "processing"}
            state = await client.result(session.id, poll_s=self.poll_s, timeout_s=self.result_timeout_s)
            writer.outcome = await self._keep(state, session, stream)
            if unclosed is not None:
                raise unclosed
            if state.status == "failed":
                raise SinkError("result-failed", f"session {session.id}: the service could not process the audio")

    def _request(self, stream: Stream) -> eka.SessionRequest:
        return eka.SessionRequest(
            model=self.model,
            session_mode=self.session_mode,
            templates=self.templates,
            language_hint=self.language_hint,
            additional_data={"call_id": stream.id},
        )

    async def _keep(self, state: eka.SessionState, session: eka.Session, stream: Stream) -> dict[str, Any]:
        """Write the result to its file and return the outcome."""
        path = self.results.fill({**stream.metadata, "call_id": stream.id, "session_id": session.id})
        try:
            await anyio.to_thread.run_sync(_write_private, path, msgspec.json.encode(state.body))
        except OSError as error:
            raise SinkError("result-unwritten", f"session {session.id}: the result: {error.strerror}") from None
        status = "partial" if state.http_status == 206 else state.status
        outcome = {"session_id": session.id, "status": status, "result": str(path)}
        errors = state.body.get("processing_errors")
        return outcome | ({"processing_errors": errors} if errors else {})


def _is_loopback(parts: Any) -> bool:
    return Address(parts.scheme, parts.hostname or "", 0, "").is_loopback


def _write_private(path: Path, data: bytes) -> None:
    """Write a clinical document: for its owner's eyes, and whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@asynccontextmanager
async def _connect(session: eka.Session) -> AsyncIterator[WebSocket]:
    """Connect to where the session takes its audio; the URL is a capability and shows up in no error."""
    import stamina

    url = session.upload_url.reveal()
    parts = urlsplit(url)
    secure = parts.scheme == "wss"
    if not secure and not (parts.scheme == "ws" and _is_loopback(parts)):
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


class _Writer(Writer):
    def __init__(self, sink: EkaStream, socket: WebSocket, format: AudioFormat) -> None:
        self._sink, self._socket, self._format = sink, socket, format
        self._size = format.sample_rate * sink.message_ms // 1000 * format.sample_bytes
        self._pending = bytearray()
        self._sent = 0
        self._delivered = 0
        self._sending = False

    @property
    def delivered(self) -> int:
        return self._delivered

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
            self._sent += self._format.sample_count(data[:size])
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

    async def finish(self) -> SinkError | None:
        """Send the rest and ``stop``, and wait for the close that says that all is stored; return what is wrong.

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
            return None
        timeout = self._sink.close_timeout_s
        return SinkError("not-closed", f"the service did not close the stream within {timeout:g} s of stop")

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
        self._sent += self._format.sample_count(pcm)

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
