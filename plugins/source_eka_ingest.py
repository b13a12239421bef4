"""The server's end of EkaScribe's wire: sessions over HTTP and audio over WebSockets, on one port.

It stands in for the service in the lab, and it is an ingest of its own for whoever keeps the audio in the house.

    request                                       answer
    POST  /connect-auth/v1/account/login           200 access_token, refresh_token   401
    POST  /connect-auth/v1/account/refresh-token   200 the same   401
    GET   /voice/v1/.well-known/medscribealliance  200 what is possible here
    POST  /voice/v1/sessions                       201 session_id, upload_url   400   409 id taken   503 too many
    PATCH /voice/v1/sessions/{id}                  200   404   409 model after the end   422 unknown field
    POST  /voice/v1/sessions/{id}/audio/{chunk}    200   400 ended, not WAV   404   413   429 too far ahead
    POST  /voice/v1/sessions/{id}/end              202   400 ended already   404   410 expired
    GET   /voice/v1/sessions/{id}                  202 initialized, processing   200 completed   206   404   410
    GET   /voice/v1/sessions/{id}/audio            404: the recording is where the pipeline has put it
    GET   /voice/api/v1/template                   200 the service's own templates, by name
    POST  /notification/v1/connect/webhook/subscriptions   201   400   503 too many
    WS    /voice/v1/stream/sessions/{stream}/audio the audio, see below

All but the first three and the stream want ``Authorization: Bearer …``, or ``jwt-payload: {…}`` where no credentials
are set, as a service without a gateway takes it.  The address of a stream is itself the secret.

A stream, message by message:

    binary            s16le at 16000 Hz, or at the rate of ``start``
    text, start       ``start.mediaFormat.sampleRate``, if it is an integer and comes before any audio
    text, media       ``media.payload``: the same audio in base64
    text, stop        the end, whatever the audio was sent as
    close, silence    the end, too

At the end the sinks finish first; only then is the socket closed, with 1000, so that the close is the receipt for the
audio.  The other close codes: 4000 for a stream that is not known or was used, 1003 for a rate other than 8000 and
16000, 1007 for base64 that is none, 1001 for ``idle_s`` without a message, 1011 where the audio could not be stored.

Whoever has subscribed is sent ``v2rx.completed``, signed, when a session is done.  What can be made to go wrong stands
in ``_eka_quirks``, chunks in ``_eka_chunks``.

Samples may be cut in two by the border of a message: the bytes of a stream are one row, as they are for the service, so
a client that cuts its file anywhere is understood.  A byte left over at the end is half a sample and is counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

import anyio
from msgspec import Meta

from mediaflow import (
    AudioFormat,
    Engine,
    FormatError,
    Register,
    Secret,
    Session,
    SessionError,
    Source,
    SourceError,
    Stream,
    WireError,
    envelope,
    hookimpl,
    httpd,
    tls,
)
from mediaflow.websocket import Address, Answer, Closed, WebSocket

from . import _eka_chunks as eka_chunks, _eka_quirks as eka_quirks, _eka_sessions as eka_sessions
from ._eka_api import PREFIX, Api
from ._eka_chunks import RATES
from ._eka_tokens import Tokens
from ._eka_webhooks import Webhooks

UNKNOWN_STREAM, BAD_RATE, BAD_BASE64, NOT_STORED, IDLE = 4000, 1003, 1007, 1011, 1001

MAX_BODY = eka_chunks.MAX_CHUNK_BYTES + (1 << 20)
"""A chunk that is a little too long is still answered in the API's own words."""

_STREAM = re.compile(rf"{PREFIX}/stream/sessions/([A-Za-z0-9_-]+)/audio")


