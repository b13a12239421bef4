"""The server's end of EkaScribe's wire: sessions over HTTP and audio over WebSockets, on one port.

It stands in for the service in the lab, and it is an ingest of its own for whoever keeps the audio in the house.

    request                                       answer
    POST /connect-auth/v1/account/login           200 access_token   401
    GET  /voice/v1/.well-known/medscribealliance  200 what is possible here
    POST /voice/v1/sessions                       201 session_id, upload_url   400   503 too many
    POST /voice/v1/sessions/{id}/end              202   400 ended already   404   410 expired
    GET  /voice/v1/sessions/{id}                  202 initialized, processing   200 completed   404   410
    WS   /voice/v1/stream/sessions/{stream}/audio the audio, see below

All but the first two and the stream want ``Authorization: Bearer …``; the address of a stream is itself the secret.

A stream, message by message:

    binary            s16le at 16000 Hz, or at the rate of ``start``
    text, start       ``start.mediaFormat.sampleRate``, if it is an integer and comes before any audio
    text, media       ``media.payload``: the same audio in base64
    text, stop        the end, whatever the audio was sent as
    close, silence    the end, too

At the end the sinks finish first; only then is the socket closed, with 1000, so that the close is the receipt for the
audio.  The other close codes: 4000 for a stream that is not known or was used, 1003 for a rate other than 8000 and
16000, 1007 for base64 that is none, 1001 for ``idle_s`` without a message, 1011 where the audio could not be stored.

Samples may be cut in two by the border of a message: the bytes of a stream are one row, as they are for the service, so
a client that cuts its file anywhere is understood.  A byte left over at the end is half a sample and is counted.
"""

from __future__ import annotations

import hmac
import logging
import re
import secrets
import ssl
from collections.abc import Iterable
from typing import Annotated, Any

import anyio
import msgspec
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
)
from mediaflow.httpd import Request, Response
from mediaflow.websocket import Address, Answer, Closed, WebSocket

from . import _eka_sessions as eka_sessions

logger = logging.getLogger(__name__)

TOKEN_S = 1800
"""How long a token from the login lasts."""

MAX_TOKENS = 10_000

UNKNOWN_STREAM, BAD_RATE, BAD_BASE64, NOT_STORED, IDLE = 4000, 1003, 1007, 1011, 1001

RATES = (16000, 8000)

_PREFIX = "/voice/v1"
_SESSION = re.compile(rf"{_PREFIX}/sessions/([A-Za-z0-9_-]+)(/end)?")
_STREAM = re.compile(rf"{_PREFIX}/stream/sessions/([A-Za-z0-9_-]+)/audio")


class EkaIngest(Source, frozen=True):
    """Take audio from clients of EkaScribe, one call per session.

    The answer to the end of a session says what was received; there is no transcript, since nothing here recognises
    speech.  Beyond loopback, clients need ``token``, or ``client_id`` and ``client_secret`` to log in with.
    """

    listen: Annotated[str, Meta(description="http:// or https:// address to listen at")] = "http://127.0.0.1:8090"
    public_url: Annotated[str, Meta(description="address that clients reach this at, if a proxy stands before it")] = ""
    certificate: Annotated[str, Meta(description="file with the certificate chain (PEM), for https")] = ""
    key: Annotated[str, Meta(description="file with the private key (PEM), for https")] = ""
    token: Annotated[Secret, Meta(description="token that clients show")] = Secret("")
    client_id: Annotated[str, Meta(description="client id that may log in")] = ""
    client_secret: Annotated[Secret, Meta(description="secret of the client id")] = Secret("")
    idle_s: Annotated[float, Meta(gt=0, description="a stream ends when nothing has come for so long")] = 60.0

    def check(self) -> None:
        address = Address.parse(self.listen, ("http", "https"))
        if address.path:
            raise ValueError(f"listen {self.listen!r} has a path; the API's own paths are fixed")
        if bool(self.client_id) != bool(self.client_secret):
            raise ValueError("client_id and client_secret belong together")
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
        server = _Server(self, engine)

        def listening(port: int) -> None:
            server.public_url = (self.public_url or address.url(port)).rstrip("/")
            engine.listening(address.url(port))

        try:
            await httpd.serve(
                server.answer,
                address,
                listening=listening,
                tls=self._tls() if address.scheme == "https" else None,
                websocket=server.stream,
                admit=server.admit,
            )
        except OSError as error:
            raise SourceError(f"cannot listen at {address.host}:{address.port}: {error.strerror or error}") from None

    def _tls(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certificate, self.key)
        except OSError as error:  # an ssl.SSLError is one
            raise SourceError(
                f"certificate {self.certificate!r} with key {self.key!r} cannot be used: {error.strerror or error}; "
                f"expected two readable PEM files that belong together"
            ) from None
        return context


class _Fault(Exception):
    """An answer that says what is wrong."""

    def __init__(self, status: int, code: str, message: str, **details: Any) -> None:
        self.status = status
        self.body: dict[str, Any] = {"error": {"code": code, "message": message, "details": details}}


