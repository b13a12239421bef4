"""What Vobiz tells a server of ours by HTTP: callbacks, and how to know that they are Vobiz's.  No I/O.

A callback is a form in a POST, or a query in a GET; one page of Vobiz prints JSON under a form's header, so the body
says what it is, not the header.  It is sent again, up to three times, until it is answered 200 within three seconds:
the same callback may come twice, and is known by stream, event and timestamp (and ``Name``, for two checkpoints may be
played in the same second).

    Event                               says                                    field beside the usual
    StartApp, Ring                      the call was answered, rings
    StartStream                         the socket is open                      ServiceURL
    PlayedStream, ClearedAudio          what the socket has said too            Name
    DegradedStream, DroppedStream       the connection to us is bad, is lost    Error
    MediaError                          (named on one page only)                Error
    StopStream                          we have stopped the stream
    Hangup                              the call is over                        HangupCause…, HangupSource, Duration

Signatures, where the account has them turned on::

    X-Vobiz-Signature-V3, -V3-Nonce     base64(HMAC-SHA256(auth token, url + "." + nonce))
    X-Vobiz-Signature-V2, -V2-Nonce     base64(HMAC-SHA256(auth token, url + nonce))
    X-Vobiz-Signature-MA-V3, -MA-V2     the same with the token of the parent account, over the same nonce

``url`` is the public one without its query, which behind a proxy only the configuration knows.  The body is not signed
and the nonce holds no time, so all that keeps a copied request from working again is to remember nonces.  They are
remembered once a request has been answered well, for Vobiz may send one again with the nonce that it had.  A nonce has
digits only; with another sign allowed, a V3 signature of ``7`` would be a V2 signature of ``.7``.  V1 (SHA-1) is not
taken.

Documentation: https://vobiz.ai/docs, Callbacks and Validating callbacks.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl

import msgspec

from .component import Secret
from .errors import WireError
from .httpd import Request
from .vobiz import scrub

EVENTS = {
    *("StartApp", "Ring", "Hangup"),
    *("StartStream", "PlayedStream", "ClearedAudio", "DegradedStream", "DroppedStream", "MediaError", "StopStream"),
}
"""What ``Event`` may be."""

REMEMBERED = 20_000
"""Nonces and callbacks kept to know them again: at 15 callbacks a call, those of the last thousand calls."""

LONGEST_FACT = 200

_FACTS = {
    "Name": "name",
    "Error": "error",
    "HangupCauseName": "cause",
    "HangupCause": "cause",
    "HangupCauseCode": "code",
    "HangupSource": "source",
    "Duration": "duration",
    "Timestamp": "carrier_time",
}
"""What of a callback may be put on record; of two with the same meaning the first that is there.  Numbers are not."""

_NONCE = re.compile(r"[0-9]{1,64}")


class Callback(NamedTuple):
    """One callback; ``facts`` may be logged, ``key`` is the same when it comes again."""

    event: str
    call_id: str
    stream_id: str
    facts: Mapping[str, str]
    key: Hashable


def parse(request: Request, event: str = "") -> Callback:
    """Read a callback; ``event`` is what it is where it does not say so.

    Raises ``WireError``: ``bad-callback`` (it can be read, but lacks what every callback has), ``unknown-event``.
    """
    fields = _fields(request)
    event = fields.get("Event") or event
    call_id = fields.get("CallUUID", "")
    if not event or not call_id:
        raise WireError("bad-callback", "a callback has to hold Event and CallUUID; this one lacks one of them")
    if event not in EVENTS:
        raise WireError("unknown-event", f"{len(event)} letters that name no event of a callback")
    facts: dict[str, str] = {}
    for field, name in _FACTS.items():
        if fields.get(field):
            facts.setdefault(name, scrub(fields[field])[:LONGEST_FACT])
    stream_id = fields.get("StreamID", "")
    key = (call_id, stream_id, event, fields.get("Timestamp"), fields.get("Name"))
    return Callback(event, call_id, stream_id, facts, key)


def _fields(request: Request) -> dict[str, str]:
    body = request.body.strip()
    if not body:
        return dict(parse_qsl(request.query))
    if not body.startswith(b"{"):
        return dict(parse_qsl(body.decode("utf-8", "replace")))
    try:
        fields = msgspec.json.decode(body, type=dict[str, object])
    except msgspec.MsgspecError:
        raise WireError("bad-callback", f"{len(body)} bytes that begin as JSON and are none") from None
    return {name: str(value) for name, value in fields.items() if value is not None}


class Memory:
    """The last ``REMEMBERED`` things that were put into it."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, None] = OrderedDict()

    def __contains__(self, thing: object) -> bool:
        return thing in self._kept

    def add(self, thing: Hashable) -> None:
        """Remember ``thing``, and forget the oldest where there are too many."""
        self._kept[thing] = None
        if len(self._kept) > REMEMBERED:
            self._kept.popitem(last=False)

    def discard(self, thing: Hashable) -> None:
        """Forget ``thing``, if it is known."""
        self._kept.pop(thing, None)


class Signatures:
    """Knows whether a request comes from Vobiz: it is signed with the account's token, and never came before.

    ``nonces`` is what it remembers those that came by; one's own is empty at every start.
    """

    def __init__(self, token: Secret, public_url: str, nonces: Memory | None = None) -> None:
        self._token = token.reveal().encode()
        self._url = public_url.rstrip("/")
        self._nonces = Memory() if nonces is None else nonces

    def check(self, request: Request) -> frozenset[str]:
        """Return the nonces of the request, to be given to ``remember`` once it is answered well.

        Raises ``WireError``: ``no-signature``, ``bad-signature``, ``replayed-nonce``.
        """
        url = self._url + request.path
        nonces, good = set(), False
        for version, joint in (("v3", "."), ("v2", "")):
            nonce = request.headers.get(f"x-vobiz-signature-{version}-nonce", "")
            if not _NONCE.fullmatch(nonce):
                continue
            expected = self._sign(f"{url}{joint}{nonce}")
            for name in (f"x-vobiz-signature-{version}", f"x-vobiz-signature-ma-{version}"):
                given = request.headers.get(name, "")
                if given:
                    nonces.add(nonce)
                    good = hmac.compare_digest(given.encode(), expected) or good
        if not nonces:
            raise WireError("no-signature", "the request carries no signature of version 2 or 3 with its nonce")
        if not good:
            raise WireError(
                "bad-signature", "the request is not signed with this auth_token over this public_url and its path"
            )
        if any(nonce in self._nonces for nonce in nonces):
            raise WireError("replayed-nonce", "a request with this nonce has been answered already")
        return frozenset(nonces)

    def remember(self, nonces: frozenset[str]) -> None:
        """Let no request with these nonces pass again."""
        for nonce in nonces:
            self._nonces.add(nonce)

    def _sign(self, text: str) -> bytes:
        return base64.b64encode(hmac.digest(self._token, text.encode(), "sha256"))
