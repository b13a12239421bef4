"""WebSockets: both ends, on both backends, with a server of its own and behind an HTTP listener."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import pytest
import trustme

from mediaflow import httpd, websocket
from mediaflow._websocket import stream
from mediaflow.websocket import Address, Admit, Answer, Closed, Refused, Unreachable, WebSocket, connect, serve

pytestmark = pytest.mark.anyio

Handler = Callable[[WebSocket], Awaitable[None]]
AUDIO = bytes(range(256)) * 10


def admit_all(path: str) -> None:
    return None


@pytest.fixture(params=["serve", "accept", "portable"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name the server: with a port of its own, behind an HTTP listener, or as where there is no epoll."""
    if request.param == "portable":
        monkeypatch.setattr(websocket, "driver", stream)
    return str(request.param)


class Server:
    """A running server and a way to stop it."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.port = 0
        self.listening = anyio.Event()
        self.stopped = anyio.Event()
        self.scope = anyio.CancelScope()

    @property
    def url(self) -> str:
        return self.address.url(self.port)

    def listens(self, port: int) -> None:
        self.port = port
        self.listening.set()

    async def run(self, kind: str, handler: Handler, admit: Admit, tls: ssl.SSLContext | None) -> None:
        async def hello(request: httpd.Request) -> httpd.Response:
            return httpd.Response(200, b"{}")

        with self.scope:
            if kind != "accept":
                await serve(handler, self.address, admit=admit, listening=self.listens, tls=tls)
            else:
                await httpd.serve(hello, self.address, websocket=handler, admit=admit, listening=self.listens, tls=tls)
        self.stopped.set()


@asynccontextmanager
async def running(
    kind: str, handler: Handler, admit: Admit = admit_all, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    """Run a server for ``handler`` and give five seconds for everything."""
    scheme = "ws" if tls is None else "wss"
    server = Server(Address(scheme, "localhost" if tls else "127.0.0.1", 0, ""))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.run, kind, handler, admit, tls)
            await server.listening.wait()
            yield server
            server.scope.cancel()


async def echo(websocket: WebSocket) -> None:
    try:
        while True:
            await websocket.send(await websocket.recv())
    except Closed:
        pass


class Listener:
    """A handler that takes messages until the end, and keeps them and the end."""

    def __init__(self) -> None:
        self.messages: list[str | bytes] = []
        self._end: Closed | None = None
        self._ended = anyio.Event()

    async def __call__(self, websocket: WebSocket) -> None:
        try:
            while True:
                self.messages.append(await websocket.recv())
        except Closed as closed:
            self._end = closed
        self._ended.set()

    async def end(self) -> tuple[int, str, str]:
        """Wait for the end and return code, reason and who closed."""
        await self._ended.wait()
        assert self._end is not None
        return self._end.code, self._end.reason, self._end.by


async def test_text_and_bytes_come_back_as_they_went(kind: str) -> None:
    """Text stays text, bytes stay bytes, and the path reaches the handler with its query."""
    paths = []

    async def handler(websocket: WebSocket) -> None:
        paths.append(websocket.path)
        await echo(websocket)

    async with running(kind, handler) as server, connect(f"{server.url}/a/b?c=d") as websocket:
        await websocket.send("grüß")
        assert await websocket.recv() == "grüß"
        await websocket.send(AUDIO)
        assert await websocket.recv() == AUDIO
    assert paths == ["/a/b?c=d"]


async def test_many_messages_keep_their_order(kind: str) -> None:
    """A burst longer than any queue arrives whole and in order."""
    listener = Listener()
    messages = [bytes([number % 256]) * 320 for number in range(500)]
    async with running(kind, listener) as server:
        async with connect(server.url) as websocket:
            for message in messages:
                if not websocket.send_nowait(message):
                    await websocket.send(message)
        await listener.end()
    assert listener.messages == messages


async def test_send_nowait_needs_no_task_switch(kind: str) -> None:
    """It takes messages at once until much waits, and none once the connection is closed."""
    listener = Listener()
    message = bytes(100_000)
    sent = 0
    async with running(kind, listener) as server:
        async with connect(server.url) as websocket:
            while websocket.send_nowait(message):
                sent += 1
            assert sent > 0
            await websocket.close()
            assert not websocket.send_nowait(message)
        await listener.end()
    assert listener.messages == [message] * sent


async def test_a_ping_returns_when_the_peer_has_answered(kind: str) -> None:
    """Both ends can ping; the pong comes also while the other handler does nothing."""
    pinged = anyio.Event()

    async def handler(websocket: WebSocket) -> None:
        await websocket.ping()
        await websocket.ping()
        pinged.set()
        await websocket.wait_closed()

    async with running(kind, handler) as server, connect(server.url) as websocket:
        await websocket.ping()
        await pinged.wait()


async def test_a_ping_may_leave_with_what_is_sent_next(kind: str) -> None:
    """In front of it and in one write; or where nothing is sent, when it is pushed."""
    numbers: list[int] = []

    async def handler(websocket: WebSocket) -> None:
        numbers.append(websocket.ping_along())
        await websocket.recv()
        await websocket.send(b"audio")
        websocket.push_along()  # there is none any more
        numbers.append(websocket.ping_along())
        await websocket.recv()
        websocket.push_along()
        await websocket.recv()
        assert websocket.ponged == numbers[1]

    async with running(kind, handler) as server, raw_websocket(server) as raw:
        await raw.send(masked(0x81, b"go"))
        assert await raw.receive() == b"\x89\x04\x00\x00\x00\x01\x82\x05audio"
        await raw.send(masked(0x81, b"on"))
        assert await raw.receive() == b"\x89\x04\x00\x00\x00\x02"
        await raw.send(masked(0x8A, b"\x00\x00\x00\x02") + masked(0x81, b"end") + masked(0x88, b"\x03\xe8"))
        assert await rest(raw) == b"\x88\x02\x03\xe8"


async def test_a_ping_ends_with_the_connection(kind: str) -> None:
    """A ping that is not answered raises when the line is lost, and so does one after that."""
    done = anyio.Event()

    async def handler(websocket: WebSocket) -> None:
        await websocket.recv()
        for _ in range(2):
            with pytest.raises(Closed):
                await websocket.ping()
        done.set()

    async with running(kind, handler) as server:
        async with raw_websocket(server) as raw:
            await raw.send(masked(0x81, b"go"))
            assert (await raw.receive())[0] == 0x89
        await done.wait()


@pytest.mark.parametrize("code", [1000, 4000])
async def test_closed_by_the_peer(kind: str, code: int) -> None:
    """The code and reason of the server reach the client, and it says who closed."""
    listener = Listener()

    async def handler(websocket: WebSocket) -> None:
        await websocket.close(code, "unknown")
        await listener(websocket)

    async with running(kind, handler) as server, connect(server.url) as websocket:
        with pytest.raises(Closed) as caught:
            await websocket.recv()
        assert (caught.value.code, caught.value.reason, caught.value.by) == (code, "unknown", "peer")
        with pytest.raises(Closed):
            await websocket.send(b"late")
        assert await listener.end() == (code, "unknown", "us")


async def test_closed_by_the_client(kind: str) -> None:
    """The server's handler learns the client's code and cannot send any more; a second close is no error."""
    listener = Listener()
    refused = anyio.Event()

    async def handler(websocket: WebSocket) -> None:
        await listener(websocket)
        with pytest.raises(Closed):
            await websocket.send("late")
        refused.set()

    async with running(kind, handler) as server, connect(server.url) as websocket:
        await websocket.close(4123, "over")
        await websocket.close()
        assert (await websocket.wait_closed()).by == "us"
        assert await listener.end() == (4123, "over", "peer")
        await refused.wait()


async def test_a_cut_line_is_told_from_a_close(kind: str) -> None:
    """A client that vanishes without a closing handshake gives 1006, broken."""
    listener = Listener()
    async with running(kind, listener) as server:
        async with raw_websocket(server) as raw:
            await raw.send(masked(0x81, b"hello"))
        assert await listener.end() == (1006, "", "broken")
    assert listener.messages == ["hello"]


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def masked(opcode: int, payload: bytes) -> bytes:
    """Return a client's frame with the mask 0, which leaves the payload as it is."""
    return bytes([opcode, 0x80 | len(payload)]) + bytes(4) + payload


