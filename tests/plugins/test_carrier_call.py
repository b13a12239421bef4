"""A call between its messages: that no task holds it, what wakes it, and that it ends from wherever it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.abc import TaskStatus
from carried import tasks

from mediaflow import AudioFormat, Engine, Stream, envelope, websocket, websocket as ours
from mediaflow._websocket import stream as portable
from mediaflow.testing import RecordedSession, RecordingEngine
from mediaflow.websocket import WebSocket
from mediaflow_plugins import _carrier_call, _carrier_server
from mediaflow_plugins._carrier_call import Call
from mediaflow_plugins.source_vobiz import Vobiz

pytestmark = pytest.mark.anyio

MULAW = AudioFormat("mulaw", 8000)
LONG = 3600.0


def frame(number: int) -> bytes:
    """Audio of its own for each frame."""
    return bytes((number * 7 + k) % 251 for k in range(160))


def media(number: int) -> str:
    return envelope.build_media("stream", number, "inbound", number, 20 * number, frame(number))


def start(call: str = "call", stream: str = "stream") -> str:
    return envelope.build_start(call, stream, "account", MULAW, ("inbound",))


class Room(RecordedSession):
    """A session with room while its engine says so."""

    engine: Sinks

    def push(self, data: bytes, track: str = "inbound") -> bool:
        super().push(data, track)
        return self.engine.room.is_set()

    async def ready(self) -> None:
        self.engine.waiting += 1
        await self.engine.room.wait()


class Sinks(RecordingEngine):
    """An engine whose sessions have no room until there is, and take until ``finish`` to end."""

    def __init__(self) -> None:
        super().__init__()
        self.room, self.finish = anyio.Event(), anyio.Event()
        self.room.set()
        self.finish.set()
        self.waiting = self.finishing = 0

    @asynccontextmanager
    async def open(self, stream: Stream) -> AsyncIterator[RecordedSession]:
        async with super().open(stream) as session:
            session.__class__ = Room
            session.engine = self  # type: ignore[attr-defined]
            try:
                yield session
            finally:
                self.finishing += 1
                with anyio.CancelScope(shield=True):
                    await self.finish.wait()

    def fill(self) -> None:
        """Have no room from now on."""
        self.room = anyio.Event()


class Desk:
    """Keeps the calls, so that they can be told what the carrier says elsewhere."""

    def __init__(self) -> None:
        self.calls: dict[str, Call] = {}
        self.closed_calls: list[str] = []

    async def serve(
        self, ready: Callable[[], bool], *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        task_status.started()
        await anyio.sleep_forever()

    def hung_up(self, call_id: str) -> bool:
        return False

    def opened(self, call_id: str, call: Call) -> None:
        self.calls[call_id] = call

    def closed(self, call_id: str, call: Call) -> None:
        self.closed_calls.append(call_id)


desks: list[Desk] = []


class Told(Vobiz, frozen=True):
    """The source, with a desk of ours."""

    def desk(self, path: str, engine: Engine, find: Callable[[str], Call | None]) -> Desk:
        desks[:] = [Desk()]
        return desks[0]


class Served:
    """A source that runs, and a way to stop it."""

    def __init__(self, engine: Sinks) -> None:
        self.engine = engine
        self.url = ""
        self.front = anyio.CancelScope()
        self.over = anyio.Event()

    @property
    def call(self) -> Call:
        return desks[0].calls["call"]

    async def run(self, source: Vobiz) -> None:
        with self.front:
            await source.serve(self.engine)
        self.over.set()

    async def has(self, *numbers: int) -> None:
        """Wait until the call has these frames, and no other."""
        audio = b"".join(frame(number) for number in numbers)
        await self.engine.until(
            lambda: any(
                session.stream.id == "call" and bytes(session.audio.get("inbound", b"")) == audio
                for session in self.engine.sessions
            )
        )

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the others run until it is so."""
        while not condition():
            await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Served]:
    """Run the source on a free port."""
    defaults: dict[str, Any] = {"listen": "ws://127.0.0.1:0/vobiz", "reconnect_s": LONG, "idle_s": LONG}
    served = Served(Sinks())
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(served.run, Told(**defaults | options))
            served.url = await served.engine.url()
            yield served
            served.front.cancel()


async def say(socket: WebSocket, *messages: str) -> None:
    for message in messages:
        await socket.send(message)


# --- Tasks


