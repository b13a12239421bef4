"""What workers know of each other, through a switchboard, in one process: on both backends, over real sockets."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import TaskGroup, TaskStatus

from mediaflow import _channel as wire, fellows, listening, websocket
from mediaflow._channel import Channel
from mediaflow.fellows import Fellows
from mediaflow.switchboard import Member, Switchboard
from mediaflow.websocket import Address, WebSocket

pytestmark = pytest.mark.anyio


class Team:
    """Workers, each a task, and what is between them."""

    def __init__(self, tasks: TaskGroup) -> None:
        self.tasks = tasks
        self.board = Switchboard()
        self.reports: list[wire.Up | wire.Report] = []
        self.scopes: dict[Fellows, anyio.CancelScope] = {}

    def hire(self) -> Fellows:
        """Have one more."""
        ours, theirs = socket.socketpair()
        worker = Fellows(Channel(theirs), "all of us")
        self.tasks.start_soon(self.board.serve, Member(ours, self.reports.append))
        self.tasks.start_soon(self._run, worker)
        return worker

    async def _run(self, worker: Fellows) -> None:
        with anyio.CancelScope() as self.scopes[worker]:
            await worker.run()

    def kill(self, worker: Fellows) -> None:
        """Cut the worker's line, as its death does."""
        self.scopes[worker].cancel()


@asynccontextmanager
async def team() -> AsyncIterator[Team]:
    """Begin without workers."""
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            all = Team(tasks)
            try:
                yield all
            finally:
                all.board.close()
            tasks.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    """Let the others run until it is so."""
    while not condition():
        await anyio.lowlevel.checkpoint()


async def settled(worker: Fellows) -> None:
    """Return when everything that the worker has said until now was heard."""
    async with worker.claimed("something else"):
        pass


class Heard:
    """Keeps what is told."""

    def __init__(self, worker: Fellows) -> None:
        self.news: list[str] = []
        worker.hear = self.news.append


async def test_alone() -> None:
    """Every name is ours, nobody hears, and nobody else counts."""
    here = fellows.here()
    assert here.alone and len(here.instance) == 16
    async with here.claimed("c") as line, here.claimed("c") as again:
        assert (line, again) == (None, None)
    here.tell("news")
    here.publish("calls", 3)
    assert here.others("calls") == 0


async def test_a_name_belongs_to_one() -> None:
    """As often as that one wants it, until it has let go of all; or until it is dead."""
    async with team() as all:
        one, two = all.hire(), all.hire()
        async with one.claimed("c") as first:
            assert first is None
            async with one.claimed("c") as again:
                assert again is None
            async with two.claimed("c") as line, two.claimed("d") as other:
                assert line is not None and other is None
        await settled(one)
        async with two.claimed("c") as line:
            assert line is None
            all.kill(two)
        await until(lambda: len(all.board.members) == 1)
        async with one.claimed("c") as line:
            assert line is None


async def test_who_is_late_gets_a_line_to_the_owner() -> None:
    """What is said into it arrives there, and where nobody takes it, it ends."""
    async with team() as all:
        one, two = all.hire(), all.hire()
        lines: list[socket.socket] = []
        one.take = lines.append
        async with one.claimed("c"):
            async with two.claimed("c") as line:
                assert line is not None
                await until(lambda: bool(lines))
                line.sendall(b"hello")
                with lines[0] as end:
                    await anyio.wait_readable(end)
                    assert end.recv(10) == b"hello"
            one.take = socket.socket.close
            async with two.claimed("c") as line:
                assert line is not None
                line.setblocking(False)
                await anyio.wait_readable(line)
                assert line.recv(10) == b""


async def test_who_claims_and_is_cancelled_leaves_nothing() -> None:
    """What was granted meanwhile is free again."""
    async with team() as all:
        one, two = all.hire(), all.hire()
        with anyio.CancelScope() as scope:
            scope.cancel()
            async with one.claimed("c"):
                await anyio.lowlevel.checkpoint()
        await settled(one)
        async with two.claimed("c") as line:
            assert line is None