class _Server:
    """The API, over the sessions that it knows."""

    def __init__(self, source: EkaIngest, engine: Engine) -> None:
        self.public_url = ""
        self._source, self._engine = source, engine
        self._sessions = eka_sessions.Sessions()
        self._tokens: dict[str, float] = {}

    async def answer(self, request: Request) -> Response:
        """Answer one request of the API."""
        try:
            status, body = self._route(request)
        except _Fault as fault:
            status, body = fault.status, fault.body
        return Response(status, msgspec.json.encode(body))

    def _route(self, request: Request) -> tuple[int, object]:
        route = request.method, request.path
        if route == ("POST", "/connect-auth/v1/account/login"):
            return self._login(request)
        if route == ("GET", f"{_PREFIX}/.well-known/medscribealliance"):
            return 200, self._discovery()
        session = _SESSION.fullmatch(request.path)
        if request.path != f"{_PREFIX}/sessions" and session is None:
            raise _Fault(404, "resource_not_found", "There is nothing at this path.")
        self._authorize(request)
        if session is None:
            if request.method == "POST":
                return self._create(request)
        elif request.method == ("POST" if session[2] else "GET"):
            return self._end(session[1]) if session[2] else self._get(session[1])
        raise _Fault(405, "invalid_request", "The method does not fit the path.")

    def _login(self, request: Request) -> tuple[int, object]:
        given = _json(request, dict[str, Any])
        source = self._source
        pair = str(given.get("client_id")), str(given.get("client_secret"))
        known = source.client_id, source.client_secret.reveal()
        # Without any credentials, which only loopback may be, everybody is let in.
        free = not source.client_id and not source.token
        if not free and not (source.client_id and _same(pair[0], known[0]) and _same(pair[1], known[1])):
            self._engine.count("refused-login")
            return 401, {"code": 401, "error": "The client id or its secret is wrong."}
        now = anyio.current_time()
        self._tokens = {token: ends for token, ends in self._tokens.items() if ends > now}
        if len(self._tokens) >= MAX_TOKENS:
            del self._tokens[next(iter(self._tokens))]
        token = secrets.token_urlsafe(32)
        self._tokens[token] = now + TOKEN_S
        return 200, {"access_token": token, "expires_in": TOKEN_S}

    def _authorize(self, request: Request) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        source = self._source
        if scheme.lower() == "bearer" and token:
            free = not source.client_id and not source.token
            fixed = source.token.reveal()
            if free or (fixed and _same(token, fixed)) or self._tokens.get(token, 0.0) > anyio.current_time():
                return
        self._engine.count("refused-token")
        raise _Fault(401, "authentication_failed", "A valid bearer token is needed.")

    def _discovery(self) -> object:
        return {
            "capabilities": {"upload_methods": ["stream"], "audio_formats": ["audio/x-l16"], "sample_rates": RATES},
            "endpoints": {"sessions": f"{self.public_url}{_PREFIX}/sessions"},
        }

    def _create(self, request: Request) -> tuple[int, object]:
        wanted = _json(request, eka_sessions.Create)
        if wanted.upload_type != "stream":
            raise _Fault(400, "invalid_request", "upload_type has to be stream.", field="upload_type")
        if eka_sessions.encode_size(wanted.additional_data) > eka_sessions.MAX_ADDITIONAL_DATA:
            raise _Fault(400, "invalid_request", "additional_data is longer than 4 KB.", field="additional_data")
        session = self._sessions.create(wanted)
        if session is None:
            self._engine.count("refused-session")
            raise _Fault(503, "service_unavailable", "There are too many sessions.")
        base = "ws" + self.public_url.removeprefix("http")
        return 201, session.created_body(f"{base}{_PREFIX}/stream/sessions/{session.stream_id}/audio")

    def _find(self, session_id: str) -> eka_sessions.Session:
        session = self._sessions.get(session_id)
        if session is None:
            raise _Fault(404, "session_not_found", "There is no such session.", session_id=session_id)
        if self._sessions.expired(session):
            fault = _Fault(410, "session_expired", "The session has expired.", session_id=session_id)
            fault.body |= {"session_id": session_id, "status": "expired"}
            raise fault
        return session

    def _end(self, session_id: str) -> tuple[int, object]:
        session = self._find(session_id)
        if session.ended_at is not None:
            raise _Fault(400, "session_ended", "The session has already ended.", session_id=session_id)
        self._sessions.end(session)
        return 202, session.ended_body()

    def _get(self, session_id: str) -> tuple[int, object]:
        session = self._find(session_id)
        return 200 if session.status == "completed" else 202, session.body()

    def admit(self, target: str) -> Answer | None:
        """Let every stream in, also unknown ones: that is told by a close code."""
        if _STREAM.fullmatch(target.partition("?")[0]):
            return None
        return Answer(404, "not found\n")

    async def stream(self, socket: WebSocket) -> None:
        """Serve the socket of one stream."""
        match = _STREAM.fullmatch(socket.path.partition("?")[0])
        session = self._sessions.claim(match[1]) if match is not None else None
        if session is None:
            self._engine.count("unknown-stream")
            await socket.close(UNKNOWN_STREAM, "unknown stream_id")
            return
        reader = _Reader(socket, session, self._engine, self._source.idle_s)
        try:
            await reader.run()
        finally:
            self._sessions.streamed(session)
        await socket.close(reader.code, reader.reason)


class _Reader:
    """One stream: messages in, audio out, and how it ended."""

    def __init__(self, socket: WebSocket, session: eka_sessions.Session, engine: Engine, idle_s: float) -> None:
        self.code, self.reason = 1000, ""
        self._socket, self._session, self._engine, self._idle_s = socket, session, engine, idle_s
        self._odd = b""

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
            pcm = await self._next_audio()

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


def _json(request: Request, type: Any) -> Any:
    try:
        return msgspec.json.decode(request.body, type=type)
    except msgspec.ValidationError as error:
        raise _Fault(400, "invalid_request", f"The body does not fit: {error}") from None
    except msgspec.DecodeError:
        raise _Fault(400, "invalid_request", "The body is not JSON.") from None


def _same(given: str, known: str) -> bool:
    return hmac.compare_digest(given.encode(), known.encode())


@hookimpl
def register_components(register: Register) -> None:
    register("eka_ingest", EkaIngest)
