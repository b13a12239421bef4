"""The requests of the EkaScribe API.

What a session goes through, and what ``GET /sessions/{id}`` says of it:

    HTTP   body ``status``     means                                        ``result``
    202    ``initialized``     nobody has ended it                          ends it again, goes on asking
    202    ``processing``      the note is being written                    goes on asking
    200    ``completed``       done                                         returns it
    206    ``partial``         done, but some audio could not be used       returns it
    200    ``failed``          done, without a note                         returns it: 200 alone is no success
    404    —                   nobody knows it (any more)                   raises ``result-missing``
    410    ``expired``         ended too late, or read too late             raises ``result-expired``
    429, 5xx                   the service has trouble                      goes on asking

The other requests; the base is the address of the service:

    GET    /voice/v1/.well-known/medscribealliance                 ``discover``, without a token, kept for 3 hours
    POST   /voice/v1/sessions/{id}/audio/{base}_{n}.{ext}          ``upload``, the audio itself as the body
    PATCH  /voice/v1/sessions/{id}                                 ``update``
    GET    /voice/v1/sessions/{id}/audio                           ``audio_url``
    POST   /voice/v1/sessions/{id}/process/template/{template}     ``process_template``
    POST   /voice/api/v1/transaction/{id}/convert-to-template      ``convert``
    GET    /voice/api/v1/documents/{id}                            ``document``
    GET    /voice/api/v1/template                                  ``templates``
    POST   /notification/v1/connect/webhook/subscriptions          ``subscribe``
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import anyio
import anyio.lowlevel
import msgspec

from .. import http
from ..component import Secret
from ..errors import WireError
from .auth import Account, Credentials, send
from .model import (
    MAX_CHUNK_BYTES,
    Discovery,
    Document,
    EkaError,
    Ended,
    Session,
    SessionRequest,
    SessionState,
    Template,
    fault,
    moment,
    said,
)

BASE_URL = "https://api.eka.care"
DISCOVERY = "/voice/v1/.well-known/medscribealliance"
SESSIONS = "/voice/v1/sessions"
TRANSACTIONS = "/voice/api/v1/transaction"
TEMPLATES = "/voice/api/v1/template"
DOCUMENTS = "/voice/api/v1/documents"
SUBSCRIPTIONS = "/notification/v1/connect/webhook/subscriptions"

READ_S = 30.0
"""The service holds a question for a result up to 14 s before it answers."""

DISCOVERY_S = 10_800.0
"""How long the service's description of itself may be kept, by its own ``Cache-Control``."""

COMPLETED = "v2rx.completed"
"""The event that says that a session is done."""

AUDIO_TYPES = {
    "wav": "audio/wav",
    "webm": "audio/webm;codecs=opus",
    "mp3": "audio/mp3",
    "ogg": "audio/ogg",
    "m4a": "audio/m4a",
    "mp4": "audio/mp4",
}
"""The media type by the extension of an uploaded file."""

_CHUNK = re.compile(r"[A-Za-z0-9-]+_\d+\.([a-z0-9]+)")
_ENDED = frozenset({"session_ended", "session_completed", "session_already_committed"})

T = TypeVar("T")


class _Created(msgspec.Struct):
    session_id: str
    upload_url: str = ""
    expires_at: object = None


class _Templates(msgspec.Struct):
    items: tuple[Template, ...] = ()


class _DocumentBody(msgspec.Struct):
    data: Document


class _Service:
    """What all clients of one service in this event loop share.

    That is the connections, too: a call needs one for a moment at its beginning and at its end, and none while it
    streams.  They are opened for the first client and closed behind the last.
    """

    def __init__(self, base_url: str) -> None:
        self.accounts: dict[Credentials, Account] = {}
        self.discovery: Discovery | None = None
        self.discovery_ends = 0.0
        self._base_url = base_url
        self._users = 0
        self._http: AbstractAsyncContextManager[http.Client]

    async def enter(self) -> http.Client:
        """Count one more client in, and give what it makes requests with."""
        if not self._users:
            self._http = http.connect(self._base_url, timeout_s=READ_S)
            self._client = await self._http.__aenter__()  # which does not wait
        self._users += 1
        return self._client

    async def leave(self) -> None:
        """Count a client out."""
        self._users -= 1
        if not self._users:
            await self._http.__aexit__(None, None, None)


_services: anyio.lowlevel.RunVar[dict[str, _Service]] = anyio.lowlevel.RunVar("eka_services")