async def test_news_reach_all_others() -> None:
    """In the order in which one tells them, and not who told them."""
    async with team() as all:
        one, two, three = all.hire(), all.hire(), all.hire()
        heard = [Heard(each) for each in (one, two, three)]
        long = "x" * 300_000  # more than a read, and than the kernel takes at once
        for news in ("a", long, "b"):
            one.tell(news)
        await until(lambda: heard[1].news == heard[2].news == ["a", long, "b"])
        assert heard[0].news == []


async def test_numbers_add_up() -> None:
    """Those of all others, and of those that live."""
    async with team() as all:
        one, two, three = all.hire(), all.hire(), all.hire()
        for number, each in enumerate((one, two, three), 1):
            each.publish("calls", number)
        await until(lambda: (one.others("calls"), two.others("calls"), three.others("calls")) == (5, 4, 3))
        two.publish("calls", 0)
        await until(lambda: one.others("calls") == 3)
        all.kill(three)
        await until(lambda: one.others("calls") == 0)


async def test_addresses_are_bound_once() -> None:
    """Port 0 is the same for all, and another one where it is asked for twice; a bound port is refused as ever."""
    async with team() as all:
        one, two = all.hire(), all.hire()
        found = [await each.sockets("127.0.0.1", 0) for each in (one, one, two, two)]
        ports = [each[0].getsockname()[1] for each in found]
        assert ports[0] == ports[2] != ports[1] == ports[3]
        for (each,) in found:  # who comes late to a connection is not to wait for the next one
            with pytest.raises(BlockingIOError):
                each.accept()
        for sockets in found[:2]:
            sockets[0].close()
        with socket.create_connection(("127.0.0.1", ports[0]), 5):  # the other one has it still
            pass
        with pytest.raises(OSError, match="Address already in use"):
            await one.sockets("127.0.0.1", ports[0])
        for sockets in found[2:]:
            sockets[0].close()
        all.board.close()
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", ports[0]), 5):
            pass


async def test_when_the_supervisor_is_gone() -> None:
    """A worker is told to stop; what it asks is answered all the same."""
    ours, theirs = socket.socketpair()
    worker = Fellows(Channel(theirs))
    levels: list[int] = []
    worker.stop = levels.append
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.run)
            async with anyio.create_task_group() as asking:
                asking.start_soon(_refused, worker)
                await until(lambda: worker._asked != {})
                ours.close()
        assert levels == [1]
        async with worker.claimed("c") as line:
            assert line is None
        await _refused(worker)
        worker.tell("nobody")
        await worker.flushed()


async def _refused(worker: Fellows) -> None:
    with pytest.raises(ConnectionResetError, match="the supervisor is gone"):
        await worker.sockets("127.0.0.1", 0)


async def test_reports_arrive_before_the_end() -> None:
    """What was posted last is not lost with the worker."""
    async with team() as all:
        one = all.hire()
        one.up("ws://here")
        report = wire.Report(2, 1, {"idle": 3}, [], [{"call": "c"}])
        one.report(report)
        await one.flushed()
        all.kill(one)
        await until(lambda: not all.board.members)
        assert all.reports == [wire.Up("ws://here"), report]


# --- Connections


Handler = Callable[[WebSocket], Awaitable[None]]


async def _serve(worker: Fellows, handler: Handler, ports: list[int]) -> None:
    fellows.join(worker)
    address = Address("ws", "127.0.0.1", 0, "")
    await websocket.serve(handler, address, admit=lambda path: None, listening=ports.append)


