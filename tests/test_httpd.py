"""The HTTP listener: requests, limits, and how it stops."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http.client import HTTPConnection
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trustme

from mediaflow import http, httpd
from mediaflow.httpd import Request, Response
from mediaflow.websocket import Address

pytestmark = pytest.mark.anyio

END = b"\r\n\r\n"


async def mirror(request: Request) -> Response:
    text = f"{request.method} {request.path} {request.query} {request.headers.get('x-a', '')} ".encode()
    return Response(200, text + request.body, "text/plain")


class Server:
    """A running listener."""

    def __init__(self) -> None:
        self.port = 0
        self.scope = anyio.CancelScope()
        self.up, self.down = anyio.Event(), anyio.Event()

    def listening(self, port: int) -> None:
        self.port = port
        self.up.set()

    async def talk(self, *parts: bytes) -> bytes:
        """Send bytes, one write each, and return all that comes back until the server closes."""
        answer = bytearray()
        async with await anyio.connect_tcp("127.0.0.1", self.port) as stream:
            for part in parts:
                await stream.send(part)
                await anyio.lowlevel.checkpoint()
            try:
                while True:
                    answer += await stream.receive()
            except anyio.EndOfStream:
                return bytes(answer)


@asynccontextmanager
async def running(
    handler: Callable[[Request], Awaitable[Response]] = mirror, tls: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[Server]:
    """Run a listener, and fail after ten seconds."""
    server = Server()

    async def serve() -> None:
        with server.scope:
            host = "localhost" if tls else "127.0.0.1"
            await httpd.serve(handler, Address("http", host, 0, ""), listening=server.listening, tls=tls, **options)
        server.down.set()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            await server.up.wait()
            yield server
            server.scope.cancel()


async def test_a_stock_client_over_one_connection() -> None:
    """The standard library's client sends several requests over one connection and gets their answers."""

    def ask(port: int) -> list[tuple[int, bytes, str | None]]:
        client = HTTPConnection("127.0.0.1", port)
        answers = []
        for method, body in (("GET", None), ("POST", b"body"), ("HEAD", None), ("POST", b"x" * 100_000)):
            client.request(method, "/p/q?a=b", body, {"X-A": "1"})
            response = client.getresponse()
            answers.append((response.status, response.read(), response.getheader("Content-Length")))
        client.close()
        return answers

    async with running() as server:
        answers = await anyio.to_thread.run_sync(ask, server.port)
    assert answers == [
        (200, b"GET /p/q a=b 1 ", "15"),
        (200, b"POST /p/q a=b 1 body", "20"),
        (200, b"", "16"),
        (200, b"POST /p/q a=b 1 " + b"x" * 100_000, "100016"),
    ]


async def test_a_request_in_small_pieces_and_two_in_one() -> None:
    """Where the bytes are cut does not matter, and pipelined requests are answered in order."""
    request = b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
    last = b"GET /2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    async with running() as server:
        whole = await server.talk(request + last)
        pieces = await server.talk(*(bytes([byte]) for byte in request + last))
    for answer in (whole, pieces):
        assert answer.count(b"HTTP/1.1 200 ") == 2
        assert answer.index(b"POST /1   abc") < answer.index(b"GET /2")


async def test_a_chunked_body() -> None:
    """A body without a length is put together."""
    head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with running() as server:
        answer = await server.talk(head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert answer.endswith(b"POST /   abcde")


async def test_repeated_headers_are_joined() -> None:
    """Names are in lower case, values of the same name joined by commas."""
    async with running() as server:
        answer = await server.talk(b"GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nx-a: 2\r\nConnection: close\r\n\r\n")
    assert answer.endswith(b"GET /  1, 2 ")


@pytest.mark.parametrize("size", [b"Content-Length: 11", b"Transfer-Encoding: chunked"])
async def test_a_body_that_is_too_long(size: bytes) -> None:
    """It is refused with 413, by its head or on its way, and the connection closed."""
    head = b"POST / HTTP/1.1\r\nHost: x\r\n" + size + END
    async with running(max_body=10) as server:
        answer = await server.talk(head, b"b\r\n" + b"x" * 11 + b"\r\n0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer.lower()


async def test_a_head_that_is_too_long() -> None:
    """It is refused with 431."""
    async with running() as server:
        answer = await server.talk(b"GET / HTTP/1.1\r\nX: " + b"y" * 20_000)
    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_what_is_no_http() -> None:
    """It is refused with 400, and the listener goes on."""
    async with running() as server:
        assert (await server.talk(b"\x16\x03\x01 hello" + END)).startswith(b"HTTP/1.1 400 ")
        assert (await server.talk(b"GET / HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_expect_100_continue() -> None:
    """The client is told to go on when the body is wanted, and not when it is refused by its head."""
    head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    async with running(max_body=10) as server:
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            await stream.send(head % 3)
            assert await stream.receive() == b"HTTP/1.1 100 \r\n\r\n"
            await stream.send(b"abc")
            assert (await stream.receive()).endswith(b"POST /   abc")
        assert (await server.talk(head % 11)).startswith(b"HTTP/1.1 413 ")


async def test_slow_requests_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection without a request is closed in silence, a body that does not come answered with 408."""
    monkeypatch.setattr(httpd, "IDLE_S", 0.05)
    monkeypatch.setattr(httpd, "BODY_S", 0.05)
    async with running() as server:
        assert await server.talk(b"GET / HT") == b""
        answer = await server.talk(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na")
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_handler_that_fails_or_hangs(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """500 and 503; the log names the error's type and place, not its text, and the connection goes on."""
    monkeypatch.setattr(httpd, "HANDLER_S", 0.05)

    async def handler(request: Request) -> Response:
        if request.path == "/fail":
            raise ZeroDivisionError("secret")
        if request.path == "/hang":
            await anyio.sleep_forever()
        return Response(204)

    get = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"
    async with running(handler) as server:
        answer = await server.talk(get % b"/fail" + get % b"/hang" + b"GET / HTTP/1.0\r\n\r\n")
    statuses = [line[9:12] for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    assert statuses == [b"500", b"503", b"204"]
    assert "ZeroDivisionError" in caplog.text and "secret" not in caplog.text


async def test_a_stop_answers_what_was_asked() -> None:
    """A request that is being handled when the listener is cancelled gets its answer."""
    handling, go_on = anyio.Event(), anyio.Event()

    async def handler(request: Request) -> Response:
        handling.set()
        await go_on.wait()
        return Response(200, b"done", "text/plain")

    async with running(handler) as server, await anyio.connect_tcp("127.0.0.1", server.port) as stream:
        await stream.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await handling.wait()
        server.scope.cancel()
        await anyio.lowlevel.checkpoint()
        assert not server.down.is_set()
        go_on.set()
        assert (await stream.receive()).endswith(b"done")
        await server.down.wait()
        with pytest.raises(OSError):
            await anyio.connect_tcp("127.0.0.1", server.port)


async def test_tls() -> None:
    """https works, and a client that speaks plain HTTP to it harms nobody."""
    authority = trustme.CA()
    theirs, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(theirs)
    authority.configure_trust(ours)
    async with running(tls=theirs) as server:
        async with http.connect(f"https://localhost:{server.port}", tls=ours) as client:
            assert (await client.request("GET", "/")).body == b"GET /   "
        try:
            async with await anyio.connect_tcp("localhost", server.port) as stream:
                await stream.send(b"GET / HTTP/1.1\r\n\r\n")
                while True:
                    await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            pass
        async with http.connect(f"https://localhost:{server.port}", tls=ours) as client:
            assert (await client.request("GET", "/")).status == 200
