"""What the carrier asks and tells of calls by HTTP, beside their sockets.

It asks what to do with a call (``/answer``: fork its audio to us, and connect it meanwhile), and it tells what becomes
of the call and of its streams (``/status``, ``/hangup``)::

    path       called for                         answer
    /answer    answer URL of a number or a call   the XML that leads the audio here
    /status    status callback of a stream        200, also where it comes again or is of an event nobody knows
    /hangup    hang-up URL of a number or a call  the same; without ``Event`` it is a hang-up
    any        refused                            403: not signed, or the wrong secret; 400: no callback

Who may ask: with ``auth_token`` what Vobiz has signed, once (``_vobiz_nonces``), else who knows the source's secret,
which then is the last part of these paths as it is of the socket's: ``/answer/SECRET``.

A callback may be told of a call whose socket has not said ``start`` yet; it is kept until then.  One that comes when
the call is over, as the hang-up often does, still stands in its account.  A call that was hung up is not opened again:
carriers are known to connect once more behind the end.

Where several workers answer, any of them may be asked.  What one is told it tells the others, so that the one which has
the call, or will have it, knows; nonces are refused by all (``_vobiz_nonces``).
"""

from __future__ import annotations

import hmac
import logging
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol
from urllib.parse import quote, unquote, urlsplit

import anyio
import msgspec
from anyio.abc import TaskStatus

from mediaflow import Engine, Secret, WireError, answer, control, fellows
from mediaflow.callback import Callback, Memory, Signatures, parse
from mediaflow.httpd import Request, Response
from mediaflow.websocket import Address

from ._vobiz_nonces import Nonces, kept

logger = logging.getLogger(__name__)

EARLY_CALLS, EARLY_EACH = 200, 10
"""Of how many calls that have not connected yet callbacks are kept, and how many of each."""

LATE_CALLS = 100
"""How many calls that are over may still be told something; with one that ends every second, those of 100 seconds."""

ANSWER, STATUS, HANGUP = "/answer", "/status", "/hangup"

_COUNTED = {"DegradedStream": "degraded-stream", "DroppedStream": "dropped-stream", "MediaError": "media-error"}


_news = msgspec.json.Decoder(tuple[str, str, str, dict[str, str], tuple[str | None, ...]])
"""Reads a callback as one worker tells it to the others."""


class Hearer(Protocol):
    """A call that is told what the carrier says of it."""

    def hear(self, event: str, stream_id: str, facts: Mapping[str, str]) -> None: ...


class Options(Protocol):
    """What is needed of the source's options."""

    @property
    def control(self) -> str: ...
    @property
    def public_url(self) -> str: ...
    @property
    def secret(self) -> Secret | None: ...
    @property
    def auth_token(self) -> Secret | None: ...
    @property
    def dial(self) -> str: ...
    @property
    def caller_id(self) -> str: ...
    @property
    def reconnect_s(self) -> float: ...
    @property
    def certificate(self) -> str: ...
    @property
    def key(self) -> str: ...


def check_control(options: Options, listen: Address) -> Address | None:
    """Return where to answer, None where nothing is asked for; raise ValueError if options contradict each other."""
    if not options.control:
        if options.public_url or options.auth_token or options.dial or options.caller_id:
            raise ValueError("public_url, auth_token, dial and caller_id are for control, which is not given")
        return None
    address = Address.parse(options.control, ("http", "https"))
    if address.path:
        raise ValueError(f"control has no path of its own: it answers at {ANSWER}, {STATUS} and {HANGUP}")
    if address.port and (address.host, address.port) == (listen.host, listen.port):
        raise ValueError("control needs a port of its own, not the one of listen")
    if not address.is_loopback and not (options.auth_token or options.secret):
        raise ValueError(f"control at {address.host} can be reached by others: it needs auth_token or secret")
    if options.caller_id and not options.dial:
        raise ValueError("caller_id is what dial shows, but dial is not given")
    build_answer(options, listen.path)
    return address


