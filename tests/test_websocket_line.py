"""Lines on sockets of our own, and the turns that they are read in; the peers are sockets of the standard library."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import select
import socket
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from carried import feed
from event_loops import LOOPS
from test_websocket import UPGRADE, masked, running

from mediaflow import listening, websocket
from mediaflow._websocket import core, endpoint, stream
from mediaflow._websocket.acks import FIRST, LAST, NEVER, acknowledge_less
from mediaflow._websocket.hub import Hub, Member, current
from mediaflow._websocket.line import Line
from mediaflow.websocket import Closed, WebSocket, connect

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="lines of our own need epoll"),
]


async def nothing() -> None:
    """Be ready at once."""


@asynccontextmanager
async def peer(port: int) -> AsyncIterator[socket.socket]:
    """Connect a socket that blocks, so that what it does is done before the event loop has its turn."""
    async with await anyio.connect_tcp("127.0.0.1", port) as opened:
        await opened.send(UPGRADE)
        head = b""
        while b"\r\n\r\n" not in head:
            head += await opened.receive()
        plain = opened.extra(anyio.abc.SocketAttribute.raw_socket)
        with socket.socket(fileno=socket.dup(plain.fileno())) as sock:
            sock.setblocking(True)
            yield sock


def reset(sock: socket.socket) -> None:
    """Cut a connection so that the peer sees a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize(("calls", "written"), [(4, [0, 0, 1, 1, 2, 2, 3, 3]), (8, [0] * 16)])
async def test_all_that_is_ready_is_read_before_anything_is_written(calls: int, written: list[int]) -> None:
    """Eight calls have sent; each answer waits until the last of them is read, and then leaves in one write.

    Where there are only a few they do not wait for each other.
    """
    taken: list[bytes] = []
    answered: list[int] = []
    peers: list[socket.socket] = []
    fed = anyio.Semaphore(0)

    async def handler(websocket: WebSocket) -> None:
        def take(message: bytes) -> bool:
            taken.append(message)
            answered.append(len(select.select(peers, [], [], 0)[0]))
            return websocket.send_nowait(message)

        with contextlib.suppress(Closed):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(feed, websocket, take, nothing)
                await anyio.lowlevel.checkpoint()
                fed.release()

    async with running("serve", handler) as server, contextlib.AsyncExitStack() as stack:
        for _ in range(calls):
            peers.append(await stack.enter_async_context(peer(server.port)))
            await fed.acquire()
        for number, sock in enumerate(peers):
            sock.send(masked(0x82, b"a%d" % number) + masked(0x82, b"b%d" % number))
        for number, sock in enumerate(peers):
            await anyio.wait_readable(sock)
            assert sock.recv(99) == b"\x82\x02a%d\x82\x02b%d" % (number, number)
    assert sorted(taken) == sorted(b"%c%d" % (letter, number) for letter in b"ab" for number in range(calls))
    assert answered == written


@pytest.mark.parametrize(("sockets", "reads"), [(1, 1), (2, 256), (3, 258)])
async def test_a_turn_looks_again_under_load(sockets: int, reads: int) -> None:
    """Each message brings the next one of its socket: where there are several the turn reads on, but not for ever."""
    taken: list[bytes] = []
    peers: list[socket.socket] = []
    fed = anyio.Semaphore(0)

    async def handler(websocket: WebSocket) -> None:
        def take(message: bytes) -> bool:
            taken.append(message)
            peers[message[0]].send(masked(0x82, message))
            return True

        with contextlib.suppress(Closed):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(feed, websocket, take, nothing)
                await anyio.lowlevel.checkpoint()
                fed.release()

    async with running("serve", handler) as server, contextlib.AsyncExitStack() as stack:
        for _ in range(sockets):
            peers.append(await stack.enter_async_context(peer(server.port)))
            await fed.acquire()
        for number, sock in enumerate(peers):
            sock.send(masked(0x82, bytes([number])))
        current().turn()
        assert len(taken) == reads
        for sock in peers:
            sock.shutdown(socket.SHUT_WR)
        peers[:] = [Deaf()] * sockets  # type: ignore[list-item]


class Deaf:
    """In the place of a peer that says no more."""

    def send(self, data: bytes) -> None:
        """Say nothing."""