@asynccontextmanager
async def raw_websocket(server: Server) -> AsyncIterator[anyio.abc.SocketStream]:
    """Make the handshake by hand and give the bytes behind it."""
    async with await anyio.connect_tcp("127.0.0.1", server.port) as raw:
        await raw.send(UPGRADE)
        head = b""
        while b"\r\n\r\n" not in head:
            head += await raw.receive()
        # RFC 6455, section 1.3, gives this answer for this very key.
        assert head.startswith(b"HTTP/1.1 101 ") and b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
        yield raw


async def rest(raw: anyio.abc.SocketStream) -> bytes:
    """Return everything that the server sends until it closes."""
    data = bytearray()
    try:
        while True:
            data += await raw.receive()
    except anyio.EndOfStream:
        return bytes(data)


async def test_fragments_are_joined_and_pings_answered_between(kind: str) -> None:
    """A message in three fragments with a ping among them is one message."""
    listener = Listener()
    frames = [masked(0x02, b"ab"), masked(0x89, b"ping"), masked(0x00, b"c"), masked(0x80, b"d")]
    async with running(kind, listener) as server:
        async with raw_websocket(server) as raw:
            await raw.send(b"".join(frames) + masked(0x88, b"\x03\xe8"))
            assert await rest(raw) == b"\x8a\x04ping" + b"\x88\x02\x03\xe8"
        assert await listener.end() == (1000, "", "peer")
    assert listener.messages == [b"abcd"]