async def test_connections_are_taken_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes later takes all that come, until it has as many; then each takes its part of a burst."""
    monkeypatch.setattr(listening, "HEAD_START_S", 3600.0)
    async with team() as all:
        workers = [all.hire(), all.hire()]
        ports: list[int] = []
        taken = dict.fromkeys(workers, 0)
        answered: list[WebSocket] = []

        async def serve(worker: Fellows) -> None:
            async def handler(socket: WebSocket) -> None:
                taken[worker] += 1
                await socket.wait_closed()

            await _serve(worker, handler, ports)

        async def call(*, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
            async with websocket.connect(f"ws://127.0.0.1:{ports[0]}/") as socket:
                await socket.ping()
                answered.append(socket)
                task_status.started()
                await socket.wait_closed()

        async with anyio.create_task_group() as tasks:
            for number, worker in enumerate(workers, 1):
                tasks.start_soon(serve, worker)
                await until(lambda number=number: len(ports) == number)  # type: ignore[misc]
                key = f"takers at {ports[0]}"
                await until(lambda key=key, number=number: workers[0].others(key) == number - 1)  # type: ignore[misc]
                for _ in range(5):
                    await tasks.start(call)
                await until(lambda number=number: sum(taken.values()) == 5 * number)  # type: ignore[misc]
            assert ports[0] == ports[1] and list(taken.values()) == [5, 5]
            for _ in range(20):
                tasks.start_soon(call)
            await until(lambda: len(answered) == 30)
            assert list(taken.values()) == [15, 15]
            tasks.cancel_scope.cancel()


async def test_a_worker_that_hangs_holds_nobody_up() -> None:
    """It has fewer connections, and does not take the next one; the others do, after its head start."""
    async with team() as all:
        one, idle = all.hire(), all.hire()
        ports: list[int] = []
        idle.publish("hello", 1)

        async def handler(socket: WebSocket) -> None:
            await socket.wait_closed()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_serve, one, handler, ports)
            await until(lambda: bool(ports))
            idle.publish(f"takers at {ports[0]}", 1)
            async with (
                websocket.connect(f"ws://127.0.0.1:{ports[0]}/"),
                websocket.connect(f"ws://127.0.0.1:{ports[0]}/"),
                websocket.connect(f"ws://127.0.0.1:{ports[0]}/"),
            ):
                pass
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def passed_on(handler: Handler, said: tuple[str, ...] = ()) -> AsyncIterator[WebSocket]:
    """Connect to a server that passes everything on to another, which runs ``handler``."""
    ports: list[int] = []
    near, far = socket.socketpair()

    async def taken(socket: WebSocket) -> None:
        async with websocket.adopted(near) as other:
            await websocket.pass_on(socket, said, other)

    address = Address("ws", "127.0.0.1", 0, "")
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: websocket.serve(taken, address, admit=lambda path: None, listening=ports.append))
            tasks.start_soon(websocket.adopt, handler, far)
            await until(lambda: bool(ports))
            async with websocket.connect(f"ws://127.0.0.1:{ports[0]}/") as socket_:
                yield socket_
            tasks.cancel_scope.cancel()


async def test_a_connection_is_passed_on() -> None:
    """Messages both ways, of either kind, those that were read before too; and the peer's close with its code."""
    ends: list[websocket.Closed] = []

    async def echo(socket: WebSocket) -> None:
        try:
            while True:
                await socket.send(await socket.recv())
        except websocket.Closed as closed:
            ends.append(closed)

    async with passed_on(echo, ("early",)) as socket:
        assert await socket.recv() == "early"
        for message in ("text", b"\x00binary", "x" * 500_000):
            await socket.send(message)
            assert await socket.recv() == message
        await socket.close(4001, "enough")
        await until(lambda: bool(ends))
    assert [(end.code, end.reason, end.by) for end in ends] == [(4001, "enough", "peer")]


async def test_the_others_close_is_passed_back() -> None:
    """With its code and reason."""

    async def close(socket: WebSocket) -> None:
        await socket.recv()
        await socket.close(4002, "no more")

    async with passed_on(close) as socket:
        await socket.send("hello")
        end = await socket.wait_closed()
    assert (end.code, end.reason) == (4002, "no more")


