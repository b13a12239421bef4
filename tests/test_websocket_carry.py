"""A connection that is handed over to a consumer: what that is told, and that nothing else stands by; on real sockets.

How messages are taken, refused and gone on with in their order, by any line, is in ``test_websocket_core``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack

import anyio
import pytest
from carried import tasks
from test_websocket import masked, raw_websocket, rest, running

from mediaflow import websocket as ours
from mediaflow._websocket import core, stream
from mediaflow.listening import _Turns
from mediaflow.websocket import Closed, WebSocket, connect

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["serve", "portable"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name the server: on lines of our own, or as where there is no epoll."""
    if request.param == "portable":
        monkeypatch.setattr(ours, "driver", stream)
    return str(request.param)


class Consumer:
    """Keeps what it is told; wants no more after each of ``stops`` and breaks at ``bad``."""

    def __init__(self, *stops: bytes) -> None:
        self.told: list[object] = []
        self.stops = stops

    def take(self, message: bytes) -> bool:
        self.told.append(message)
        if message == b"bad":
            raise ZeroDivisionError
        return message not in self.stops

    def refused(self) -> None:
        self.told.append("refused")

    def ended(self, error: Exception) -> None:
        self.told.append((error.code, error.by) if isinstance(error, Closed) else type(error))

    async def has(self, number: int) -> None:
        """Wait until it was told so much."""
        while len(self.told) < number:
            await anyio.lowlevel.checkpoint()


class Handler:
    """Hands each connection over and is done."""

    def __init__(self, consumer: Consumer, first: Callable[[WebSocket], None] = WebSocket.go_on) -> None:
        self.sockets: list[WebSocket] = []
        self._consumer, self._first = consumer, first

    async def __call__(self, socket: WebSocket) -> None:
        socket.carry(self._consumer)
        self._first(socket)
        self.sockets.append(socket)

    async def one(self) -> WebSocket:
        """Wait for the connection."""
        while not self.sockets:
            await anyio.lowlevel.checkpoint()
        return self.sockets[0]


def nothing(socket: WebSocket) -> None:
    """Do not read yet."""


async def test_it_outlives_its_handler(kind: str) -> None:
    """Messages are taken and answered long after the handler is done, and the peer's close is told, once."""
    consumer = Consumer()
    handler = Handler(consumer)
    async with running(kind, handler) as server:
        async with connect(server.url) as client:
            await client.send("one")
            await consumer.has(1)
            assert handler.sockets[0].carried
            assert handler.sockets[0].send_nowait("two")
            assert await client.recv() == "two"
            await client.send(b"three")
            await client.close(4000)
        await consumer.has(3)
        await handler.sockets[0].wait_gone()
        assert not handler.sockets[0].carried
    assert consumer.told == [b"one", b"three", (4000, "peer")]


async def test_no_task_stands_by() -> None:
    """Ten carried connections are carried by as many tasks as none."""
    consumer = Consumer()
    async with running("serve", Handler(consumer)) as server, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(server.url))]
        await clients[0].send("x")
        await consumer.has(1)
        await anyio.wait_all_tasks_blocked()
        one = tasks()
        for _ in range(9):
            clients.append(await stack.enter_async_context(connect(server.url)))
            await clients[-1].send("x")
        await consumer.has(10)
        await anyio.wait_all_tasks_blocked()
        assert tasks() == one


async def test_nothing_is_given_before_it_goes_on(kind: str) -> None:
    """What came before is given first, what was read and what was not, and then what comes."""
    consumer = Consumer()
    handler = Handler(consumer, nothing)
    count = 3 * core.MAX_WAITING
    async with running(kind, handler) as server, connect(server.url) as client:
        for number in range(count):
            await client.send(b"%d" % number)
        socket = await handler.one()
        await anyio.wait_all_tasks_blocked()
        assert consumer.told == []
        socket.go_on()
        await consumer.has(count)
        await client.send(b"last")
        await consumer.has(count + 1)
    assert consumer.told[: count + 1] == [*(b"%d" % number for number in range(count)), b"last"]