def connect(base_url: str, credentials: Credentials) -> EkaClient:
    """Return a client, to be used inside ``async with``; it logs in when the first request needs it."""
    services = _services.get(None)
    if services is None:
        services = {}
        _services.set(services)
    service = services.get(base_url)
    if service is None:
        service = services[base_url] = _Service(base_url)
    account = service.accounts.get(credentials)
    if account is None:
        account = service.accounts[credentials] = Account(credentials)
    return EkaClient(account, service)


class EkaClient:
    """The API; get one from ``connect``.  Every method raises ``EkaError``.

    It may be used in several ``async with`` blocks, one within the other or side by side, and left in another task.
    """

    __slots__ = ("_account", "_http", "_service")

    def __init__(self, account: Account, service: _Service) -> None:
        self._account, self._service = account, service

    async def __aenter__(self) -> EkaClient:
        self._http = await self._service.enter()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._service.leave()

    async def discover(self) -> Discovery:
        """Return what the service can do; asked at most every three hours."""
        service = self._service
        if service.discovery is None or anyio.current_time() >= service.discovery_ends:
            reply = await send(self._http, "GET", DISCOVERY, None, {})
            service.discovery = self._expect(reply, Discovery, "discovery-failed", "no discovery", (200,))
            service.discovery_ends = anyio.current_time() + DISCOVERY_S
        return service.discovery

    async def clock_ahead(self) -> float | None:
        """Ask by how many seconds the service's clock is ahead of ours; None where it does not say."""
        return http.clock_ahead(await send(self._http, "GET", DISCOVERY, None, {}))

    async def create(self, request: SessionRequest) -> Session:
        """Create a session."""
        reply = await self._request("POST", SESSIONS, request.body())
        created = self._expect(reply, _Created, "session-refused", "no session", (200, 201))
        if request.upload_type == "stream" and not created.upload_url:
            raise EkaError("session-refused", f"session {created.session_id}: there is no upload_url in the answer")
        return Session(created.session_id, Secret(created.upload_url), moment(created.expires_at))

    async def upload(self, session_id: str, name: str, data: bytes) -> None:
        """Store a chunk of audio under ``name``, ``{base}_{n}.{ext}``; the same name again replaces it.

        At most ``MAX_CHUNK_BYTES``, and 20 seconds are advised.
        """
        match = _CHUNK.fullmatch(name)
        if match is None or match[1] not in AUDIO_TYPES:
            raise EkaError("chunk-refused", f"a chunk named {name!r}, expected as in audio_0.wav")
        if len(data) > MAX_CHUNK_BYTES:
            raise EkaError("chunk-refused", f"a chunk of {len(data)} bytes, expected at most {MAX_CHUNK_BYTES}")
        path = f"{_session(session_id)}/audio/{name}"
        reply = await self._request("POST", path, data, {"Content-Type": AUDIO_TYPES[match[1]]})
        if reply.status >= 300:
            raise EkaError("chunk-refused", said(f"session {session_id}: {name} was not stored", reply))

    async def end(self, session_id: str, files_sent: int = 0) -> Ended:
        """End a session, which starts its processing; one that has ended already is no error.

        ``files_sent`` counts uploaded chunks and is 0 for a stream.
        """
        reply = await self._request("POST", f"{_session(session_id)}/end", {"audio_files_sent": files_sent})
        if reply.status < 300:
            try:
                return reply.json(Ended)
            except WireError:
                return Ended()  # it did end, whatever it says of it
        told = fault(reply)
        if reply.status in (400, 409) and (told.code in _ENDED or "already" in told.message.lower()):
            return Ended()
        raise EkaError("end-refused", said(f"session {session_id} could not be ended", reply))

    async def get(self, session_id: str, template_id: str = "") -> SessionState:
        """Ask once how far a session is; with ``template_id`` only the documents of that template are listed."""
        query = f"?{urlencode({'template_id': template_id})}" if template_id else ""
        reply = await self._request("GET", f"{_session(session_id)}{query}")
        if reply.status in (200, 202, 206):
            body = self._expect(reply, dict[str, Any], "result-failed", f"session {session_id}", (200, 202, 206))
            status = body.get("status")
            return SessionState(reply.status, status if isinstance(status, str) else "", body)
        code = {404: "result-missing", 410: "result-expired"}.get(reply.status, "result-failed")
        raise EkaError(code, said(f"session {session_id} has no result", reply))

    async def result(
        self, session_id: str, *, poll_s: float = 1.0, timeout_s: float = 600.0, files_sent: int = 0
    ) -> SessionState:
        """Ask, ``poll_s`` apart at least, until the session is over, whether completed, partial or failed."""
        with anyio.move_on_after(timeout_s):
            while True:
                again = anyio.current_time() + poll_s
                try:
                    state = await self.get(session_id)
                    if state.http_status != 202:
                        return state
                    if state.status == "initialized":
                        await self.end(session_id, files_sent)
                except EkaError as error:
                    if error.code != "unreachable":
                        raise
                await anyio.sleep_until(again)
        raise EkaError("result-timeout", f"session {session_id} was not finished after {timeout_s:g} s")

    async def update(self, session_id: str, **changes: object) -> None:
        """Change some fields of a session; ``model`` and ``session_mode`` only before its end."""
        reply = await self._request("PATCH", _session(session_id), changes)
        if reply.status >= 300:
            raise EkaError("update-refused", said(f"session {session_id} could not be changed", reply))

    async def audio_url(self, session_id: str) -> Secret:
        """Return where the whole recording can be fetched; for 24 hours, and for whoever knows the address."""
        reply = await self._request("GET", f"{_session(session_id)}/audio")
        body = self._expect(reply, dict[str, Any], "audio-missing", f"session {session_id} has no audio", (200,))
        # The documents do not say how the field is called, only what it is.
        for value in (body, *(value for value in body.values() if isinstance(value, dict))):
            for url in value.values():
                if isinstance(url, str) and url.startswith(("https://", "http://")):
                    return Secret(url)
        raise EkaError("audio-missing", f"session {session_id}: there is no address in the answer")

    async def process_template(self, session_id: str, template_id: str) -> Document:
        """Have another document made of an ended session; it is ready later."""
        path = f"{_session(session_id)}/process/template/{quote(template_id, safe='')}"
        return await self._make(path, None, session_id)

    async def convert(
        self, session_id: str, template_id: str, *, target_language: str = "", transcript: str = ""
    ) -> Document:
        """Have the note made in another form or language, or of a ``transcript`` of one's own; it is ready later."""
        wanted = {"template_id": template_id, "transcript": transcript, "target_language": target_language}
        path = f"{TRANSACTIONS}/{quote(session_id, safe='')}/convert-to-template"
        return await self._make(path, {name: value for name, value in wanted.items() if value}, session_id)

    async def _make(self, path: str, body: object, session_id: str) -> Document:
        reply = await self._request("POST", path, body)
        return self._expect(reply, Document, "document-refused", f"session {session_id}: no document", (200, 202))

    async def document(self, document_id: str) -> Document:
        """Return a document, with an address to fetch its content from."""
        reply = await self._request("GET", f"{DOCUMENTS}/{quote(document_id, safe='')}")
        return self._expect(reply, _DocumentBody, "document-missing", f"no document {document_id}", (200,)).data

    async def templates(self) -> Sequence[Template]:
        """List the templates of the workspace."""
        reply = await self._request("GET", TEMPLATES)
        return self._expect(reply, _Templates, "templates-failed", "no templates", (200,)).items

    async def subscribe(self, endpoint: str, signing_key: Secret, events: Sequence[str] = (COMPLETED,)) -> None:
        """Have ``events`` sent to ``endpoint``, signed with a key that only both sides know."""
        body = {
            "event_names": events,
            "endpoint": endpoint,
            "signing_key": signing_key.reveal(),
            "protocol": urlsplit(endpoint).scheme,
        }
        reply = await self._request("POST", SUBSCRIPTIONS, body)
        if reply.status >= 300:
            raise EkaError("subscription-refused", said("no webhooks", reply))

    def _expect(self, reply: http.Reply, type: type[T], code: str, what: str, good: Sequence[int]) -> T:
        if reply.status not in good:
            raise EkaError(code, said(what, reply))
        try:
            return reply.json(type)
        except WireError as error:
            raise EkaError(code, f"{what}: {error}") from None

    async def _request(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> http.Reply:
        token = await self._account.token(self._http)
        reply = await self._once(method, path, body, headers, token)
        if reply.status == 401:
            token = await self._account.token(self._http, refused=token)
            reply = await self._once(method, path, body, headers, token)
            if reply.status == 401:
                raise EkaError("login-refused", said("the token of a new login was refused", reply))
        if reply.status == 429 or reply.status >= 500:
            raise EkaError("unreachable", said("the service is in trouble", reply))
        return reply

    async def _once(
        self, method: str, path: str, body: object, headers: Mapping[str, str] | None, token: str
    ) -> http.Reply:
        return await send(self._http, method, path, body, {**(headers or {}), **self._account.headers(token)})


def _session(session_id: str) -> str:
    return f"{SESSIONS}/{quote(session_id, safe='')}"
