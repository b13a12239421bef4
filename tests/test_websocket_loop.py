"""The event loop that waits where the WebSockets are: what is not a WebSocket's is none the later for it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import faulthandler
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from test_websocket import running

from mediaflow.websocket import Closed, WebSocket

if sys.platform != "linux":
    pytest.skip("lines of our own need epoll", allow_module_level=True)

from websockets.sync.client import connect as library_connect

from mediaflow._websocket.hub import current
from mediaflow._websocket.loop import EventLoop, _Selector

PATIENCE_S = 20


@pytest.fixture(autouse=True)
def no_hanging() -> Iterator[None]:
    """End the process where a loop does not wake any more: nothing that runs on it would see to that."""
    faulthandler.dump_traceback_later(3 * PATIENCE_S, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@asynccontextmanager
async def carried(take: Callable[[bytes], bool]) -> AsyncIterator[str]:
    """Serve; what comes is given to ``take``, and sent back."""

    class Echo:
        def __init__(self, websocket: WebSocket) -> None:
            self.websocket = websocket

        def take(self, message: bytes) -> bool:
            self.websocket.send_nowait(message)
            return take(message)

        def refused(self) -> None:
            raise AssertionError

        def ended(self, error: Exception) -> None:
            assert isinstance(error, Closed)

    async def handler(websocket: WebSocket) -> None:
        websocket.carry(Echo(websocket))
        websocket.go_on()

    async with running("serve", handler) as server:
        yield server.url


class Traffic(threading.Thread):
    """Sends a message, waits for it to come back, and so on: on a loop of its own there is always something to read."""

    def __init__(self, url: str, messages: int | None = None) -> None:
        super().__init__()
        self.url, self.messages, self.stopped = url, messages, threading.Event()
        self.sent = 0

    def run(self) -> None:
        with library_connect(self.url) as client:
            while not self.stopped.is_set() and self.sent != self.messages:
                client.send(b"%d" % self.sent)
                assert client.recv() == b"%d" % self.sent
                self.sent += 1


@asynccontextmanager
async def under_traffic(take: Callable[[bytes], bool] = lambda message: True) -> AsyncIterator[Traffic]:
    """Have something come all the time."""
    async with carried(take) as url:
        traffic = Traffic(url)
        traffic.start()
        try:
            async with asyncio.timeout(PATIENCE_S):
                yield traffic
        finally:
            traffic.stopped.set()
            await asyncio.to_thread(traffic.join)


def run(main: Callable[[], object]) -> None:
    """Run on the loop."""
    with asyncio.Runner(loop_factory=EventLoop) as runner:
        runner.run(main())  # type: ignore[arg-type]


def test_messages_do_not_pass_through_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a thousand it sees next to nothing."""
    turns = 0
    select = _Selector.select

    def counted(self: _Selector, timeout: float | None = None) -> object:
        nonlocal turns
        turns += 1
        return select(self, timeout)

    async def main() -> None:
        nonlocal turns
        last = asyncio.Event()

        def take(message: bytes) -> bool:
            nonlocal turns
            if message == b"0":
                turns = 0
            if message == b"999":
                last.set()
            return True

        async with carried(take) as url:
            traffic = Traffic(url, 1_000)
            traffic.start()
            async with asyncio.timeout(PATIENCE_S):
                await last.wait()
            seen.append(turns)
            await asyncio.to_thread(traffic.join)
        assert traffic.sent == 1_000

    seen: list[int] = []
    monkeypatch.setattr(_Selector, "select", counted)
    run(main)
    assert seen[0] < 20


def test_a_callback_is_called_before_the_next_message() -> None:
    """What a consumer begins does not wait for quiet."""
    order: list[str] = []

    async def main() -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def take(message: bytes) -> bool:
            order.append("message")
            if len(order) >= 20:
                done.set()
            else:
                loop.call_soon(order.append, "callback")
            return True

        async with under_traffic(take):
            await done.wait()

    run(main)
    assert order[:20] == ["message", "callback"] * 10


def test_a_time_comes_also_where_it_is_set_in_a_turn() -> None:
    """While nothing comes, and while messages come all the time; not before it is due."""

    async def main() -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        early: list[float] = []

        def note(when: float) -> None:
            early.append(when - loop.time())
            done.set()

        def take(message: bytes) -> bool:
            if message == b"10":
                loop.call_at(when := loop.time() + 0.05, note, when)  # the next that is due is our patience
            return True

        loop.call_at(when := loop.time() + 0.02, note, when)
        async with asyncio.timeout(PATIENCE_S):
            await done.wait()
        done.clear()
        async with under_traffic(take) as traffic:
            await done.wait()
            assert traffic.sent > 10
        assert len(early) == 2 and max(early) <= 0

    run(main)


