"""A client of the Vobiz REST API: the audio streams of a live call, and calls themselves.  Usable by itself.

::

    async with vobiz.connect(vobiz.Credentials("MA_…", Secret("…"))) as client:
        started = await client.start_stream(call_uuid, vobiz.StreamRequest("wss://calls.example.org/vobiz/SECRET"))
        async for stream in client.streams(call_uuid):
            …
        await client.stop_stream(call_uuid, started.stream_id)

    what                request, below /Account/{auth_id}                     answer
    start a stream      POST   /Call/{call}/Stream/                           202 (or 200) with ``stream_id``
    list streams        GET    /Call/{call}/Stream/?limit=&offset=            200, running and ended ones, in pages
    one stream          GET    /Call/{call}/Stream/{stream}/                  200
    stop a stream       DELETE /Call/{call}/Stream/{stream}/                  204
    stop all streams    DELETE /Call/{call}/Stream/                           204
    make a call         POST   /Call/                                         201 with ``request_uuid``, the call's id
    hang up             DELETE /Call/{call}/                                  204; 404: it is over already

What goes wrong without a word at Vobiz, and is right here by construction:

* the capital letters and the slash at the end matter: a path without them is answered 401, like a wrong token;
* ``bidirectional`` has to be the *string* ``"true"``: the boolean is accepted and gives a stream of one way;
* a stream of both ways carries the track ``inbound`` and no other;
* a list begins with ``[`` or, like the other lists of this API, holds ``objects`` with ``meta.next``: both are read.

A refusal comes in four shapes, and leaves here as one ``VobizError``::

    {"api_id": …, "error": "Stream not found"}
    {"api_id": …, "error": …, "message": …}
    {"error": …, "details": …}
    {"status": "error", "error": {"code": …, "message": …, "details": {…}}, "requestId": …}

429 is waited for, by ``Retry-After`` or ``error.details.retryAfter``.  What must not happen twice (a call, a stream) is
asked for again only where Vobiz surely did nothing.

Documentation: https://vobiz.ai/docs, Audio Streams API and Calls.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import msgspec

from . import http
from .component import Secret
from .errors import MediaflowError, WireError

BASE_URL = "https://api.vobiz.ai/api/v1"

PAGE = 20
"""How many streams Vobiz lists at a time where it is not told otherwise."""

ContentType = Literal["audio/x-mulaw;rate=8000", "audio/x-l16;rate=8000", "audio/x-l16;rate=16000"]
"""What a stream may carry; µ-law is the one whose byte order nobody disputes."""

Track = Literal["inbound", "outbound", "both"]

MAX_HEADERS = 512
"""Bytes that extra headers may come to, joined."""

_WORD = re.compile(r"[A-Za-z0-9_]+")
_NUMBER = re.compile(r"(?<![\w-])\+?\d{7,15}(?![\w-])")
_URL = re.compile(r"\b(?:wss?|https?)://[^\s\"'<>]+")


def join_headers(headers: Mapping[str, str]) -> str:
    """Return extra headers in Vobiz's form, ``k=v,k2=v2``; raise ValueError where it has no way to carry them.

    It promises letters and digits, and has ``_`` in an example of its own.
    """
    if not all(_WORD.fullmatch(text) for item in headers.items() for text in item):
        raise ValueError("extra_headers take letters, digits and _ only; what is more goes into the url's query")
    joined = ",".join(f"{key}={value}" for key, value in headers.items())
    if len(joined) > MAX_HEADERS:
        raise ValueError(
            f"extra_headers come to {len(joined)} bytes and may have {MAX_HEADERS}; what is more goes into the url's "
            f"query"
        )
    return joined


def public(url: str) -> str:
    """Return what of an address may be shown: not its path, which may hold a secret, nor a password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{re.split('[/?#]', rest)[0].rpartition('@')[2]}/…" if rest else ""


def scrub(text: str) -> str:
    """Return what Vobiz says without telephone numbers and the paths of addresses, so that it can be logged."""
    return _NUMBER.sub("…", _URL.sub(lambda url: public(url[0]), text))


class VobizError(MediaflowError):
    """Vobiz refused.

    ``status`` is the HTTP status, ``code`` a short name (Vobiz's own, or the status' as in ``not-found``), ``message``
    what Vobiz says, without telephone numbers and the paths of addresses, ``request_id`` what its support asks for,
    ``retry_after_s`` how long it wants to be left alone where it says so.
    """

    def __init__(
        self, status: int, code: str, message: str, request_id: str = "", retry_after_s: float | None = None
    ) -> None:
        self.status, self.code, self.message = status, code, message
        self.request_id, self.retry_after_s = request_id, retry_after_s
        hint = "; its cause is also a path in wrong case or without its last slash" if status == 401 else ""
        later = f"; try again in {retry_after_s:g} s" if retry_after_s is not None else ""
        request = f" (request {request_id})" if request_id else ""
        super().__init__(f"Vobiz refused with HTTP {status}, {code}: {message}{hint}{later}{request}")


