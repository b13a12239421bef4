"""A small HTTP/1.1 listener, for the few requests that belong to a wire of ours.

The WebSocket library answers a plain GET but drops a request that has a body, and an ingest has to take JSON and
WebSockets on one port.  ``h11`` knows the protocol and does no I/O; here are the sockets, the limits and the clock:

    wait for a head     ``IDLE_S``      then the connection is closed without a word
    read the body       ``BODY_S``      408; longer than ``max_body``: 413; a head over ``MAX_HEAD``: 431
    run the handler     ``HANDLER_S``   503; an exception in it: 500
    write the answer    ``BODY_S``      then the connection is cut

An upgrade to WebSocket goes to ``mediaflow.websocket.accept`` with the bytes that came behind it.  ``Expect:
100-continue`` is answered when the body is about to be read, so a request that is refused by its head costs no upload.

When ``serve`` is cancelled it takes no more connections; a request whose body has been read is still answered, and
WebSocket handlers are cancelled, so what they shield is finished.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple

import anyio
import h11
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream

from .errors import report
from .listening import serve_streams
from .websocket import MAX_MESSAGE, Address, Admit, Closed, Refused, WebSocket, accept

MAX_HEAD = 16 * 1024
"""Bytes of a request line with its headers."""

MAX_BODY = 1 << 20
"""Bytes of a body, where the caller says nothing else."""

TLS_S, IDLE_S, BODY_S, HANDLER_S = 10.0, 75.0, 30.0, 30.0
"""Seconds for a TLS handshake, and for the steps of the table above.  75 s is what browsers and proxies expect."""

LINGER_S = 1.0
"""Seconds that a peer has to close after the last answer."""

_READ_SIZE = 64 * 1024

logger = logging.getLogger(__name__)


class Request(NamedTuple):
    """A request; names of headers are in lower case, values of the same name are joined by commas."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


class Response(NamedTuple):
    """An answer."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Request], Awaitable[Response]]


async def serve(
    handler: Handler,
    address: Address,
    *,
    listening: Callable[[int], None],
    tls: ssl.SSLContext | None = None,
    max_body: int = MAX_BODY,
    websocket: Callable[[WebSocket], Awaitable[None]] | None = None,
    admit: Admit = lambda path: None,
    max_message: int = MAX_MESSAGE,
) -> None:
    """Answer requests at ``address`` until cancelled; raises OSError if it cannot listen there.

    ``handler`` answers requests, ``websocket`` takes upgrades that ``admit`` lets in.  ``listening`` is called with the
    port once connections are taken.
    """

    async def connected(stream: ByteStream) -> None:
        try:
            if tls is not None:
                with anyio.fail_after(TLS_S):
                    stream = await TLSStream.wrap(stream, ssl_context=tls, standard_compatible=False)
            await _Conversation(stream, handler, websocket, admit, max_body, max_message).run()
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            pass  # the peer left, or was too slow: TimeoutError is an OSError
        except Exception as error:
            report(logger, "a connection", error)
        finally:
            await anyio.aclose_forcefully(stream)

    await serve_streams(connected, address.host, address.port, listening)


class _Refusal(Exception):
    """The request ends here with this status, and so does the connection."""

    def __init__(self, status: int) -> None:
        self.status = status


class _Conversation:
    """One connection and the requests that come over it."""

    def __init__(
        self,
        stream: ByteStream,
        handler: Handler,
        websocket: Callable[[WebSocket], Awaitable[None]] | None,
        admit: Admit,
        max_body: int,
        max_message: int,
    ) -> None:
        self._stream, self._handler, self._websocket, self._admit = stream, handler, websocket, admit
        self._max_body, self._max_message = max_body, max_message
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)

    async def run(self) -> None:
        """Answer request after request until one side closes."""
        try:
            while True:
                with anyio.fail_after(IDLE_S):
                    head = await self._next_event()
                if not isinstance(head, h11.Request):
                    return
                request = await self._request(head)
                if self._websocket is not None and request.headers.get("upgrade", "").lower() == "websocket":
                    answer = self._admit(head.target.decode("latin-1"))
                    if answer is None:
                        await self._upgrade(head, self._websocket)
                        return
                    response = Response(answer.status, answer.text.encode(), answer.content_type)
                    await self._answer(response, request.method)
                else:
                    with anyio.CancelScope(shield=True):
                        await self._answer(await self._handle(request), request.method)
                if self._http.our_state is not h11.DONE:
                    break
                self._http.start_next_cycle()
        except _Refusal as refusal:
            await self._refuse(refusal.status)
        except h11.RemoteProtocolError as error:
            await self._refuse(error.error_status_hint)
        await self._linger()

    async def _next_event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                await self._stream.send(self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            try:
                self._http.receive_data(await self._stream.receive(_READ_SIZE))
            except anyio.EndOfStream:
                self._http.receive_data(b"")
        return event

    async def _request(self, head: h11.Request) -> Request:
        headers: dict[str, str] = {}
        for raw_name, raw_value in head.headers:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        path, _, query = head.target.decode("latin-1").partition("?")
        if int(headers.get("content-length", "0")) > self._max_body:
            raise _Refusal(413)
        body = bytearray()
        try:
            with anyio.fail_after(BODY_S):
                while isinstance(event := await self._next_event(), h11.Data):
                    body += event.data
                    if len(body) > self._max_body:
                        raise _Refusal(413)
        except TimeoutError:
            raise _Refusal(408) from None
        return Request(head.method.decode("latin-1"), path, query, headers, bytes(body))

    async def _handle(self, request: Request) -> Response:
        with anyio.move_on_after(HANDLER_S):
            try:
                return await self._handler(request)
            except Exception as error:
                report(logger, f"a {request.method} request", error)
                return Response(500)
        return Response(503)

    async def _answer(self, response: Response, method: str, close: bool = False) -> None:
        headers = [("Date", formatdate(usegmt=True)), ("Server", "mediaflow"), *response.headers]
        if response.status != 204:
            headers += [("Content-Type", response.content_type), ("Content-Length", str(len(response.body)))]
        if close:
            headers.append(("Connection", "close"))
        reason = HTTPStatus(response.status).phrase
        data = self._http.send(h11.Response(status_code=response.status, headers=headers, reason=reason)) or b""
        if method != "HEAD" and response.body:
            data += self._http.send(h11.Data(data=response.body)) or b""
        data += self._http.send(h11.EndOfMessage()) or b""
        with anyio.fail_after(BODY_S):
            await self._stream.send(data)

    async def _refuse(self, status: int) -> None:
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            text = HTTPStatus(status).phrase.encode() + b"\n"
            await self._answer(Response(status, text, "text/plain; charset=utf-8"), "GET", close=True)

    async def _upgrade(self, head: h11.Request, handler: Callable[[WebSocket], Awaitable[None]]) -> None:
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers]
        early, _ = self._http.trailing_data
        path = head.target.decode("latin-1")
        try:
            async with accept(self._stream, path, headers, early=early, max_message=self._max_message) as websocket:
                try:
                    await handler(websocket)
                except Closed:
                    pass  # the peer left
                except Exception as error:
                    report(logger, "a WebSocket handler", error)
                    await websocket.close(1011)
        except Refused:
            await self._linger()

    async def _linger(self) -> None:
        # A socket closed with unread bytes resets the connection, which may overtake the answer.
        with suppress(NotImplementedError, anyio.EndOfStream), anyio.move_on_after(LINGER_S):
            await self._stream.send_eof()
            while True:
                await self._stream.receive(_READ_SIZE)
