"""A client of the EkaScribe session API (``/voice/v1``), usable by itself.

::

    async with eka.connect("https://api.eka.care", eka.Credentials(token=Secret("…"))) as client:
        session = await client.create(eka.SessionRequest(additional_data={"call_id": "c1"}))
        …                              # stream the audio to session.upload_url, wait until the server closes
        await client.end(session.id)   # only now: it lists what is stored at this moment
        result = await client.result(session.id)

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

A token from the login lasts about half an hour, a call may last longer: it is replaced five minutes before its end, by
one login however many requests wait for it, and once more where the service answers 401 all the same.

Documentation: https://developer.eka.care, EkaScribe, protocol.  Where its revisions disagree about a default, the field
is always sent; where a field changed its type, both types are read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import anyio
import anyio.lowlevel
import msgspec

from . import http
from .component import Secret
from .errors import SinkError, WireError

BASE_URL = "https://api.eka.care"
LOGIN = "/connect-auth/v1/account/login"
SESSIONS = "/voice/v1/sessions"

TOKEN_S = 1800.0
"""How long a token lasts where the service does not say it."""

RENEW_S = 300.0
"""A token is replaced so long before it ends, or at half its life if that is shorter."""

READ_S = 30.0
"""The service holds a question for a result up to 14 s before it answers."""

_ENDED = frozenset({"session_ended", "session_completed", "session_already_committed"})


class EkaError(SinkError):
    """The service refused, failed or did not answer; ``code`` says which."""


class Credentials(msgspec.Struct, frozen=True):
    """A token from the service, or a client id and secret to get one with."""

    token: Secret = Secret("")
    client_id: str = ""
    client_secret: Secret = Secret("")


class SessionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a session shall be."""

    model: str = "pro"
    session_mode: str = "consultation"
    templates: Sequence[str] = ("clinical_notes_template",)
    language_hint: Sequence[str] = ("auto_detect",)
    upload_type: Literal["stream", "chunked", "single"] = "stream"
    communication_protocol: Literal["websocket", "http"] = "websocket"
    additional_data: Mapping[str, str] = {}


class Session(msgspec.Struct, frozen=True):
    """A session that was created.  ``upload_url`` lets anybody in who knows it."""

    id: str
    upload_url: Secret


class SessionState(msgspec.Struct, frozen=True):
    """What the service says of a session: the HTTP status, ``status`` of the body, and the whole body."""

    http_status: int
    status: str
    body: Mapping[str, Any]


class _Login(msgspec.Struct):
    access_token: str
    expires_in: float | str | None = None


class _Created(msgspec.Struct):
    session_id: str
    upload_url: str


class _Fault(msgspec.Struct):
    code: str = ""
    message: str = ""


class _FaultBody(msgspec.Struct):
    error: _Fault | str = msgspec.field(default_factory=_Fault)


class _Account:
    """The token that all calls with the same credentials share."""

    def __init__(self) -> None:
        self.token = ""
        self.renew_at = 0.0
        self.lock = anyio.Lock()


_accounts: anyio.lowlevel.RunVar[dict[tuple[str, Credentials], _Account]] = anyio.lowlevel.RunVar("eka_accounts")


@asynccontextmanager
async def connect(base_url: str, credentials: Credentials) -> AsyncIterator[EkaClient]:
    """Give a client; it logs in when the first request needs it."""
    accounts = _accounts.get(None)
    if accounts is None:
        accounts = {}
        _accounts.set(accounts)
    account = accounts.setdefault((base_url, credentials), _Account())
    async with http.connect(base_url, timeout_s=READ_S) as client:
        yield EkaClient(client, credentials, account)