@pytest.mark.parametrize("quick", [0, 1])
def test_every_second_segment_is_acknowledged(quick: int) -> None:
    """What the kernel has left is turned off again, and asked for later; what it has kept is left alone."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, quick)
        assert acknowledge_less(sock, 100) == (200 if quick else 100)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == 0
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        assert acknowledge_less(sock, LAST) == LAST


def test_sockets_without_acknowledgements_are_never_asked_again() -> None:
    """A Unix socket knows no TCP."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert acknowledge_less(ours, FIRST) == NEVER


@pytest.mark.parametrize("driver", [endpoint, stream], ids=["line", "stream"])
async def test_acknowledgements_are_looked_at_while_a_call_is_read(
    driver: object, monkeypatch: pytest.MonkeyPatch, anyio_backend_name: str
) -> None:
    """After some reads the server's socket is out of the mode that a pause has brought it into."""
    if driver is stream and anyio_backend_name == "asyncio":
        pytest.skip("the loop's transport reads there")
    monkeypatch.setattr(websocket, "driver", driver)
    modes: list[int] = []
    first = 0

    async def handler(websocket: WebSocket) -> None:
        nonlocal first
        line = websocket._line
        assert isinstance(line, Line | stream.StreamLine)
        first = FIRST // 4 + line.fd % FIRST if isinstance(line, Line) else FIRST
        fd = line.fd if isinstance(line, Line) else line._stream.extra(anyio.abc.SocketAttribute.raw_socket).fileno()
        sock = socket.socket(fileno=socket.dup(fd))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        with contextlib.suppress(Closed):
            while True:  # and write nothing: an answer would bring it out of that mode by itself
                await websocket.recv()
                modes.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK))
        sock.close()

    async with running("serve", handler) as server, connect(server.url) as client:
        for number in range(2 * FIRST):
            await client.send(b"x")
            while len(modes) <= number:
                await anyio.lowlevel.checkpoint()
    # Not before its time; and a pause of 40 ms, as on a machine that is busy, brings it into that mode again.
    assert modes.index(0) >= first - 2  # the handshake was read before


async def test_a_peer_that_ends_its_direction_still_gets_what_was_sent() -> None:
    """What waited in the line goes out; whoever sends on learns that the connection is lost."""
    sent: list[int] = []
    ends: list[Closed] = []

    async def handler(websocket: WebSocket) -> None:
        await websocket.recv()
        with pytest.raises(Closed) as caught:
            while True:
                await websocket.send(bytes(50_000))
                sent.append(1)
        ends.append(caught.value)

    async with running("serve", handler) as server, peer(server.port) as sock:
        sock.send(masked(0x82, b"go"))
        while not sent:
            await anyio.lowlevel.checkpoint()
        before = -1
        while len(sent) != before:  # until it waits
            before = len(sent)
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
        sock.shutdown(socket.SHUT_WR)
        got = 0
        while True:
            await anyio.wait_readable(sock)
            if not (data := sock.recv(1 << 20)):
                break
            got += len(data)
        while not ends:
            await anyio.lowlevel.checkpoint()
    # The message that waited for room is in the line as well, and comes whole.
    assert got in (len(sent) * 50_004, (len(sent) + 1) * 50_004)
    assert (ends[0].code, ends[0].by) == (1006, "broken")


async def test_a_reset_while_nobody_reads_costs_no_turns() -> None:
    """The line is let go of until somebody wants more; then come the messages, and then the end."""
    got: list[bytes] = []
    stopped, go, over = anyio.Event(), anyio.Event(), anyio.Event()
    turns: list[int] = []

    async def ready() -> None:
        stopped.set()
        await go.wait()

    def take(message: bytes) -> bool:
        got.append(message)
        return message != b"stop"

    async def handler(websocket: WebSocket) -> None:
        with pytest.raises(Closed) as caught:
            await feed(websocket, take, ready)
        assert caught.value.by == "broken"
        over.set()

    async with running("serve", handler) as server:
        hub = current()
        async with peer(server.port) as sock:
            sock.send(masked(0x82, b"stop") + masked(0x82, b"held"))
            await stopped.wait()
            reset(sock)
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        turns.append(hub.poller.find())
        go.set()
        await over.wait()
    assert turns == [0]
    assert got == [b"stop", b"held"]


