"""The control server, asked by clients that are not ours."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
import trustme

from mediaflow import SourceError, control, fellows
from mediaflow.httpd import Request, Response
from mediaflow.websocket import Address

pytestmark = pytest.mark.anyio

LOCAL = Address("http", "127.0.0.1", 0, "")


@pytest.fixture
def anyio_backend() -> str:
    """It runs on asyncio only."""
    return "asyncio"


async def _echo(request: Request) -> Response:
    if request.body == b"break":
        raise RuntimeError("with a s3cret")
    shown = [request.method, request.path, request.query, request.headers.get("x-a", ""), request.body.decode()]
    return Response(200, json.dumps(shown).encode(), headers=(("X-B", "2"),))


class Running:
    """A running server, and whether it is ready."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.ready = True

    def ask_now(
        self, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, method: str | None = None
    ) -> tuple[int, bytes]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body, headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    async def ask(
        self, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, method: str | None = None
    ) -> tuple[int, bytes]:
        """Ask as the standard library does, in a thread."""
        return await anyio.to_thread.run_sync(self.ask_now, path, body, headers, method)


@asynccontextmanager
async def _serving(certificate: control.Certificate | None = None) -> AsyncIterator[Running]:
    running, up = Running(), anyio.Event()

    def listening(port: int) -> None:
        running.port = port
        up.set()

    async def serve() -> None:
        await control.serve(
            {"/echo": _echo}, LOCAL, ready=lambda: running.ready, listening=listening, certificate=certificate
        )

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            await up.wait()
            yield running
            tasks.cancel_scope.cancel()


async def test_requests_reach_their_handlers() -> None:
    """Method, raw path, query, headers and body come as they were sent; what is below the path belongs to it."""
    async with _serving() as server:
        status, body = await server.ask("/echo?a=%20b&c", b"x=1", {"X-A": "ä"})
        assert (status, json.loads(body)) == (200, ["POST", "/echo", "a=%20b&c", "ä", "x=1"])
        status, body = await server.ask("/echo/s%2Fcret/x")
        assert (status, json.loads(body)) == (200, ["GET", "/echo/s%2Fcret/x", "", "", ""])
        assert [(await server.ask(path))[0] for path in ("/", "/echoes", "/Echo", "/healthz/", "/healthz/x")] == [
            404
        ] * 5
        assert (await server.ask("/echo", method="DELETE"))[0] == 405


async def test_health_and_readiness() -> None:
    """The process is alive in any case, and ready when it says so."""
    async with _serving() as server:
        assert await server.ask("/healthz") == (
            200,
            b'{"status":"ok","instance":"%s"}' % fellows.here().instance.encode(),
        )
        assert (await server.ask("/readyz"))[0] == 200
        server.ready = False
        assert await server.ask("/healthz") == (
            200,
            b'{"status":"ok","instance":"%s"}' % fellows.here().instance.encode(),
        )
        assert await server.ask("/readyz") == (503, b'{"status":"not ready"}')


async def test_what_is_too_long_and_what_breaks(caplog: pytest.LogCaptureFixture) -> None:
    """A long body is refused, a handler's failure is its own and shows no text, and the server goes on."""
    async with _serving() as server:
        assert (await server.ask("/echo", b"x" * control.MAX_BODY))[0] == 200
        assert (await server.ask("/echo", b"x" * (control.MAX_BODY + 1)))[0] == 413
        assert (await server.ask("/echo", b"break"))[0] == 500
        assert (await server.ask("/echo"))[0] == 200
    assert [record.getMessage() for record in caplog.records] == ["a POST request failed: RuntimeError"]


async def test_a_body_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for so long, and one that is cut off harms nobody."""
    monkeypatch.setattr(control, "BODY_S", 0.05)
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf"
    async with _serving() as server:
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            await stream.send(head)
            assert b" 408 " in await stream.receive()
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            await stream.send(head)
        assert (await server.ask("/echo"))[0] == 200


async def test_stopping_frees_the_port_and_leaves_signals_alone() -> None:
    """Behind a stop the port is free, an idle connection does not hold it, and Ctrl-C means what it meant."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    async with _serving() as server:
        assert (await server.ask("/healthz"))[0] == 200
        during = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        idle = await anyio.connect_tcp("127.0.0.1", server.port)
    assert before == during
    await idle.aclose()
    with socket.create_server(("127.0.0.1", server.port)):
        pass


async def test_what_is_being_answered_at_a_stop_is_still_answered() -> None:
    """The server waits for a handler that has begun, and sends what it says."""
    begun, go_on = anyio.Event(), anyio.Event()
    happened: list[object] = []

    async def slow(request: Request) -> Response:
        begun.set()
        await go_on.wait()
        happened.append("handled")
        return Response(200, b"late")

    running, up = Running(), anyio.Event()

    def listening(port: int) -> None:
        running.port = port
        up.set()

    async def serve(scope: anyio.CancelScope) -> None:
        with scope:
            await control.serve({"/slow": slow}, LOCAL, ready=lambda: True, listening=listening)
        happened.append("stopped")

    async def ask() -> None:
        happened.append(await running.ask("/slow"))

    scope = anyio.CancelScope()
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve, scope)
            await up.wait()
            tasks.start_soon(ask)
            await begun.wait()
            scope.cancel()
            with suppress(OSError):
                while True:  # until no more requests are taken
                    await running.ask("/healthz")
            go_on.set()
    assert (200, b"late") in happened
    assert happened.index("handled") < happened.index("stopped")


async def test_a_port_that_is_taken() -> None:
    """It says which."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SourceError, match=f"cannot listen at 127.0.0.1:{port}: "):
            await control.serve({}, LOCAL._replace(port=port), ready=lambda: True)


async def test_tls(tmp_path: Path) -> None:
    """It answers https with a certificate, and files that are none are named as the reason."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    certificate = control.Certificate(str(tmp_path / "chain.pem"), str(tmp_path / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(certificate.chain)
    issued.private_key_pem.write_to_path(certificate.key)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with _serving(certificate) as server:

        def ask() -> int:
            with urllib.request.urlopen(
                f"https://localhost:{server.port}/healthz", timeout=10, context=trusting
            ) as reply:
                return int(reply.status)

        assert await anyio.to_thread.run_sync(ask) == 200
    with pytest.raises(SourceError, match="certificate and key of the control server cannot be used"):
        await control.serve({}, LOCAL, ready=lambda: True, certificate=control.Certificate("none.pem", "none.pem"))


async def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is named, and how to get it."""
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(SourceError, match=r"needs uvicorn.*pip install 'mediaflow\[server\]'"):
        await control.serve({}, LOCAL, ready=lambda: True)


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_on_trio() -> None:
    """It says that it cannot."""
    with pytest.raises(SourceError, match="runs on asyncio only"):
        await control.serve({}, LOCAL, ready=lambda: True)