async def test_a_call_that_is_listened_to_holds_no_task() -> None:
    """Ten calls are carried by as many tasks as one; having waited for room, or for a socket, leaves none behind."""
    async with serving() as served, AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(websocket.connect(served.url)) for _ in range(10)]
        await anyio.wait_all_tasks_blocked()
        idle = tasks() - 10  # of whose start is awaited
        for number, socket in enumerate(sockets):
            await say(socket, start("call" if not number else f"call-{number}"), media(0))
        await served.engine.until(lambda: sum(bool(session.audio) for session in served.engine.sessions) == 10)
        await anyio.wait_all_tasks_blocked()
        assert tasks() == idle

        served.engine.fill()
        await say(sockets[0], media(1))
        await served.until(lambda: served.engine.waiting == 1)
        assert tasks() == idle + 1
        served.engine.room.set()
        await anyio.wait_all_tasks_blocked()
        assert tasks() == idle

        await sockets[0].close()
        await anyio.wait_all_tasks_blocked()
        assert tasks() == idle + 1
        again = await stack.enter_async_context(websocket.connect(served.url))
        await say(again, start(stream="again"), media(2))
        await served.has(0, 1, 2)
        await anyio.wait_all_tasks_blocked()
        assert tasks() == idle


# --- No room


@pytest.fixture(params=["line", "portable"])
def driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Try lines of our own, and what is where there is no epoll."""
    if request.param == "portable":
        monkeypatch.setattr(ours, "driver", portable)


@pytest.mark.usefixtures("driver")
async def test_what_waits_for_room_comes_in_order() -> None:
    """Before the start, behind it, and again: each time one task waits, and reading goes on behind it."""
    async with serving() as served, websocket.connect(served.url) as socket:
        served.engine.fill()
        await say(socket, media(0), media(1), start(), media(2))
        await served.until(lambda: served.engine.waiting == 1)
        await served.has(0)
        served.engine.room.set()
        await served.has(0, 1, 2)
        for number in range(3, 9):
            served.engine.fill()
            await say(socket, media(number))
            await served.until(lambda: served.engine.waiting == number - 1)  # noqa: B023
            served.engine.room.set()
        await say(socket, envelope.build_stop("stream"))
        (session,) = await served.engine.ended()
        assert session.audio == {"inbound": b"".join(frame(number) for number in range(9))}


async def test_audio_that_waits_for_room_outlasts_a_hang_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The carrier has hung up while our sinks were full: what its socket still holds is read once they are not."""
    monkeypatch.setattr(_carrier_call, "QUIET_S", 0.1)
    async with serving() as served, websocket.connect(served.url) as socket:
        served.engine.fill()
        await say(socket, start(), media(0))
        await served.until(lambda: served.engine.waiting == 1)
        await say(socket, *(media(number) for number in range(1, 400)))  # more than is read in one turn
        served.call.hear("Hangup", "", {})
        with anyio.move_on_after(0.3):
            await served.engine.ended()
        assert not served.engine.sessions[0].ended
        served.engine.room.set()
        (session,) = await served.engine.ended()
        assert session.audio == {"inbound": b"".join(frame(number) for number in range(400))}


async def test_a_socket_that_comes_while_there_is_no_room() -> None:
    """The old one is closed at once, and so is one that yet another has replaced; the last is read when there is."""
    async with serving() as served, AsyncExitStack() as stack:
        old, middle, new = [await stack.enter_async_context(websocket.connect(served.url)) for _ in range(3)]
        served.engine.fill()
        await say(old, start(), media(0))
        await served.until(lambda: served.engine.waiting == 1)
        await say(middle, start(stream="middle"), media(1))
        assert (await old.wait_closed()).reason == "replaced"
        await say(new, start(stream="new"), media(2))
        assert (await middle.wait_closed()).reason == "replaced"
        assert served.engine.waiting == 1
        served.engine.room.set()
        await say(new, envelope.build_stop("new"))
        (session,) = await served.engine.ended()
    assert bytes(session.audio["inbound"]) == frame(0) + MULAW.silence(160) + frame(2)
    assert session.concealed == [("inbound", 160, 160, "reconnect")]
    assert len(served.engine.sessions) == 1


# --- Idle


async def test_idle_counts_from_when_it_is_listened_to() -> None:
    """Our own sinks may take longer than idle_s; from then on the carrier has idle_s, and is closed as idle."""
    async with serving(idle_s=0.4) as served, websocket.connect(served.url) as socket:
        served.engine.fill()
        await say(socket, start(), media(0))
        await served.until(lambda: served.engine.waiting == 1)
        with anyio.move_on_after(0.6):
            await served.engine.ended()
        assert not served.engine.counts
        served.engine.room.set()
        await anyio.sleep(0.1)  # the pace of the call, within idle_s
        await say(socket, media(1))
        await served.has(0, 1)
        assert (await socket.wait_closed()).reason == "idle"
        await served.engine.ended()
    assert served.engine.counts == {"idle": 1}


# --- The source is stopped


async def greeting(served: Served, socket: WebSocket) -> None:
    await say(socket, media(0))
    await socket.ping()


async def early(served: Served, socket: WebSocket) -> None:
    served.engine.fill()
    await say(socket, media(0), start())
    await served.until(lambda: served.engine.waiting == 1)