async def test_a_line_that_breaks_is_told_behind_what_came_before() -> None:
    """Nothing that had arrived is lost with it."""
    got: list[str | bytes] = []
    ends: list[websocket.Closed] = []

    async def keep(socket: WebSocket) -> None:
        try:
            while True:
                got.append(await socket.recv())
        except websocket.Closed as closed:
            ends.append(closed)

    async with passed_on(keep) as socket:
        for number in range(300):
            await socket.send(f"{number}" * 1000)
        await socket.ping()
        await socket.abort()
        await until(lambda: bool(ends))
    assert got == [f"{number}" * 1000 for number in range(300)]
    assert (ends[0].code, ends[0].by) == (1011, "peer")


async def test_a_process_that_dies_breaks_the_line() -> None:
    """So the carrier knows, and comes back."""

    async def die(socket: WebSocket) -> None:
        await socket.recv()
        await socket.abort()

    async with passed_on(die) as socket:
        await socket.send("hello")
        assert (await socket.wait_closed()).code == 1006


async def test_a_name_is_kept_beyond_its_block() -> None:
    """By who says so, and until it is released: once more, and then as often as it was held."""
    async with team() as all:
        one, two = all.hire(), all.hire()
        claim = one.claimed("c")
        async with claim as line:
            assert line is None
            claim.keep()
        async with one.claimed("c"):
            pass
        await settled(one)
        async with two.claimed("c") as line:
            assert line is not None
        claim.release()
        await settled(one)
        async with two.claimed("c") as line:
            assert line is None


async def test_nobody_adopts() -> None:
    """That is known before anything more is read."""
    near, far = socket.socketpair()
    far.close()
    with anyio.fail_after(10), pytest.raises(websocket.Closed):
        async with websocket.adopted(near):
            raise AssertionError("it was not adopted")


# --- Accepting


async def test_accepting_goes_on_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without files for more connections takes them when it has some again, and says so meanwhile."""
    monkeypatch.setattr(listening, "AGAIN_S", 0.0)
    (listener,) = await listening.bind("127.0.0.1", 0)
    errors = [OSError(24, "Too many open files"), BlockingIOError(), ConnectionAbortedError()]

    class Listener(socket.socket):
        def accept(self) -> tuple[socket.socket, object]:
            if errors:
                raise errors.pop()
            return super().accept()

    async def listen(host: str, port: int) -> list[socket.socket]:
        return [Listener(fileno=listener.detach())]

    monkeypatch.setattr(listening, "listen", listen)
    taken = anyio.Event()

    async def handle(connection: socket.socket) -> None:
        connection.close()
        taken.set()

    ports: list[int] = []
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listening.serve, handle, "127.0.0.1", 0, ports.append)
            await until(lambda: bool(ports))
            with socket.create_connection(("127.0.0.1", ports[0]), 5):
                await taken.wait()
            tasks.cancel_scope.cancel()
    assert errors == []


async def test_what_lasts_is_seen_off_when_accepting_ends() -> None:
    """A connection that no task serves any more outlasts another one's fault, and is closed at a stop."""
    lasting: list[Lasting] = []

    class Lasting:
        def __init__(self, connection: socket.socket) -> None:
            self.connection = connection
            lasting.append(self)

        def when_gone(self, tell: Callable[[listening.Lasting], None], /) -> None:
            self.tell = tell

        async def see_off(self) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                self.connection.close()
                self.tell(self)

    async def handle(connection: socket.socket) -> Lasting:
        if lasting:
            connection.close()
            raise ZeroDivisionError
        return Lasting(connection)

    ports: list[int] = []
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listening.serve, handle, "127.0.0.1", 0, ports.append)
            await until(lambda: bool(ports))
            async with await anyio.connect_tcp("127.0.0.1", ports[0]):
                await until(lambda: bool(lasting))
                async with await anyio.connect_tcp("127.0.0.1", ports[0]) as other:
                    with pytest.raises(anyio.EndOfStream):
                        await other.receive()
                assert lasting[0].connection.fileno() >= 0
                tasks.cancel_scope.cancel()
    assert lasting[0].connection.fileno() == -1