class EkaClient:
    """The API; get one from ``connect``.  Every method raises ``EkaError``."""

    def __init__(self, client: http.Client, credentials: Credentials, account: _Account) -> None:
        self._http, self._credentials, self._account = client, credentials, account

    async def create(self, request: SessionRequest) -> Session:
        """Create a session."""
        reply = await self._request("POST", SESSIONS, request)
        if reply.status not in (200, 201):
            raise EkaError("session-refused", _said("no session", reply))
        try:
            created = reply.json(_Created)
        except WireError as error:
            raise EkaError("session-refused", f"no session: {error}") from None
        return Session(created.session_id, Secret(created.upload_url))

    async def end(self, session_id: str) -> None:
        """End a session, which starts its processing; one that has ended already is no error."""
        reply = await self._request("POST", f"{SESSIONS}/{session_id}/end", {"audio_files_sent": 0})
        if reply.status < 300:
            return
        fault = _fault(reply)
        if reply.status in (400, 409) and (fault.code in _ENDED or "already" in fault.message.lower()):
            return
        raise EkaError("end-refused", _said(f"session {session_id} could not be ended", reply))

    async def get(self, session_id: str) -> SessionState:
        """Ask once how far a session is."""
        reply = await self._request("GET", f"{SESSIONS}/{session_id}")
        if reply.status in (200, 202, 206):
            try:
                body = reply.json(dict[str, Any])
            except WireError as error:
                raise EkaError("result-failed", f"session {session_id}: {error}") from None
            status = body.get("status")
            return SessionState(reply.status, status if isinstance(status, str) else "", body)
        code = {404: "result-missing", 410: "result-expired"}.get(reply.status, "result-failed")
        raise EkaError(code, _said(f"session {session_id} has no result", reply))

    async def result(self, session_id: str, *, poll_s: float = 1.0, timeout_s: float = 600.0) -> SessionState:
        """Ask, ``poll_s`` apart at least, until the session is over, whether completed, partial or failed."""
        with anyio.move_on_after(timeout_s):
            while True:
                again = anyio.current_time() + poll_s
                try:
                    state = await self.get(session_id)
                    if state.http_status != 202:
                        return state
                    if state.status == "initialized":
                        await self.end(session_id)
                except EkaError as error:
                    if error.code != "unreachable":
                        raise
                await anyio.sleep_until(again)
        raise EkaError("result-timeout", f"session {session_id} was not finished after {timeout_s:g} s")

    async def _request(self, method: str, path: str, body: object = None) -> http.Reply:
        token = await self._token()
        reply = await self._send(method, path, body, {"Authorization": f"Bearer {token}"})
        if reply.status == 401:
            token = await self._token(refused=token)
            reply = await self._send(method, path, body, {"Authorization": f"Bearer {token}"})
            if reply.status == 401:
                raise EkaError("login-refused", _said("the token of a new login was refused", reply))
        if reply.status == 429 or reply.status >= 500:
            raise EkaError("unreachable", _said("the service is in trouble", reply))
        return reply

    async def _send(self, method: str, path: str, body: object, headers: Mapping[str, str]) -> http.Reply:
        try:
            return await self._http.request(method, path, body, headers=headers)
        except http.Unreachable as error:
            raise EkaError("unreachable", str(error)) from None

    async def _token(self, refused: str = "") -> str:
        """Return a token that is good for some minutes and is not the one that was ``refused``."""
        if self._credentials.token:
            if refused:
                raise EkaError("login-refused", "the service refused the token; has EKA_TOKEN expired?")
            return self._credentials.token.reveal()
        account = self._account
        async with account.lock:
            if not account.token or account.token == refused or anyio.current_time() >= account.renew_at:
                await self._login()
            return account.token

    async def _login(self) -> None:
        body = {"client_id": self._credentials.client_id, "client_secret": self._credentials.client_secret.reveal()}
        reply = await self._send("POST", LOGIN, body, {})
        if 400 <= reply.status < 500 and reply.status != 429:
            text = f"HTTP {reply.status} for the login; check EKA_CLIENT_ID and EKA_CLIENT_SECRET"
            raise EkaError("login-refused", text)
        try:
            if reply.status >= 300:
                raise WireError("status", f"HTTP {reply.status}")
            login = reply.json(_Login)
            lasts = TOKEN_S if login.expires_in is None else float(login.expires_in)
        except (WireError, ValueError) as error:
            raise EkaError("login-failed", f"the login gave no token: {error}") from None
        self._account.token = login.access_token
        self._account.renew_at = anyio.current_time() + max(lasts - RENEW_S, lasts / 2)


def _fault(reply: http.Reply) -> _Fault:
    try:
        error = reply.json(_FaultBody).error
    except WireError:
        return _Fault()
    return _Fault(message=error) if isinstance(error, str) else error


def _said(what: str, reply: http.Reply) -> str:
    # The code and nothing more: the message of an error may quote the request.
    code = _fault(reply).code[:40]
    return f"{what}: HTTP {reply.status}{f' {code}' if code.replace('_', '').isalnum() else ''}"