async def test_frames_right_behind_the_request_are_not_lost() -> None:
    """What a hasty client sends before our answer is read all the same."""
    listener = Listener()
    async with running("accept", listener) as server:
        async with await anyio.connect_tcp("127.0.0.1", server.port) as raw:
            await raw.send(UPGRADE + masked(0x82, b"early") + masked(0x88, b"\x03\xe8"))
            assert (await rest(raw)).endswith(b"\x88\x02\x03\xe8")
        assert await listener.end() == (1000, "", "peer")
    assert listener.messages == [b"early"]


@pytest.mark.parametrize(
    ("sent", "code"), [(masked(0x81, b"\xff\xfe"), 1007), (b"\x82\x01a", 1002), (masked(0x83, b""), 1002)]
)
async def test_what_breaks_the_protocol_ends_the_connection(kind: str, sent: bytes, code: int) -> None:
    """Text that is not UTF-8, a frame without a mask, an unknown opcode: the handler sees the close code only."""
    listener = Listener()
    async with running(kind, listener) as server, raw_websocket(server) as raw:
        await raw.send(sent)
        answer = await raw.receive()
        assert (answer[0], int.from_bytes(answer[2:4], "big")) == (0x88, code)
        await raw.send(masked(0x88, answer[2:4]))
        await raw.send_eof()
        await rest(raw)
        assert (await listener.end())[::2] == (code, "us")
    assert listener.messages == []


async def test_a_long_message_closes_with_1009(kind: str) -> None:
    """Ten mebibytes are refused with the code for it."""
    listener = Listener()
    async with running(kind, listener) as server:
        async with connect(server.url) as websocket:
            try:
                await websocket.send(bytes(10 << 20))
                closed = await websocket.wait_closed()
            except Closed as error:
                closed = error
        assert (await listener.end())[::2] == (1009, "us")
    # A reset for what was not read any more may overtake the close frame.
    assert (closed.code, closed.by) in [(1009, "peer"), (1006, "broken")]
    assert listener.messages == []


async def test_a_path_that_is_not_admitted_gets_a_plain_answer(kind: str) -> None:
    """The answer of ``admit`` stands in the place of the upgrade."""

    def admit(path: str) -> Answer | None:
        return None if path == "/in" else Answer(404, "no such place")

    async with running(kind, echo, admit) as server:
        with pytest.raises(Refused) as caught:
            async with connect(f"{server.url}/out"):
                pass
        async with connect(f"{server.url}/in") as websocket:
            await websocket.send("x")
            assert await websocket.recv() == "x"
    assert caught.value.status == 404


async def test_a_bad_handshake_is_refused(kind: str) -> None:
    """An upgrade without a key is answered with 400."""
    async with running(kind, echo) as server, await anyio.connect_tcp("127.0.0.1", server.port) as raw:
        await raw.send(UPGRADE.replace(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b""))
        assert (await rest(raw)).startswith(b"HTTP/1.1 400 ")


async def test_nobody_listens() -> None:
    """A refused connection is ``Unreachable``, and its text names the place but not the path."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(Unreachable, match=f"ws://127.0.0.1:{port}") as caught:
        async with connect(f"ws://127.0.0.1:{port}/capability"):
            pass
    assert "capability" not in str(caught.value)


async def test_a_peer_that_says_nothing_is_given_up() -> None:
    """After the time for opening, and the error says that it was that."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as silent:
        port = silent.extra(anyio.abc.SocketAttribute.local_port)
        with pytest.raises(Unreachable, match=rf"ws://127.0.0.1:{port}: TimeoutError"):
            async with connect(f"ws://127.0.0.1:{port}/", open_timeout=0.05):
                pass