class EkaIngest(Source, frozen=True):
    """Take audio from clients of EkaScribe, one call per session.

    The answer to the end of a session says what was received; there is no transcript, since nothing here recognises
    speech.  Beyond loopback, clients need ``token``, or ``client_id`` and ``client_secret`` to log in with.
    """

    listens = True

    listen: Annotated[str, Meta(description="http:// or https:// address to listen at")] = "http://127.0.0.1:8090"
    public_url: Annotated[str, Meta(description="address that clients reach this at, if a proxy stands before it")] = ""
    certificate: Annotated[str, Meta(description="file with the certificate chain (PEM), for https")] = ""
    key: Annotated[str, Meta(description="file with the private key (PEM), for https")] = ""
    token: Annotated[Secret, Meta(description="token that clients show")] = Secret("")
    client_id: Annotated[str, Meta(description="client id that may log in")] = ""
    client_secret: Annotated[Secret, Meta(description="secret of the client id")] = Secret("")
    sharing_key: Annotated[Secret, Meta(description="key that has to come with the client id")] = Secret("")
    idle_s: Annotated[float, Meta(gt=0, description="a stream ends when nothing has come for so long")] = 60.0
    quirks: Annotated[
        tuple[eka_quirks.Quirk, ...], Meta(description="what the service shall do wrong, for rehearsals")
    ] = ()

    def check(self) -> None:
        address = Address.parse(self.listen, ("http", "https"))
        if address.path:
            raise ValueError(f"listen {self.listen!r} has a path; the API's own paths are fixed")
        if bool(self.client_id) != bool(self.client_secret):
            raise ValueError("client_id and client_secret belong together")
        if self.sharing_key and not self.client_id:
            raise ValueError("sharing_key comes with a login: give client_id and client_secret too")
        if not address.is_loopback and not self.token and not self.client_id:
            raise ValueError(f"listen at {address.host} can be reached by others: give token, or client_id and secret")
        if address.host in ("0.0.0.0", "::") and not self.public_url:
            raise ValueError(f"{address.host} is no address for clients: give public_url")
        if self.public_url and not self.public_url.startswith(("http://", "https://")):
            raise ValueError(f"public_url {self.public_url!r} is not an http:// or https:// address")
        if (address.scheme == "https") != bool(self.certificate and self.key):
            raise ValueError("https:// needs certificate and key, http:// neither")

    def formats(self) -> Iterable[tuple[AudioFormat, tuple[str, ...]]]:
        for rate in RATES:
            yield AudioFormat("s16le", rate), ("inbound",)

    async def serve(self, engine: Engine) -> None:
        address = Address.parse(self.listen, ("http", "https"))
        tokens = Tokens(self.token, self.client_id, self.client_secret, self.sharing_key)
        webhooks = Webhooks(self.client_id, engine.count)
        api = Api(engine, tokens, webhooks, self.quirks)
        streams = _Streams(self, engine, api)

        def listening(port: int) -> None:
            api.public_url = (self.public_url or address.url(port)).rstrip("/")
            engine.listening(address.url(port))

        context = tls.server_context(self.certificate, self.key) if address.scheme == "https" else None
        failure: SourceError | None = None
        async with anyio.create_task_group() as tasks:
            api.tasks = webhooks.tasks = tasks
            try:
                await httpd.serve(
                    api.answer,
                    address,
                    listening=listening,
                    tls=context,
                    max_body=MAX_BODY,
                    websocket=streams.stream,
                    admit=streams.admit,
                )
            except OSError as error:
                text = f"cannot listen at {address.host}:{address.port}: {error.strerror or error}"
                failure = SourceError(text)  # raised where the task group does not wrap it
        if failure is not None:
            raise failure


class _Streams:
    """The WebSocket half: a socket per stream."""

    def __init__(self, source: EkaIngest, engine: Engine, api: Api) -> None:
        self._source, self._engine, self._api = source, engine, api

    def admit(self, target: str) -> Answer | None:
        """Let every stream in, also unknown ones: that is told by a close code."""
        if _STREAM.fullmatch(target.partition("?")[0]):
            return None
        return Answer(404, "not found\n")

    async def stream(self, socket: WebSocket) -> None:
        """Serve the socket of one stream."""
        match = _STREAM.fullmatch(socket.path.partition("?")[0])
        api, quirks = self._api, self._source.quirks
        session = api.sessions.claim(match[1]) if match is not None and "forgets_stream" not in quirks else None
        if session is None:
            self._engine.count("unknown-stream")
            await socket.close(UNKNOWN_STREAM, "unknown stream_id")
            return
        reader = _Reader(socket, session, self._engine, self._source)
        api.heard()
        try:
            await reader.run()
        finally:
            api.flushed(session)
        if "never_closes" in quirks and reader.code == 1000:
            await socket.wait_closed()
        await socket.close(reader.code, reader.reason)