async def test_the_end_comes_behind_what_waits(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that has ended, and whose line is gone, before it goes on is given to the last message first."""
    monkeypatch.setattr(core, "CLOSE_TIMEOUT", 0.05)  # when the line is cut that nobody reads
    consumer = Consumer()

    async def handler(socket: WebSocket) -> None:
        assert await socket.recv() == b"a"
        await anyio.wait_all_tasks_blocked()
        socket.carry(consumer)
        seen.set()
        await socket.wait_gone()
        assert consumer.told == []
        socket.go_on()

    seen = anyio.Event()
    async with running(kind, handler) as server:
        async with raw_websocket(server) as raw:
            await raw.send(
                b"".join(masked(0x82, message) for message in (b"a", b"b", b"c")) + masked(0x88, b"\x0f\xa0")
            )
            await seen.wait()
        await consumer.has(3)
    assert consumer.told == [b"b", b"c", (4000, "peer")]


@pytest.mark.parametrize("first", [b"", b"first"], ids=["from the wire", "from the inbox"])
async def test_a_refusal_is_told_once(kind: str, first: bytes) -> None:
    """Nothing is given behind it, neither more messages nor the end, until it goes on."""
    consumer = Consumer(b"stop")
    sockets: list[WebSocket] = []

    async def handler(socket: WebSocket) -> None:
        if first:
            assert await socket.recv() == first  # the rest of that read waits for `recv`
        socket.carry(consumer)
        socket.go_on()
        sockets.append(socket)

    async with running(kind, handler) as server:
        async with raw_websocket(server) as raw:
            sent = [masked(0x82, first)] if first else []
            sent += [masked(0x82, message) for message in (b"a", b"stop", b"b", b"stop", b"c")]
            await raw.send(b"".join(sent))
            await consumer.has(3)
            await raw.send(masked(0x82, b"d") + masked(0x88, b"\x0f\xa0"))
        await anyio.wait_all_tasks_blocked()
        assert consumer.told == [b"a", b"stop", "refused"]
        assert sockets[0].carried
        sockets[0].go_on()
        assert consumer.told == [b"a", b"stop", "refused", b"b", b"stop", "refused"]
        sockets[0].go_on()
        await consumer.has(9)
        await sockets[0].wait_gone()
    assert consumer.told[6:] == [b"c", b"d", (4000, "peer")]


@pytest.mark.parametrize("first", [b"", b"first"], ids=["from the wire", "from the inbox"])
async def test_what_take_raises_gives_the_socket_back(kind: str, first: bytes) -> None:
    """The consumer is told its own exception as the end; the next message is there for recv, and for another."""
    consumer, second = Consumer(), Consumer()
    got: list[str | bytes] = []

    async def handler(socket: WebSocket) -> None:
        if first:
            assert await socket.recv() == first
        socket.carry(consumer)
        socket.go_on()
        await consumer.has(3)
        assert not socket.carried
        got.append(await socket.recv())
        socket.carry(second)
        socket.go_on()

    async with running(kind, handler) as server, raw_websocket(server) as raw:
        sent = [masked(0x82, first)] if first else []
        sent += [masked(0x82, b"a"), masked(0x82, b"bad"), masked(0x81, b"b"), masked(0x82, b"c")]
        await raw.send(b"".join(sent) + masked(0x88, b""))
        assert (await rest(raw))[:1] == b"\x88"
        await second.has(2)
    assert consumer.told == [b"a", b"bad", ZeroDivisionError]
    assert got == ["b"]
    assert second.told == [b"c", (1005, "peer")]


async def test_what_is_released_can_be_received(kind: str) -> None:
    """Taken back while it refuses, and while it waits, it is for who receives; the consumer hears no more."""
    consumer = Consumer(b"stop")
    handler = Handler(consumer)
    async with running(kind, handler) as server, connect(server.url) as client:
        for message in (b"a", b"stop", b"b"):
            await client.send(message)
        await consumer.has(3)
        socket = handler.sockets[0]
        socket.release()
        assert await socket.recv() == b"b"
        socket.carry(consumer)
        socket.go_on()
        socket.release()
        socket.release()
        await client.send("c")
        assert await socket.recv() == "c"
        await socket.close(4001)
        assert (await client.wait_closed()).code == 4001
    assert consumer.told == [b"a", b"stop", "refused"]


async def test_who_receives_is_not_disturbed(kind: str) -> None:
    """Neither can a connection be carried that somebody receives from, nor the other way round."""
    done = anyio.Event()

    async def handler(socket: WebSocket) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(socket.recv)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError):
                socket.carry(Consumer())
            assert not socket.carried
            await socket.send("go")
        socket.carry(Consumer())
        with pytest.raises(anyio.BusyResourceError):
            await socket.recv()
        socket.go_on()
        done.set()

    async with running(kind, handler) as server, connect(server.url) as client:
        assert await client.recv() == "go"
        await client.send("x")
        await done.wait()


@pytest.mark.parametrize("phase", ["carried", "held", "refused", "closing"])
async def test_a_server_that_stops_closes_what_is_carried(
    kind: str, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 1001, unless it was being closed already; nothing is open when the server is done."""
    monkeypatch.setattr(core, "ABORT_TIMEOUT", 0.1)  # how long the answer of the peer is waited for that is not read
    consumer = Consumer(b"stop")
    handler = Handler(consumer, nothing if phase == "held" else WebSocket.go_on)
    async with running(kind, handler) as server, connect(server.url) as client:
        socket = await handler.one()
        if phase == "refused":
            await client.send(b"stop")
            await consumer.has(2)
        if phase == "closing":
            socket.close_nowait(4002, "bye")
        server.scope.cancel()
        code = (await client.wait_closed()).code
        await server.stopped.wait()
        with anyio.fail_after(0):
            await socket.wait_gone()
    assert code == (4002 if phase == "closing" else 1001)
    if phase in ("carried", "closing"):
        assert consumer.told == [(code, "us")]


async def test_a_server_that_stops_leaves_a_close_its_time(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is being closed already is not cut off before the peer, who may be far away, has answered."""
    monkeypatch.setattr(core, "ABORT_TIMEOUT", 0.05)
    handler = Handler(Consumer())
    async with running(kind, handler) as server:
        async with raw_websocket(server) as raw:
            (await handler.one()).close_nowait(4002)
            server.scope.cancel()
            assert await raw.receive() == b"\x88\x02\x0f\xa2"
            with anyio.move_on_after(0.2) as waited:
                await raw.receive()
            assert waited.cancelled_caught
            await raw.send(masked(0x88, b"\x0f\xa2"))
            assert await rest(raw) == b""
        await server.stopped.wait()


async def test_a_handler_that_breaks_or_is_cancelled_keeps_nothing_open(kind: str) -> None:
    """Handed over or not, the connection is closed with 1011, and the consumer is told."""
    consumer = Consumer()

    async def handler(socket: WebSocket) -> None:
        socket.carry(consumer)
        socket.go_on()
        raise ZeroDivisionError

    async with running(kind, handler) as server, connect(server.url) as client:
        assert (await client.wait_closed()).code == 1011
        await consumer.has(1)
    assert consumer.told == [(1011, "us")]


@pytest.mark.parametrize("way", ["broken", "protocol", "keepalive"])
async def test_every_end_is_told(kind: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that is lost, a peer that breaks the protocol, and one that answers no ping."""
    if way == "keepalive":
        monkeypatch.setattr(core, "PING_INTERVAL", 0.02)
        monkeypatch.setattr(core, "PING_TIMEOUT", 0.1)
    consumer = Consumer()
    handler = Handler(consumer)
    async with running(kind, handler) as server:
        async with raw_websocket(server) as raw:
            await raw.send(masked(0x82, b"a"))
            await consumer.has(1)
            if way == "protocol":
                await raw.send(masked(0x83, b"?"))
            if way == "keepalive":
                await consumer.has(2)  # not only when the line has been cut
        await consumer.has(2)
        await handler.sockets[0].wait_gone()
    assert consumer.told == [
        b"a",
        {"broken": (1006, "broken"), "protocol": (1002, "us"), "keepalive": (1011, "us")}[way],
    ]


async def test_it_counts_for_as_long_as_it_is_open() -> None:
    """Of those whose turn it is to accept: a connection that no task serves is one all the same."""
    numbers: list[int] = []
    count = _Turns.count
    consumer = Consumer()
    with pytest.MonkeyPatch.context() as patch:

        def counted(self: _Turns, more: int) -> None:
            count(self, more)
            numbers.append(self._own)

        patch.setattr(_Turns, "count", counted)
        async with running("serve", Handler(consumer)) as server:
            async with connect(server.url) as one, connect(server.url) as two:
                await one.send("x")
                await two.send("x")
                await consumer.has(2)
                await anyio.wait_all_tasks_blocked()
                assert numbers == [1, 2]
            while len(numbers) < 4:
                await anyio.lowlevel.checkpoint()
    assert numbers == [1, 2, 1, 0]