async def carried(served: Served, socket: WebSocket) -> None:
    await say(socket, start(), media(0))
    await served.has(0)


async def full(served: Served, socket: WebSocket) -> None:
    served.engine.fill()
    await say(socket, start(), media(0))
    await served.until(lambda: served.engine.waiting == 1)


async def quiet(served: Served, socket: WebSocket) -> None:
    await carried(served, socket)
    served.call.hear("Hangup", "", {})
    await anyio.wait_all_tasks_blocked()


async def between(served: Served, socket: WebSocket) -> None:
    await carried(served, socket)
    await socket.close(4000)
    await anyio.wait_all_tasks_blocked()


async def said_stop(served: Served, socket: WebSocket) -> None:
    await carried(served, socket)
    await say(socket, envelope.build_stop("stream"))
    await served.engine.ended()


Reach = Callable[[Served, WebSocket], Awaitable[None]]
PHASES: dict[str, tuple[Reach, int, str]] = {
    "greeting": (greeting, 1001, ""),
    "early": (early, 1001, "going away"),
    "carried": (carried, 1001, "going away"),
    "full": (full, 1001, "going away"),
    "quiet": (quiet, 1001, "going away"),
    "between": (between, 4000, ""),
    "said stop": (said_stop, 1000, ""),
}


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize("phase", PHASES)
async def test_a_source_that_is_stopped_ends_its_call(phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From wherever it is: the socket is closed as going away, the session ends once, and the source returns."""
    monkeypatch.setattr(_carrier_call, "QUIET_S", LONG)
    monkeypatch.setattr(_carrier_server, "AFTER_STOP_S", LONG)
    reach, code, reason = PHASES[phase]
    async with serving() as served, websocket.connect(served.url) as socket:
        await reach(served, socket)
        served.front.cancel()
        closed = await socket.wait_closed()
        assert (closed.code, closed.reason) == (code, reason)
        await served.over.wait()
    assert served.engine.finishing == len(served.engine.sessions) == (phase != "greeting")
    assert all(session.ended for session in served.engine.sessions)
    assert desks[0].closed_calls == (["call"] if phase != "greeting" else [])


@pytest.mark.parametrize("phase", ["carried", "full", "said stop"])
async def test_a_stop_waits_for_sessions(phase: str) -> None:
    """The sockets are closed at once; the source returns when the sessions are finished, and not earlier."""
    async with serving() as served, websocket.connect(served.url) as socket:
        served.engine.finish = anyio.Event()
        await say(socket, start(), media(0))
        await served.has(0)
        if phase == "full":
            served.engine.fill()
            await say(socket, media(1))
            await served.until(lambda: served.engine.waiting == 1)
        if phase == "said stop":
            await say(socket, envelope.build_stop("stream"))
            await served.until(lambda: served.engine.finishing == 1)
        served.front.cancel()
        assert (await socket.wait_closed()).code in (1000, 1001)
        await anyio.wait_all_tasks_blocked()
        assert served.engine.finishing == 1
        assert not served.over.is_set()
        served.engine.finish.set()
        await served.over.wait()
    assert [session.ended for session in served.engine.sessions] == [True]


async def test_a_call_that_begins_while_the_source_stops() -> None:
    """Its start was read, and then the source was stopped, before or behind its session: it ends all the same."""
    for steps in range(40):
        async with serving() as served, websocket.connect(served.url) as socket:
            await say(socket, start(), media(0))
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            served.front.cancel()
            await served.over.wait()
            assert (await socket.wait_closed()).code == 1001
        assert all(session.ended for session in served.engine.sessions)


# --- What a callback does where no socket is read


async def test_a_callback_of_the_last_stream_ends_the_wait_for_the_next() -> None:
    """The socket is gone, and the carrier says that its stream is over: no other comes."""
    async with serving() as served:
        async with websocket.connect(served.url) as socket:
            await say(socket, start(), media(0))
            await served.has(0)
        await anyio.wait_all_tasks_blocked()
        served.call.hear("StopStream", "another", {})
        await anyio.wait_all_tasks_blocked()
        assert not served.engine.sessions[0].ended
        served.call.hear("StopStream", "stream", {})
        (session,) = await served.engine.ended()
        served.call.hear("Hangup", "stream", {"Late": "1"})
    assert [name for name, _ in session.notes] == ["StopStream", "StopStream", "Hangup"]


async def test_a_stream_that_is_gone_already_is_not_waited_for_anew() -> None:
    """The carrier says again and again that it has lost a socket which is gone: that prolongs no wait."""
    async with serving(reconnect_s=0.2) as served:
        async with websocket.connect(served.url) as socket:
            await say(socket, start(), media(0))
            await served.has(0)
        while not served.engine.sessions[0].ended:
            served.call.hear("DroppedStream", "stream", {})
            await anyio.sleep(0.01)  # more often than reconnect_s
