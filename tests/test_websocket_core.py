"""What a WebSocket does between its frames and its line: feeding, backpressure, corks, liveness; on real sockets.

The other side is the `websockets` library in a thread, which shares no code with ours from the first frame on, or bytes
by hand.  All kinds of line are tried: that of a socket of our own, and the stream's in both of its places.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import anyio
import pytest
import trustme
from carried import feed
from event_loops import LOOPS
from test_websocket import masked, raw_websocket, rest, running
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as library_connect
from websockets.sync.server import ServerConnection, serve as library_serve

from mediaflow import websocket as ours
from mediaflow._websocket import core, stream
from mediaflow._websocket.line import Line
from mediaflow.websocket import Closed, WebSocket, connect

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["serve", "accept", "portable"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name the server: with a port of its own, behind an HTTP listener, or as where there is no epoll."""
    if request.param == "portable":
        monkeypatch.setattr(ours, "driver", stream)
    return str(request.param)


async def nothing() -> None:
    """Be ready at once."""


class Consumer:
    """Takes messages, wants no more after each of ``stops``, and says when."""

    def __init__(self, stops: tuple[bytes, ...] = ()) -> None:
        self.messages: list[bytes] = []
        self.stops = stops
        self.stopped = anyio.Event()
        self.go = anyio.Event()

    def take(self, message: bytes) -> bool:
        self.messages.append(message)
        return message not in self.stops

    async def ready(self) -> None:
        self.stopped.set()
        await self.go.wait()


async def in_thread(work: Callable[[], None]) -> None:
    """Run blocking code of the library; it ends by itself, for the socket is closed under it if the test fails."""
    await anyio.to_thread.run_sync(work, abandon_on_cancel=True)


async def test_every_message_is_taken_where_it_is_read(kind: str) -> None:
    """A library client's text and bytes reach ``take`` as bytes, in order, and the end is its close."""
    consumer = Consumer()
    ends: list[Closed] = []
    messages: list[str | bytes] = ["grüß", b"", *(bytes([number % 256]) * number for number in range(400))]

    async def handler(websocket: WebSocket) -> None:
        with pytest.raises(Closed) as caught:
            await feed(websocket, consumer.take, nothing)
        ends.append(caught.value)

    def carrier(url: str) -> None:
        with library_connect(url, compression=None, proxy=None) as client:
            for message in messages:
                client.send(message)
            client.close(4001, "over")

    async with running(kind, handler) as server:
        await in_thread(partial(carrier, server.url))
        while not ends:
            await anyio.lowlevel.checkpoint()
    assert consumer.messages == [message.encode() if isinstance(message, str) else message for message in messages]
    assert (ends[0].code, ends[0].reason, ends[0].by) == (4001, "over", "peer")


async def test_who_wants_no_more_stops_the_peer(kind: str) -> None:
    """While ``ready`` waits nothing is taken, the sender runs against a full line, and then nothing is missing."""
    consumer = Consumer((b"0",))
    message, count = bytes(50_000), 400
    done = anyio.Event()

    async def handler(websocket: WebSocket) -> None:
        with contextlib.suppress(Closed):
            await feed(websocket, consumer.take, consumer.ready)
        done.set()

    async with running(kind, handler) as server, connect(server.url) as websocket:
        await websocket.send(b"0")
        await consumer.stopped.wait()
        sent = 0
        while True:
            before = sent
            with anyio.move_on_after(0.2):  # 20 MB do not fit into the buffers of a loopback socket
                while sent < count:
                    sent += 1
                    await websocket.send(message)
            if sent <= before + 1 or sent == count:  # what is sent waits in our own line then
                break
        assert sent < count
        assert consumer.messages == [b"0"]
        consumer.go.set()
        await websocket.send(b"last")
        await websocket.close()
        await done.wait()
    assert consumer.messages == [b"0", *[message] * sent, b"last"]