async def test_without_file_descriptors_callers_wait(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever cannot be let in is let in later, and the log says why it takes so long."""
    monkeypatch.setattr(listening, "AGAIN_S", 0.05)

    async def handler(websocket: WebSocket) -> None:
        await websocket.send(b"in")

    async with running("serve", handler) as server:
        sock = socket.socket()
        sock.setblocking(False)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket(fileno=socket.dup(sock.fileno())) as highest:
            free = highest.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            sock.connect_ex(("127.0.0.1", server.port))
            with caplog.at_level(logging.ERROR):
                while not caplog.records:
                    await anyio.lowlevel.checkpoint()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await anyio.wait_writable(sock)
        sock.send(UPGRADE)
        answer = b""
        while b"\x82\x02in" not in answer:
            await anyio.wait_readable(sock)
            answer += sock.recv(999)
        sock.close()
    assert "connections cannot be accepted" in caplog.text


async def test_the_next_address_of_a_host_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """One refuses, one answers; and if none does, that is the error."""

    async def handler(websocket: WebSocket) -> None:
        await websocket.send(b"here")

    async with running("serve", handler) as server:
        addresses = ["127.0.0.2", "127.0.0.3", "127.0.0.1"]

        async def resolve(host: str, port: int, **more: object) -> list[tuple[object, ...]]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

        monkeypatch.setattr(anyio, "getaddrinfo", resolve)
        async with connect(f"ws://somewhere:{server.port}/") as client:
            assert await client.recv() == b"here"
        addresses.pop()
        with pytest.raises(websocket.Unreachable, match="Connection refused"):
            async with connect(f"ws://somewhere:{server.port}/"):
                pass


async def test_an_address_that_says_nothing_gives_way_to_the_next_but_not_to_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So does one of a family that the system has not; the last one has all the time there is for opening."""
    monkeypatch.setattr(endpoint, "CONNECT_TIMEOUT", 0.05)

    async def handler(websocket: WebSocket) -> None:
        await websocket.send(b"here")

    async with running("serve", handler) as server, contextlib.AsyncExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.2", server.port), backlog=0))
        for _ in range(4):  # what has no room in the backlog is not answered
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(silent.getsockname())
        families = {"nowhere": 12345}
        addresses = ["nowhere", "127.0.0.2", "127.0.0.1"]

        async def resolve(host: str, port: int, **more: object) -> list[tuple[object, ...]]:
            return [(families.get(each, socket.AF_INET), socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses]

        monkeypatch.setattr(anyio, "getaddrinfo", resolve)
        async with connect(f"ws://somewhere:{server.port}/") as client:
            assert await client.recv() == b"here"
        addresses[:] = ["127.0.0.2"]
        with anyio.move_on_after(0.3) as patience:
            async with connect(f"ws://somewhere:{server.port}/"):
                pass
        assert patience.cancelled_caught


class Timed(Member):
    """Keeps when it was told that its time has come."""

    def __init__(self, fd: int, hub: Hub, order: list[tuple[str, bool]], name: str, told: anyio.Semaphore) -> None:
        super().__init__(fd, hub)
        self.order, self.name, self.told = order, name, told
        self.when = 0.0

    def set_deadline(self, deadline: float) -> None:
        self.when = deadline
        super().set_deadline(deadline)

    def expired(self) -> None:
        self.order.append((self.name, self.hub.now() >= self.when))
        self.told.release()
        if self.name == "broken":
            raise ZeroDivisionError


async def test_deadlines_come_in_order_and_once(caplog: pytest.LogCaptureFixture) -> None:
    """Set earlier, set later, set anew, and not at all after leaving; one that breaks does not hold up the next."""
    hub = current()
    assert hub is current()
    order: list[tuple[str, bool]] = []
    told = anyio.Semaphore(0)
    pairs = [socket.socketpair() for _ in range(5)]
    members = {
        name: Timed(ours.fileno(), hub, order, name, told)
        for name, (ours, _) in zip(("later", "earlier", "moved", "gone", "broken"), pairs, strict=True)
    }
    for member in members.values():
        hub.enter(member)
    now = hub.now()
    members["later"].set_deadline(now + 0.1)
    members["earlier"].set_deadline(now + 9.0)
    members["earlier"].set_deadline(now + 0.02)
    members["moved"].set_deadline(now + 0.01)
    members["moved"].set_deadline(now + 0.08)
    members["gone"].set_deadline(now + 0.03)
    members["broken"].set_deadline(now + 0.04)
    hub.leave(members["gone"])
    for _ in range(4):
        await told.acquire()
    assert order == [("earlier", True), ("broken", True), ("moved", True), ("later", True)]
    members["later"].set_deadline(hub.now())
    await told.acquire()
    assert order[4:] == [("later", True)]
    assert "ZeroDivisionError" in caplog.text
    for member, pair in zip(members.values(), pairs, strict=True):
        hub.leave(member)
        for end in pair:
            end.close()


class Tended(Member):
    """Puts off what it has to do when there is something to read; keeps that it was done, and whether corked."""

    def __init__(self, fd: int, hub: Hub, done: list[tuple[str, bool]], name: str) -> None:
        super().__init__(fd, hub)
        self.done, self.name = done, name

    def happened(self, readable: bool, writable: bool) -> None:
        self.hub.put_off(self)

    def tend(self) -> None:
        self.done.append((self.name, self.hub.cork.is_in))
        if self.name == "broken":
            raise ZeroDivisionError


async def test_what_is_put_off_is_done_behind_the_writes_of_a_turn_and_one_a_turn(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One that breaks harms no other."""
    hub = current()
    done: list[tuple[str, bool]] = []
    pairs = [socket.socketpair() for _ in range(3)]
    members = [
        Tended(ours.fileno(), hub, done, name) for name, (ours, _) in zip(("one", "broken", "two"), pairs, strict=True)
    ]
    for member, (_, theirs) in zip(members, pairs, strict=True):
        hub.enter(member)
        theirs.send(b"here")
    hub.poller.find()
    hub.poller.tell()
    for number in (1, 2, 3):
        hub.turn()
        assert len(done) == number
    assert sorted(done) == [("broken", False), ("one", False), ("two", False)]
    assert "ZeroDivisionError" in caplog.text
    for member, pair in zip(members, pairs, strict=True):
        hub.leave(member)
        for end in pair:
            end.close()


@pytest.mark.parametrize("loop", LOOPS)
def test_a_deadline_that_has_passed_is_followed_by_others(loop: str) -> None:
    """As under load, when an event loop is late with what was due before."""
    order: list[tuple[str, bool]] = []

    async def run() -> None:
        hub, told = current(), anyio.Semaphore(0)
        with contextlib.ExitStack() as stack:
            members = []
            for name in ("passed", "earlier", "later"):
                ours, _ = (stack.enter_context(end) for end in socket.socketpair())
                members.append(Timed(ours.fileno(), hub, order, name, told))
                hub.enter(members[-1])
            for member, seconds in zip(members, (-0.01, -0.02, 0.01), strict=True):
                member.set_deadline(hub.now() + seconds)
            with anyio.fail_after(5):
                for _ in members:
                    await told.acquire()
            for member in members:
                hub.leave(member)

    anyio.run(run, **LOOPS[loop])
    assert order == [("earlier", True), ("passed", True), ("later", True)]


async def test_a_socket_that_cannot_be_watched_is_closed(tmp_path: Path) -> None:
    """Here for being a file, which epoll does not take."""
    near, far = socket.socketpair()
    far.settimeout(5)
    file = (tmp_path / "file").open("w")
    with near, far, file:
        line = Line(file.fileno(), current(), near, None)
        with pytest.raises(OSError, match="cannot be watched"):
            line.open(line.become("", True, 1000))
        assert far.recv(1) == b""
        line.abort()
        assert not len(current().poller)


def test_every_event_loop_has_its_own_hub() -> None:
    """Also where one loop follows another in a thread."""

    async def find() -> Hub:
        return current()

    hubs = [asyncio.run(find()), asyncio.run(find()), anyio.run(find, backend="trio"), anyio.run(find, backend="trio")]
    assert len({id(hub) for hub in hubs}) == 4


async def test_a_write_limit_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that does not read makes ``send_nowait`` refuse; when it reads on all comes, and sending goes on."""
    accepted: list[int] = []
    refused, go_on, done = anyio.Event(), anyio.Event(), anyio.Event()

    async def handler(websocket: WebSocket) -> None:
        number = 0
        while websocket.send_nowait(number.to_bytes(4, "big") * 4000):
            number += 1
        accepted.append(number)
        line = websocket._line
        assert isinstance(line, Line) and line.full
        refused.set()
        await go_on.wait()
        await websocket.send(b"last")
        await websocket.close()
        done.set()

    async with running("serve", handler) as server, connect(server.url) as client:
        await refused.wait()
        go_on.set()
        got = [
            message for message in [await client.recv() for _ in range(accepted[0] + 1)] if isinstance(message, bytes)
        ]
        with pytest.raises(Closed):
            await client.recv()
        await done.wait()
    assert got == [*(number.to_bytes(4, "big") * 4000 for number in range(accepted[0])), b"last"]
    assert accepted[0] * 16_000 > core.WRITE_LIMIT
