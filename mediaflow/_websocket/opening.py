"""The opening handshake, both sides of it, without I/O: the one file that knows the ``websockets`` library.

The library reads and writes the HTTP messages and checks them.  It is given the head of the message alone: what comes
behind it are frames already, which are for our own core.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from websockets import exceptions as library
from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.uri import WebSocketURI, parse_uri

from ..errors import report
from .core import Refused, Unreachable

MAX_HEAD = 32 * 1024
"""Longest head of a request or answer in bytes; browsers with cookies stay below."""

_END = b"\r\n\r\n"

# No debug log: it would show paths, which are capabilities.
_logger = logging.getLogger(f"{__name__}.library")
_logger.setLevel(logging.WARNING)


class Answer(NamedTuple):
    """A plain HTTP answer given in the place of an upgrade."""

    status: int
    text: str
    content_type: str = "text/plain; charset=utf-8"


Admit = Callable[[str], Answer | None]
"""Look at the path of a request before the upgrade: None lets it in, an ``Answer`` is sent instead."""


class Outcome(NamedTuple):
    """What the server says to a request."""

    status: int
    """101 if the line is a WebSocket now."""
    path: str
    answer: bytes
    early: bytes
    """What came behind the request."""


def place(url: str) -> str:
    """Scheme, host and port of ``url``: its path may be a capability and stays out of messages."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


class _Head:
    """Gathers bytes until a head is whole."""

    def __init__(self) -> None:
        self.data = bytearray()

    def take(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Return the head and what is behind it, or None; a head that is too long counts as whole."""
        seen = max(0, len(self.data) - len(_END) + 1)
        self.data += data
        end = self.data.find(_END, seen)
        if end < 0:
            return (bytes(self.data), b"") if len(self.data) > MAX_HEAD else None
        end += len(_END)
        return bytes(self.data[:end]), bytes(self.data[end:])


class ServerOpening:
    """The server's side: bytes in, the answer out."""

    def __init__(self, admit: Admit) -> None:
        self._admit = admit
        self._head = _Head()

    def receive(self, data: bytes) -> Outcome | None:
        """Take what came; None while the request is not whole."""
        whole = self._head.take(data)
        if whole is None:
            return None
        head, early = whole
        protocol = _server()
        protocol.receive_data(head)
        events = protocol.events_received()
        if not events:
            return _respond(protocol, Request("", Headers()), Answer(400, "not a request\n"), b"")
        request = events[0]
        assert isinstance(request, Request)
        try:
            answer = self._admit(request.path)
        except Exception as error:
            report(_logger, "admission", error)
            answer = Answer(500, "")
        return _respond(protocol, request, answer, early)


def answer(path: str, headers: Iterable[tuple[str, str]], early: bytes) -> Outcome:
    """Answer a request that an HTTP listener has read already."""
    return _respond(_server(), Request(path, Headers(headers)), None, early)


def _server() -> ServerProtocol:
    return ServerProtocol(logger=_logger)


def _respond(protocol: ServerProtocol, request: Request, instead: Answer | None, early: bytes) -> Outcome:
    if instead is None:
        response = protocol.accept(request)
        response.headers["Server"] = "mediaflow"
    else:
        body = instead.text.encode()
        headers = {"Content-Type": instead.content_type, "Content-Length": str(len(body)), "Connection": "close"}
        response = Response(instead.status, "", Headers(headers), body)
    return Outcome(response.status_code, request.path, response.serialize(), early)


def parse(url: str) -> WebSocketURI:
    """Take a URL apart; raise ``Unreachable`` if it is none of a WebSocket."""
    try:
        return parse_uri(url)
    except library.InvalidURI as error:  # whose own text repeats the URL
        raise Unreachable(f"{place(url)}: not a WebSocket URL: {error.msg}") from None
    except ValueError as error:
        raise Unreachable(f"not a WebSocket URL: {error}") from None


class ClientOpening:
    """The client's side: the request out, bytes in."""

    def __init__(self, uri: WebSocketURI, headers: Mapping[str, str]) -> None:
        self._protocol = ClientProtocol(uri, logger=_logger)
        request = self._protocol.connect()
        request.headers.update(headers)
        request.headers.setdefault("User-Agent", "mediaflow")
        self.path = request.path
        self.request = request.serialize()
        self._head = _Head()

    def receive(self, data: bytes) -> bytes | None:
        """Take what came; return what is behind the answer, None while that is not whole.

        Raises ``Refused`` for an answer other than 101, a redirect too: where calls go is said in the pipeline and
        nowhere else.  Raises ConnectionError for what is no answer.
        """
        whole = self._head.take(data)
        if whole is None:
            if not b"HTTP/1.1 ".startswith(self._head.data[:9]):
                raise ConnectionError("did not receive a valid HTTP response")
            return None
        head, early = whole
        status = head[9:12]
        if status.isdigit() and head.startswith(b"HTTP/1.1 ") and status != b"101":
            raise Refused(int(status))
        self._protocol.receive_data(head)
        if self._protocol.handshake_exc is not None or not self._protocol.events_received():
            raise ConnectionError(self._protocol.handshake_exc or "the answer is too long")
        return early