def test_other_sockets_have_their_turn_and_are_told_of_what_they_left() -> None:
    """A reader that takes a byte at a time is called until there is none."""

    async def main() -> None:
        loop, half, done = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        ours, theirs = socket.socketpair()
        got = b""

        def read() -> None:
            nonlocal got
            got += ours.recv(1)
            if len(got) == 5:
                half.set()
            if len(got) == 10:
                done.set()

        with ours, theirs:
            loop.add_reader(ours, read)
            theirs.send(b"01234")
            await half.wait()
            async with under_traffic():
                theirs.send(b"56789")
                await done.wait()
            loop.remove_reader(ours)
        assert got == b"0123456789"

    run(main)


@pytest.mark.parametrize("busy", [False, True])
def test_threads_and_signals_are_heard(busy: bool) -> None:
    """A signal handler of Python's is called, whether the signal comes in a turn or in the wait, and the loop's too."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        from_thread, from_loop, plain = asyncio.Event(), asyncio.Event(), asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, from_loop.set)
        before = signal.signal(signal.SIGUSR2, lambda number, frame: plain.set())
        try:
            async with under_traffic() if busy else contextlib.nullcontext(), asyncio.timeout(PATIENCE_S):
                assert await asyncio.to_thread(sum, (1, 2)) == 3
                thread = threading.Thread(target=loop.call_soon_threadsafe, args=(from_thread.set,))
                thread.start()
                await from_thread.wait()
                thread.join()
                for number, event in ((signal.SIGUSR1, from_loop), (signal.SIGUSR2, plain)):
                    killer = threading.Timer(0.05, os.kill, (os.getpid(), number))
                    killer.start()
                    await event.wait()
                    killer.join()
        finally:
            signal.signal(signal.SIGUSR2, before)
            loop.remove_signal_handler(signal.SIGUSR1)

    run(main)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Have SIGINT be heard also where the tests were begun in the background of a shell, which has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_it() -> None:
    """Ctrl-C comes out of ``run``, as with any loop."""

    async def main() -> None:
        async with under_traffic():
            killer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
            killer.start()
            try:
                await asyncio.Event().wait()
            finally:
                killer.join()

    with pytest.raises(KeyboardInterrupt):
        run(main)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("had_a_handler", [False, True])
def test_an_interrupt_that_does_not_end_the_wait_itself(had_a_handler: bool) -> None:
    """As one that comes just before the wait: here another thread notices it."""
    ended, heard = threading.Event(), []

    def interrupt(loop: asyncio.AbstractEventLoop, never: asyncio.Event) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        os.kill(os.getpid(), signal.SIGINT)
        heard.append(ended.wait(PATIENCE_S))
        loop.call_soon_threadsafe(never.set)  # but where it was not heard

    async def main() -> None:
        loop, never = asyncio.get_running_loop(), asyncio.Event()
        if had_a_handler:  # with the last one the standard library stops to wake the loop for signals
            loop.add_signal_handler(signal.SIGUSR1, print)
            loop.remove_signal_handler(signal.SIGUSR1)
        thread = threading.Timer(0.05, interrupt, (loop, never))
        thread.start()
        try:
            await never.wait()
        finally:
            ended.set()
            thread.join()

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with pytest.raises(KeyboardInterrupt):
            run(main)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert heard == [True]
    assert signal.set_wakeup_fd(-1) == -1  # nothing writes to what is closed


def test_a_loop_that_is_closed_takes_nothing_from_the_next() -> None:
    """Closed once more, it does not stop signals from waking another."""
    first = EventLoop()
    first.close()
    second = EventLoop()
    first.close()
    wakes = signal.set_wakeup_fd(-1)
    second.close()
    assert wakes >= 0


def test_a_consumer_is_called_in_the_context_of_who_opened_the_first_connection() -> None:
    """So that what it begins finds the backend, and whatever else a task has around it."""
    where = contextvars.ContextVar("where", default="nowhere")
    found: list[str] = []

    async def main() -> None:
        where.set("here")
        done = asyncio.Event()

        def take(message: bytes) -> bool:
            found.append(where.get())
            done.set()
            return True

        async with under_traffic(take):
            await done.wait()

    run(main)
    assert found[0] == "here"


def test_programs_are_waited_for_and_nothing_is_left_open() -> None:
    """Also what the standard library brings besides; a second loop has a hub of its own."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, EventLoop) and current() is loop.hub
        hubs.append(loop.hub)
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "print(input())", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await program.communicate(b"heard\n")
        assert out == b"heard\n" and program.returncode == 0

    hubs: list[object] = []
    run(main)
    before = len(os.listdir("/proc/self/fd"))
    hubs.clear()
    run(main)
    hubs.clear()
    assert len(os.listdir("/proc/self/fd")) <= before