class Credentials(msgspec.Struct, frozen=True):
    """An account's id (``MA_…``, a sub-account's ``SA_…``) and its token."""

    auth_id: str
    auth_token: Secret

    def __post_init__(self) -> None:
        if not self.auth_id or not self.auth_token:
            raise ValueError("Vobiz wants both an auth id (MA_… or SA_…) and its auth token")


class StreamRequest(msgspec.Struct, frozen=True):
    """A stream to start; raises ValueError for what Vobiz would take and then not do."""

    service_url: str
    audio_track: Track = "both"
    bidirectional: bool = False
    content_type: ContentType = "audio/x-mulaw;rate=8000"
    stream_timeout_s: int = 86_400
    status_callback_url: str = ""
    status_callback_method: Literal["GET", "POST"] = "POST"
    extra_headers: Mapping[str, str] = {}

    def __post_init__(self) -> None:
        if urlsplit(self.service_url).scheme not in ("ws", "wss"):
            raise ValueError("service_url has to be a ws:// or wss:// address")
        if self.bidirectional and self.audio_track != "inbound":
            raise ValueError(f"a bidirectional stream carries the track inbound, not {self.audio_track}: say inbound")
        if self.stream_timeout_s < 1:
            raise ValueError(f"stream_timeout_s has to be at least 1, not {self.stream_timeout_s}")
        join_headers(self.extra_headers)

    def __repr__(self) -> str:
        return f"StreamRequest({public(self.service_url)}, {self.audio_track})"  # whoever knows its path may connect

    def body(self) -> dict[str, str | int]:
        """Return the request's JSON."""
        body: dict[str, str | int] = {
            "service_url": self.service_url,
            "audio_track": self.audio_track,
            "bidirectional": "true" if self.bidirectional else "false",
            "content_type": self.content_type,
            "stream_timeout": self.stream_timeout_s,
        }
        if self.status_callback_url:
            body["status_callback_url"] = self.status_callback_url
            body["status_callback_method"] = self.status_callback_method
        if self.extra_headers:
            body["extra_headers"] = join_headers(self.extra_headers)
        return body


class CallRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A call to make: ``caller`` rings ``callee``, and ``answer_url`` says what happens then."""

    caller: str
    callee: str
    answer_url: str
    answer_method: Literal["GET", "POST"] = "POST"
    hangup_url: str = ""
    time_limit_s: int = 14_400

    def __post_init__(self) -> None:
        if urlsplit(self.answer_url).scheme not in ("http", "https"):
            raise ValueError("answer_url has to be an http:// or https:// address")

    def __repr__(self) -> str:
        return f"CallRequest({public(self.answer_url)})"  # without the numbers

    def body(self) -> dict[str, str | int]:
        """Return the request's JSON."""
        body: dict[str, str | int] = {
            "from": self.caller,
            "to": self.callee,
            "answer_url": self.answer_url,
            "answer_method": self.answer_method,
            "time_limit": self.time_limit_s,
        }
        return body | ({"hangup_url": self.hangup_url} if self.hangup_url else {})


class StreamStarted(msgspec.Struct, frozen=True):
    """What Vobiz says to a stream that it starts."""

    stream_id: str
    message: str = ""


class CallStarted(msgspec.Struct, frozen=True):
    """What Vobiz says to a call that it makes."""

    call_uuid: str = msgspec.field(name="request_uuid")
    message: str = ""


class StreamInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A stream as Vobiz describes it.

    ``service_url`` lets anybody in who knows it.  ``status`` is ``in-progress``, ``completed`` or ``failed``; times are
    as Vobiz writes them, which is not always in one form.
    """

    stream_id: str
    call_uuid: str = ""
    service_url: Secret = Secret("")
    audio_track: str = ""
    bidirectional: bool = False
    content_type: str = ""
    sampling_rate: int = 0
    stream_timeout_s: int = 0
    status: str = ""
    start_time: str = ""
    end_time: str = ""


class Client:
    """The API as one account sees it; get one from ``connect``.

    Every method raises ``VobizError`` where Vobiz refuses, ``mediaflow.http.Unreachable`` where it does not answer, and
    ``WireError`` where it answers something else than its API promises.
    """

    def __init__(self, client: http.Client, credentials: Credentials) -> None:
        self._http = client
        self._account = f"/Account/{quote(credentials.auth_id, safe='')}"
        self._headers = {"X-Auth-ID": credentials.auth_id, "X-Auth-Token": credentials.auth_token.reveal()}

    async def start_stream(self, call_uuid: str, request: StreamRequest) -> StreamStarted:
        """Start a stream on a live call; one call may have several, and each costs until it is stopped."""
        reply = await self._request("POST", f"{self._call(call_uuid)}Stream/", request.body(), once=True)
        return reply.json(StreamStarted)

    async def streams(self, call_uuid: str, *, page: int = PAGE) -> AsyncIterator[StreamInfo]:
        """Give every stream of the call, running or ended, fetching ``page`` of them at a time."""
        offset = 0
        while True:
            path = f"{self._call(call_uuid)}Stream/?limit={page}&offset={offset}"
            found, more = _page((await self._request("GET", path)).json(object), page)
            for item in found:
                yield item
            offset += len(found)
            if not found or not more:
                return

    async def stream(self, call_uuid: str, stream_id: str) -> StreamInfo:
        """Return one stream."""
        return _stream((await self._request("GET", self._stream(call_uuid, stream_id))).json(object))

    async def stop_stream(self, call_uuid: str, stream_id: str) -> None:
        """Stop one stream."""
        await self._request("DELETE", self._stream(call_uuid, stream_id))

    async def stop_streams(self, call_uuid: str) -> None:
        """Stop all streams of the call."""
        await self._request("DELETE", f"{self._call(call_uuid)}Stream/")

    async def make_call(self, request: CallRequest) -> CallStarted:
        """Ring somebody up."""
        reply = await self._request("POST", f"{self._account}/Call/", request.body(), once=True)
        return reply.json(CallStarted)

    async def hang_up(self, call_uuid: str) -> bool:
        """Hang the call up; return False if it was over already."""
        try:
            await self._request("DELETE", self._call(call_uuid))
        except VobizError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            return False
        return True

    def _call(self, call_uuid: str) -> str:
        return f"{self._account}/Call/{_part(call_uuid, 'call')}/"

    def _stream(self, call_uuid: str, stream_id: str) -> str:
        return f"{self._call(call_uuid)}Stream/{_part(stream_id, 'stream')}/"

    async def _request(self, method: str, path: str, body: object = None, once: bool = False) -> http.Reply:
        reply = await self._http.request(method, path, body, headers=self._headers, once=once)
        if not 200 <= reply.status < 300:
            raise _refusal(reply)
        return reply


@asynccontextmanager
async def connect(
    credentials: Credentials, base_url: str = BASE_URL, *, timeout_s: float = 30.0
) -> AsyncIterator[Client]:
    """Give a client for the account."""
    async with http.connect(base_url, timeout_s=timeout_s, wait=_wait) as client:
        yield Client(client, credentials)


def _part(id: str, what: str) -> str:
    """An id as a part of a path; an empty one would make the path of all its like, and ``DELETE`` that."""
    if not id.strip():
        raise ValueError(f"the {what}'s id is empty")
    return quote(id, safe="")


def _page(body: object, page: int) -> tuple[list[StreamInfo], bool]:
    """Read one page; say whether there may be another."""
    if isinstance(body, list):
        return [_stream(item) for item in body], len(body) >= page
    if not isinstance(body, dict) or not isinstance(body.get("objects"), list):
        raise WireError("bad-stream-list", "a list of streams has to be a list or hold `objects`; this is neither")
    found = [_stream(item) for item in body["objects"]]
    meta = body.get("meta")
    return found, bool(meta.get("next")) if isinstance(meta, dict) and "next" in meta else len(found) >= page


def _stream(body: object) -> StreamInfo:
    """Read a stream; values may be strings, and keys that we do not know are left alone."""
    if not isinstance(body, dict) or not isinstance(body.get("stream_id"), str):
        raise WireError("bad-stream", "a stream has to be an object with `stream_id`; this is not")
    texts = ("call_uuid", "audio_track", "content_type", "status", "start_time", "end_time")
    return StreamInfo(
        stream_id=body["stream_id"],
        service_url=Secret(str(body.get("service_url") or "")),
        bidirectional=str(body.get("bidirectional")).lower() == "true",
        sampling_rate=_whole(body.get("sampling_rate")),
        stream_timeout_s=_whole(body.get("stream_timeout")),
        **{name: str(body.get(name) or "") for name in texts},
    )


def _whole(value: object) -> int:
    text = str(value)
    return int(text) if text.isdecimal() else 0


def _refusal(reply: http.Reply) -> VobizError:
    """Make one error of the four shapes; what is none of them (a proxy's page) is not quoted."""
    body = _object(reply)
    error = body.get("error")
    inner = error if isinstance(error, dict) else {}
    try:
        named = HTTPStatus(reply.status).phrase
    except ValueError:
        named = "unknown status"
    said = [inner.get("message")] if inner else [error, body.get("message"), body.get("details")]
    message = ": ".join(each for each in said if isinstance(each, str) and each) or named
    return VobizError(
        reply.status,
        str(inner.get("code") or named.lower().replace(" ", "-")),
        scrub(message)[:500],
        str(body.get("requestId") or body.get("api_id") or ""),
        _wait(reply),
    )


def _wait(reply: http.Reply) -> float | None:
    seconds = http.retry_after(reply)
    if seconds is not None:
        return seconds
    error = _object(reply).get("error")
    details = error.get("details") if isinstance(error, dict) else None
    value = details.get("retryAfter") if isinstance(details, dict) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 else None


def _object(reply: http.Reply) -> dict[str, Any]:
    try:
        body = reply.json(object)
    except WireError:
        return {}
    return body if isinstance(body, dict) else {}