@pytest.mark.parametrize("url", ["http://127.0.0.1/capability", "ws:///capability", "ws://127.0.0.1/capability#x"])
async def test_what_is_no_websocket_url(url: str) -> None:
    """A URL of another kind is ``Unreachable`` too, and stays out of the text."""
    with pytest.raises(Unreachable, match="not a WebSocket URL") as caught:
        async with connect(url):
            pass
    assert "capability" not in str(caught.value)


async def test_a_peer_that_is_no_websocket_server() -> None:
    """A server that talks something else is ``Unreachable``."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)

        async def talk(stream: anyio.abc.SocketStream) -> None:
            async with stream:
                await stream.receive()
                await stream.send(b"220 smtp.example ESMTP\r\n")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, talk)
            with pytest.raises(Unreachable), anyio.fail_after(5):
                async with connect(f"ws://127.0.0.1:{port}"):
                    pass
            tasks.cancel_scope.cancel()


async def test_tls_and_a_certificate_that_nobody_trusts(kind: str) -> None:
    """wss works with a trusted authority and is ``Unreachable`` without."""
    authority = trustme.CA()
    theirs, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(theirs)
    authority.configure_trust(ours)
    async with running(kind, echo, tls=theirs) as server:
        async with connect(server.url, tls=ours) as websocket:
            await websocket.send(AUDIO)
            assert await websocket.recv() == AUDIO
        with pytest.raises(Unreachable, match="certificate"):
            async with connect(server.url):
                pass


async def test_a_stop_cancels_the_handlers_and_waits_for_what_they_shield(kind: str) -> None:
    """Cancelling the server ends each handler by cancellation, lets it finish, and tells the client."""
    started, finished = anyio.Event(), []

    async def handler(websocket: WebSocket) -> None:
        started.set()
        try:
            await websocket.recv()
        finally:
            with anyio.CancelScope(shield=True):
                await websocket.send("last words")
                await anyio.lowlevel.checkpoint()
                finished.append(True)

    async with running(kind, handler) as server, connect(server.url) as websocket:
        await started.wait()
        server.scope.cancel()
        assert await websocket.recv() == "last words"
        assert (await websocket.wait_closed()).code == 1001
        await server.stopped.wait()
        assert finished == [True]


async def test_leaving_by_an_exception_is_quick_and_keeps_it(kind: str) -> None:
    """The caller's exception comes out as it is and the server learns that we went away."""
    listener = Listener()
    async with running(kind, listener) as server:
        with pytest.raises(ZeroDivisionError):
            async with connect(server.url):
                raise ZeroDivisionError
        assert await listener.end() == (1001, "", "peer")


async def test_a_handler_that_fails_closes_its_own_connection_only(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """The client sees 1011, the server goes on."""

    async def handler(websocket: WebSocket) -> None:
        if websocket.path == "/bad":
            raise ZeroDivisionError("secret")
        await echo(websocket)

    async with running(kind, handler) as server:
        async with connect(f"{server.url}/bad") as websocket:
            assert (await websocket.wait_closed()).code == 1011
        async with connect(f"{server.url}/good") as websocket:
            await websocket.send("x")
            assert await websocket.recv() == "x"
    assert len(caplog.records) == 1


async def test_cancelling_a_connection_leaves_nothing_behind(kind: str) -> None:
    """A block that is cancelled in the middle of a receive ends at once."""
    async with running(kind, echo) as server:
        with anyio.CancelScope() as scope:
            async with connect(server.url) as websocket:
                await websocket.send("x")
                await websocket.recv()
                scope.cancel()
                await websocket.recv()
        assert scope.cancelled_caught


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("http://x:1", "not a ws:// or wss:// address"),
        ("ws://:1", "names no host"),
        ("ws://127.0.0.1", "names no port"),
    ],
)
def test_an_address_says_what_it_lacks(url: str, complaint: str) -> None:
    """A listening address without a scheme, host or port says so."""
    with pytest.raises(ValueError, match=complaint):
        Address.parse(url)


def test_an_address_taken_apart_and_put_together() -> None:
    """The port that was really bound goes in, and IPv6 keeps its brackets."""
    assert Address.parse("ws://[::1]:0/calls/").url(8080) == "ws://[::1]:8080/calls"
    assert Address.parse("wss://localhost:1").is_loopback
    assert not Address.parse("ws://0.0.0.0:1").is_loopback