async def test_who_does_not_receive_stops_the_peer(kind: str) -> None:
    """A few messages wait for ``recv``, then we do not read; taking them lets it go on, and none is missing."""
    go, done = anyio.Event(), anyio.Event()
    got: list[str | bytes] = []
    waiting: list[int] = []
    message = bytes(50_000)

    async def handler(websocket: WebSocket) -> None:
        await go.wait()
        waiting.append(len(websocket._inbox or ()))
        with contextlib.suppress(Closed):
            while True:
                got.append(await websocket.recv())
        done.set()

    async with running(kind, handler) as server, connect(server.url) as websocket:
        sent = 0
        while True:
            before = sent
            with anyio.move_on_after(0.2):
                while sent < 400:
                    sent += 1
                    await websocket.send(message)
            if sent <= before + 1 or sent == 400:
                break
        assert sent < 400
        go.set()
        await websocket.send(b"last")
        await websocket.close()
        await done.wait()
    assert waiting == [core.MAX_WAITING]
    assert got == [*[message] * sent, b"last"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_loop_is_told_not_to_read(anyio_backend: str) -> None:
    """From a stop until ``ready`` returns the transport is not read; a full buffer alone would show it too late."""
    reading: list[bool] = []
    ended = anyio.Event()

    async def handler(websocket: WebSocket) -> None:
        line = websocket._line
        assert isinstance(line, Line)

        async def ready() -> None:
            reading.append(line.readable)

        reading.append(line.readable)
        with contextlib.suppress(Closed):
            await feed(websocket, lambda message: message == b"go", ready)
        ended.set()

    async with running("serve", handler) as server, connect(server.url) as websocket:
        for message in (b"stop", b"go", b"stop"):
            await websocket.send(message)
            await websocket.ping()
        await websocket.close()
        await ended.wait()
    assert reading == [True, False, False]


async def test_what_was_read_before_a_stop_is_kept_in_order(kind: str) -> None:
    """Messages of one read behind the one that stops wait for ``ready``, each stop anew; fragments and pings too."""
    frames = [masked(0x82, b"a"), masked(0x82, b"stop"), masked(0x89, b"p"), masked(0x02, b"b"), masked(0x80, b"c")]
    consumer = Consumer((b"stop",))
    seen: list[list[bytes]] = []

    async def ready() -> None:
        seen.append(list(consumer.messages))

    async def handler(websocket: WebSocket) -> None:
        await feed(websocket, consumer.take, ready)

    async with running(kind, handler) as server, raw_websocket(server) as raw:
        await raw.send(b"".join(frames * 2) + masked(0x88, b"\x03\xe8"))
        assert await rest(raw) == b"\x8a\x01p" * 2 + b"\x88\x02\x03\xe8"
    assert seen == [[b"a", b"stop"], [b"a", b"stop", b"bc", b"a", b"stop"]]
    assert consumer.messages == [b"a", b"stop", b"bc"] * 2


async def test_what_take_raises_ends_the_carrying(kind: str) -> None:
    """The exception reaches the consumer; the message counts as taken, and the next is there for recv."""
    got: list[str | bytes] = []

    async def handler(websocket: WebSocket) -> None:
        def take(message: bytes) -> bool:
            if message == b"bad":
                raise ZeroDivisionError
            got.append(message)
            return True

        with pytest.raises(ZeroDivisionError):
            await feed(websocket, take, nothing)
        got.append(await websocket.recv())
        with pytest.raises(Closed):
            await feed(websocket, take, nothing)

    async with running(kind, handler) as server, raw_websocket(server) as raw:
        sent = [masked(0x82, b"a"), masked(0x82, b"bad"), masked(0x81, b"b"), masked(0x82, b"c")]
        await raw.send(b"".join(sent) + masked(0x88, b""))
        assert (await rest(raw))[:1] == b"\x88"
    assert got == [b"a", "b", b"c"]


@pytest.mark.parametrize("by", ["recv", "feed", "ready"])
async def test_a_cancel_loses_and_doubles_nothing(kind: str, by: str) -> None:
    """Cancelled over and over while messages come, by turns received and carried: all are there once, in order."""
    got: list[bytes] = []
    count = 300

    def take(message: bytes) -> bool:
        got.append(message)
        return by != "ready" or len(got) % 3 > 0

    async def handler(websocket: WebSocket) -> None:
        turn = 0
        while len(got) < count:
            turn += 1
            with anyio.CancelScope() as scope, contextlib.suppress(Closed):
                async with anyio.create_task_group() as tasks:

                    async def cancel(steps: int = turn % 5, scope: anyio.CancelScope = scope) -> None:
                        for _ in range(steps):
                            await anyio.lowlevel.checkpoint()
                        scope.cancel()

                    tasks.start_soon(cancel)
                    if by == "recv" or turn % 2:
                        while True:
                            message = await websocket.recv()
                            assert isinstance(message, bytes)
                            got.append(message)
                    else:
                        await feed(websocket, take, anyio.lowlevel.checkpoint if by == "ready" else nothing)

    async with running(kind, handler) as server, connect(server.url) as websocket:
        for number in range(count):
            await websocket.send(b"%d" % number)
            if number % 7 == 0:
                await anyio.lowlevel.checkpoint()
        await websocket.wait_closed()
    assert got == [b"%d" % number for number in range(count)]


async def test_two_must_not_receive_at_once() -> None:
    """The second is told so, and the first is not disturbed."""
    done = anyio.Event()

    async def handler(websocket: WebSocket) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(websocket.recv)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await feed(websocket, lambda message: True, nothing)
            await websocket.send("go")
        done.set()

    async with running("serve", handler) as server, connect(server.url) as websocket:
        assert await websocket.recv() == "go"
        await websocket.send("x")
        await done.wait()


class Recorder:
    """A line that keeps what is written, and in which pieces."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.full = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def end(self) -> None:
        raise NotImplementedError

    abort = end

    def pause(self) -> None:
        pass

    resume = pause

    def now(self) -> float:
        return 0.0

    def set_deadline(self, deadline: float) -> None:
        pass

    async def drain(self) -> None:
        raise NotImplementedError


async def test_what_is_sent_for_one_read_leaves_in_one_write() -> None:
    """Twelve messages in one read give one write per socket; a long answer is not held back without bound.

    A message that came alone, whole or with its last part, is answered before ``take`` returns.
    """
    carrier_line, eka_line = Recorder(), Recorder()
    carrier = WebSocket(carrier_line, "/", server=True, max_message=1 << 20)
    eka = WebSocket(eka_line, "/", server=True, max_message=1 << 20)
    block = bytes(640)
    written: list[int] = []

    def take(message: bytes) -> bool:
        sent = eka.send_nowait(block) and carrier.send_nowait(b"ok")
        written.append(len(eka_line.writes) + len(carrier_line.writes))
        return sent

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(feed, carrier, take, anyio.lowlevel.checkpoint)
        await anyio.wait_all_tasks_blocked()
        carrier.received(masked(0x82, b"x") * 12 + masked(0x89, b"p"))
        assert [len(write) for write in eka_line.writes] == [12 * (640 + 4)]
        assert carrier_line.writes == [b"\x82\x02ok" * 12 + b"\x8a\x01p"]
        assert written == [0] * 12
        whole = masked(0x82, b"x" * 100)
        for piece in (whole, whole[:9], whole[9:], whole + whole[:50], whole[50:]):
            carrier.received(piece)
        assert written[12:] == [4, 6, 6, 10]  # the third had something behind it
        assert [len(write) for write in eka_line.writes] == [12 * 644, *[644] * 4]
        del eka_line.writes[1:]
        carrier.received(masked(0x82, b"x") * 1000)
        assert max(len(write) for write in eka_line.writes) <= core.WRITE_LIMIT + 644
        assert sum(len(write) for write in eka_line.writes) == 1012 * 644
        assert eka.send_nowait(b"outside") and eka_line.writes[-1] == b"\x82\x07outside"
        tasks.cancel_scope.cancel()


async def test_a_line_that_breaks_does_not_hold_back_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """What three sockets send for two messages of one read leaves by two of them; the third one's line is cut."""
    cut: list[int] = []

    class Broken(Recorder):
        def write(self, data: bytes) -> None:
            raise ZeroDivisionError

        def abort(self) -> None:
            cut.append(1)

    lines = [Recorder(), Broken(), Recorder()]
    sockets = [WebSocket(line, "/", server=True, max_message=1 << 20) for line in lines]
    carrier = WebSocket(Recorder(), "/", server=True, max_message=1 << 20)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(feed, carrier, lambda message: all(each.send_nowait(message) for each in sockets), nothing)
        await anyio.wait_all_tasks_blocked()
        carrier.received(masked(0x82, b"x") * 2)
        tasks.cancel_scope.cancel()
    assert [line.writes for line in lines] == [[b"\x82\x01x" * 2], [], [b"\x82\x01x" * 2]]
    assert cut == [1] and "ZeroDivisionError" in caplog.text


@asynccontextmanager
async def library_server(handler: Callable[[ServerConnection], None]) -> AsyncIterator[str]:
    """Serve with the library in a thread."""
    with library_serve(handler, "127.0.0.1", 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            await in_thread(thread.join)


async def test_a_library_server_hears_what_we_send_masked() -> None:
    """Text, bytes and long messages echo through the library, fed and received."""
    messages: list[str | bytes] = ["ü" * 100, bytes(range(256)) * 300, b"", b"x" * 125, b"y" * 126, "z" * 65_536]

    def echo(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)
        with contextlib.suppress(ConnectionClosed):
            connection.recv()

    async with library_server(echo) as url:
        with anyio.fail_after(5):
            async with connect(url) as websocket:
                for message in messages:
                    await websocket.send(message)
                    assert await websocket.recv() == message
                await websocket.ping()
                got: list[bytes] = []
                async with anyio.create_task_group() as tasks:

                    def take(message: bytes) -> bool:
                        got.append(message)
                        if len(got) == len(messages):
                            tasks.cancel_scope.cancel()
                        return True

                    tasks.start_soon(feed, websocket, take, nothing)
                    for message in messages:
                        if not websocket.send_nowait(message):
                            await websocket.send(message)
    assert got == [message.encode() if isinstance(message, str) else message for message in messages]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("secure", [False, True])
def test_every_loop_pauses_and_goes_on_with_and_without_tls(loop: str, secure: bool) -> None:
    """Large messages with a stop after every tenth, then a close: all arrive, in order."""
    authority = trustme.CA()
    theirs, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(theirs)
    authority.configure_trust(ours)
    got: list[bytes] = []
    messages = [number.to_bytes(4, "big") * 5_000 for number in range(200)]

    def take(message: bytes) -> bool:
        got.append(message)
        return len(got) % 10 > 0

    async def run() -> None:
        done = anyio.Event()

        async def handler(websocket: WebSocket) -> None:
            with contextlib.suppress(Closed):
                await feed(websocket, take, anyio.lowlevel.checkpoint)
            done.set()

        async with running("serve", handler, tls=theirs if secure else None) as server:
            async with connect(server.url, tls=ours if secure else None) as websocket:
                for message in messages:
                    if not websocket.send_nowait(message):
                        await websocket.send(message)
            await done.wait()

    anyio.run(run, **LOOPS[loop])
    assert got == messages


@contextmanager
def timeouts(monkeypatch: pytest.MonkeyPatch, **values: float) -> Iterator[None]:
    """Shorten the timeouts."""
    with monkeypatch.context() as patch:
        for name, value in values.items():
            patch.setattr(core, name, value)
        yield


async def test_a_peer_that_answers_no_ping_is_given_up(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets a ping, then close 1011, and the handler learns that; one that answers stays."""
    ended = anyio.Event()
    ends: list[Closed] = []

    async def handler(websocket: WebSocket) -> None:
        ends.append(await websocket.wait_closed())
        ended.set()

    with timeouts(monkeypatch, PING_INTERVAL=0.02, PING_TIMEOUT=0.6, CLOSE_TIMEOUT=0.2):
        async with running(kind, handler) as server:
            async with raw_websocket(server) as raw:
                pings = b""
                while len(pings) < 6:
                    pings += await raw.receive()
                    await raw.send(masked(0x8A, b""))
                assert pings == b"\x89\x00" * 3
                assert await rest(raw) == b"\x89\x00\x88\x18\x03\xf3keepalive ping timeout"
            await ended.wait()
    assert (ends[0].code, ends[0].by) == (1011, "us")


async def test_who_does_not_read_does_not_blame_the_peer(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pong behind messages that nobody takes yet is no missing pong."""
    consumer = Consumer((b"stop",))

    async def handler(websocket: WebSocket) -> None:
        await websocket.recv()
        assert websocket.send_nowait(b"fed")  # what comes before is not given on in the call that read it
        with contextlib.suppress(Closed):
            await feed(websocket, consumer.take, consumer.ready)

    with timeouts(monkeypatch, PING_INTERVAL=0.02, PING_TIMEOUT=0.3):
        async with running(kind, handler) as server, raw_websocket(server) as raw:
            await raw.send(masked(0x82, b"go"))
            sent = b""
            while b"\x82\x03fed" not in sent:
                sent += await raw.receive()
            await raw.send(masked(0x82, b"stop"))
            await consumer.stopped.wait()
            while len(sent) < len(b"\x82\x03fed" + b"\x89\x00"):
                sent += await raw.receive()
            assert sent in (b"\x82\x03fed\x89\x00", b"\x89\x00\x82\x03fed")
            await raw.send(masked(0x8A, b"") + masked(0x82, b"more"))
            with anyio.move_on_after(0.8):
                assert await raw.receive() == b""  # no close comes
            consumer.go.set()
            assert (await raw.receive())[:1] == b"\x89"
            await raw.send(masked(0x88, b""))
            while not (await raw.receive()).endswith(b"\x88\x00"):
                pass
    assert consumer.messages == [b"stop", b"more"]


async def test_a_peer_that_does_not_answer_a_close_is_cut_off(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Close returns at its deadline, and says that it was us."""
    ends: list[Closed] = []

    async def handler(websocket: WebSocket) -> None:
        await websocket.recv()
        await websocket.close(4002, "bye")
        ends.append(await websocket.wait_closed())

    with timeouts(monkeypatch, CLOSE_TIMEOUT=0.1):
        async with running(kind, handler) as server, raw_websocket(server) as raw:
            await raw.send(masked(0x82, b"go"))
            with contextlib.suppress(anyio.BrokenResourceError):
                assert await rest(raw) == b"\x88\x05\x0f\xa2bye"
            while not ends:
                await anyio.lowlevel.checkpoint()
    assert (ends[0].code, ends[0].reason, ends[0].by) == (4002, "bye", "us")


async def test_the_last_messages_before_a_lost_line_are_still_had(kind: str) -> None:
    """A peer that sends and vanishes while nobody takes: its messages come first, then the end, also its close."""
    got: list[str | bytes] = []
    stopped = anyio.Event()
    ends: list[Closed] = []

    async def handler(websocket: WebSocket) -> None:
        got.append(await websocket.recv())
        stopped.set()
        with pytest.raises(Closed):
            while True:
                await websocket.send(bytes(100_000))  # until the line is found lost
        with pytest.raises(Closed) as caught:
            while True:
                got.append(await websocket.recv())
        ends.append(caught.value)

    async with running(kind, handler) as server:
        async with raw_websocket(server) as raw:
            await raw.send(b"".join(masked(0x82, b"%d" % number) for number in range(100)))
            await stopped.wait()
        while not ends:
            await anyio.lowlevel.checkpoint()
    assert got[0] == b"0"
    assert got == [b"%d" % number for number in range(len(got))]
    assert len(got) >= core.MAX_WAITING