class ControlDesk:
    """Answers the carrier's requests and tells calls what concerns them."""

    def __init__(self, options: Options, path: str, engine: Engine, find: Callable[[str], Hearer | None]) -> None:
        self._options, self._engine, self._find = options, engine, find
        self._secret = options.secret.reveal().encode() if options.secret and not options.auth_token else b""
        self._signatures: Signatures | None = None
        self._nonces: Nonces
        self._answer = build_answer(options, path, engine.replies)
        self._seen = Memory()
        self._hung_up = Memory()
        self._early: OrderedDict[str, list[Callback]] = OrderedDict()
        self._over: OrderedDict[str, Hearer] = OrderedDict()
        self._here = fellows.here()
        self.routes = {ANSWER: self.answer, STATUS: self.status, HANGUP: self.hangup}

    async def serve(
        self, ready: Callable[[], bool], *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Answer at ``control`` until cancelled; raises SourceError where that cannot be."""
        address = Address.parse(self._options.control, ("http", "https"))

        def listening(port: int) -> None:
            logger.info("control answers at %s", address.url(port))
            task_status.started()

        self._here.hear = lambda news: self._learn(Callback(*_news.decode(news)))
        files = self._options.certificate, self._options.key
        certificate = control.Certificate(*files) if address.scheme == "https" else None
        token = self._options.auth_token
        with kept(self._engine.state if token else None) as self._nonces:
            if token:
                self._signatures = Signatures(token, self._options.public_url, self._nonces)
            await control.serve(self.routes, address, ready=ready, listening=listening, certificate=certificate)

    def opened(self, call_id: str, call: Hearer) -> None:
        """Tell a new call what came before it."""
        self._over.pop(call_id, None)
        for callback in self._early.pop(call_id, ()):
            call.hear(callback.event, callback.stream_id, callback.facts)

    def closed(self, call_id: str, call: Hearer) -> None:
        """Keep a call that is over for what may still be told of it."""
        self._over[call_id] = call
        if len(self._over) > LATE_CALLS:
            self._over.popitem(last=False)

    def hung_up(self, call_id: str) -> bool:
        """Say whether the carrier has told that the call is over."""
        return call_id in self._hung_up

    async def answer(self, request: Request) -> Response:
        """Tell the carrier what to do with a call."""
        return await self._admitted(request, lambda: Response(200, self._answer, answer.CONTENT_TYPE))

    async def status(self, request: Request) -> Response:
        """Take what becomes of a stream or a call."""
        return await self._admitted(request, lambda: self._take(request, ""))

    async def hangup(self, request: Request) -> Response:
        """Take that a call is over."""
        return await self._admitted(request, lambda: self._take(request, "Hangup"))

    async def _admitted(self, request: Request, then: Callable[[], Response]) -> Response:
        """Do ``then`` for who may ask it."""
        token = unquote("/".join(request.path.split("/")[2:])).encode()
        if not hmac.compare_digest(token, self._secret):
            return self._refuse(403, "refused-token")
        if self._signatures is None:
            return then()
        try:
            nonces = self._signatures.check(request)
            with self._unwritten():
                if not await self._nonces.take(nonces):
                    raise WireError("replayed-nonce", "a request with this nonce has been answered already")
        except WireError as error:
            # At a level that is seen: a public_url that is not the one Vobiz calls looks just like this.
            logger.warning("a request at %s was refused: %s", "/" + request.path.split("/")[1], error)
            return self._refuse(403, error.code)
        response = then()
        if response.status != 200:  # it may come again
            with self._unwritten():
                await self._nonces.give_back(nonces)
        return response

    @contextmanager
    def _unwritten(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:  # a full disk must not keep us from hearing that a call is over
            self._engine.count("nonces-unwritten")
            logger.error("nonces cannot be written in %s: %s", self._engine.state, error)

    def _take(self, request: Request, event: str) -> Response:
        try:
            callback = parse(request, event)
        except WireError as error:
            # What we do not know today is no fault of theirs, and would only be sent again.
            return self._refuse(200 if error.code == "unknown-event" else 400, error.code)
        if callback.key in self._seen:
            self._engine.count("repeated-callback")
            return Response(200)
        if callback.event in _COUNTED:
            self._engine.count(_COUNTED[callback.event])
        self._learn(callback)
        self._here.tell(msgspec.json.encode(callback).decode())
        return Response(200)

    def _learn(self, callback: Callback) -> None:
        """Take what was told here, or by a fellow, to the call."""
        self._seen.add(callback.key)
        if callback.event == "Hangup":
            self._hung_up.add(callback.call_id)
        call = self._find(callback.call_id) or self._over.get(callback.call_id)
        if call is not None:
            call.hear(callback.event, callback.stream_id, callback.facts)
        elif not self.hung_up(callback.call_id):
            early = self._early.setdefault(callback.call_id, [])
            if len(early) < EARLY_EACH:
                early.append(callback)
            if len(self._early) > EARLY_CALLS:
                self._early.popitem(last=False)
        else:
            self._early.pop(callback.call_id, None)

    def _refuse(self, status: int, code: str) -> Response:
        self._engine.count(code)
        return Response(status)


def build_answer(options: Options, path: str, replies: bool = False) -> bytes:
    """Return the XML for a call whose socket comes to ``path``; with ``replies`` its stream goes both ways.

    Raises ValueError where ``public_url`` or what Vobiz would refuse (``answer.AnswerError``) is in the way.
    """
    public = urlsplit(options.public_url)
    if public.scheme not in ("http", "https") or not public.hostname or public.query or public.fragment:
        raise ValueError("public_url has to be the https:// address that Vobiz reaches us at, without a query")
    base = options.public_url.rstrip("/")
    secret = f"/{quote(options.secret.reveal(), safe='')}" if options.secret else ""
    stream = answer.Stream(
        audio_track="inbound" if replies else "both",
        url=f"ws{base.removeprefix('http')}{path}{secret}",
        status_url=f"{base}{STATUS}{'' if options.auth_token else secret}",
        max_retries=3 if options.reconnect_s else 0,
    )
    if replies:
        # The stream holds the call; once it has ended, nobody is there to talk to.
        return answer.converse(stream, answer.Hangup(), keep_call_alive=bool(stream.max_retries))
    return answer.listen(stream, answer.Dial(options.dial, options.caller_id) if options.dial else answer.Wait())