class _Reader:
    """One stream: messages in, audio out, and how it ended."""

    def __init__(self, socket: WebSocket, session: eka_sessions.Session, engine: Engine, source: EkaIngest) -> None:
        self.code, self.reason = 1000, ""
        self._socket, self._session, self._engine = socket, session, engine
        self._idle_s, self._quirks = source.idle_s, source.quirks
        self._odd = b""
        self._stored_s = 0.0

    async def run(self) -> None:
        """Carry the audio until the stream ends and the sinks are done."""
        first = await self._next_audio()
        if first is None:
            return
        session = self._session
        stream = Stream(session.id, AudioFormat("s16le", session.sample_rate), ("inbound",), session.metadata)
        try:
            async with self._engine.open(stream) as live:
                await self._carry(live, first)
        except FormatError:
            self._end(NOT_STORED, "the pipeline cannot take this format")
        except SessionError:
            self._end(NOT_STORED, "the audio could not be stored")
        if self._odd:
            self._engine.count("half-sample")

    async def _carry(self, live: Session, first: bytes) -> None:
        pcm: bytes | None = first
        while pcm is not None:
            if not live.push(pcm):
                await live.ready()
            self._session.samples += len(pcm) // 2
            pcm = None if await self._misbehaves() else await self._next_audio()

    async def _misbehaves(self) -> bool:
        """Do what the quirks want done between two messages; True where the stream ends by it."""
        if not self._quirks:
            return False
        seconds = self._session.samples / self._session.sample_rate
        if "slow_storing" in self._quirks and seconds - self._stored_s >= eka_quirks.CHUNK_S:
            self._stored_s = seconds
            self._engine.count("quirk-slow_storing")
            await anyio.sleep(eka_quirks.STORE_S)
        if "drops_stream" in self._quirks and seconds >= eka_quirks.DROP_S and not self._session.continues:
            self._end(NOT_STORED, "dropped, as it was told to be")
            return True
        if "short_sessions" in self._quirks and seconds > eka_quirks.SHORT_S:
            self._engine.count("quirk-short_sessions")
            self._end(NOT_STORED, "the session is longer than it may be")
            return True
        return False

    def _end(self, code: int, reason: str) -> None:
        self.code, self.reason = code, reason

    async def _next_audio(self) -> bytes | None:
        """Return the next run of whole samples, or None at the end."""
        while True:
            message: str | bytes | None = None
            try:
                with anyio.move_on_after(self._idle_s):
                    message = await self._socket.recv()
            except Closed:
                return None
            if message is None:
                self._engine.count("idle")
                self._end(IDLE, "nothing came")
                return None
            data = message if isinstance(message, bytes) else self._read_text(message)
            if data is None:
                return None
            if data and (pcm := self._whole(data)):
                return pcm

    def _whole(self, data: bytes) -> bytes:
        if len(data) % 2:
            self._engine.count("odd-message")
        data = self._odd + data
        end = len(data) & ~1
        self._odd = data[end:]
        return data[:end]

    def _read_text(self, text: str) -> bytes | None:
        """Return the audio in a text message, which may be none; None where the stream ends."""
        try:
            message = envelope.parse_eka(text)
        except WireError as error:
            self._engine.count(error.code)
            if error.code != "bad-base64":
                return b""
            self._end(BAD_BASE64, "bad base64")
            return None
        if isinstance(message, envelope.Media):
            return message.payload
        if isinstance(message, envelope.Stop):
            return None
        if isinstance(message, envelope.EkaStart):
            return self._set_rate(message.sample_rate)
        self._engine.count("unknown-event")
        return b""

    def _set_rate(self, rate: int | None) -> bytes | None:
        session = self._session
        if rate is None or (session.samples and rate != session.sample_rate):
            self._engine.count("rate-ignored")
        elif rate not in RATES:
            self._engine.count("rate-refused")
            self._end(BAD_RATE, "sampleRate has to be 8000 or 16000")
            return None
        else:
            session.sample_rate = rate
        return b""


@hookimpl
def register_components(register: Register) -> None:
    register("eka_ingest", EkaIngest)
