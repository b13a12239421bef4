"""What a call takes of memory, counted to the byte in use and held against a budget, and that a long one takes no more.

The bridge is the shipped pipeline in a process of its own, on the event loop that users run it on, with both
connections of every call open; carriers and EkaScribe are here.  Pages, and what allocators keep for later, are for
``mediaflow bench load --mode memory`` to see.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from anyio.abc import TaskGroup

from mediaflow import AudioFormat, envelope, websocket
from mediaflow.delivery import ledger
from mediaflow.websocket import Address, WebSocket

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))

from benchmarks import eka_rest  # noqa: E402 (behind an installed mediaflow)

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc what is in use"),
]

BUDGET = {(3, 11): 17_400}
"""Bytes of a call, by the Python.  Write it anew after a change that is meant to cost or to save."""

TOLERANCE = 0.05

MULAW = AudioFormat("mulaw", 8000)
CODES = bytes(range(256))[:160]
HELD_MS = 120
"""What waits for a whole message to EkaScribe, at most."""


class Bridge:
    """A bridge with calls open, and the service that takes their audio."""

    def __init__(self, tasks: TaskGroup, process: subprocess.Popen[bytes], url: str, state: Path) -> None:
        self._tasks, self._process, self._url, self._state = tasks, process, url, state
        self._carriers: list[WebSocket] = []
        self._frames: list[int] = []

    async def open(self, calls: int) -> None:
        """Open so many calls more."""
        for _ in range(calls):
            number = len(self._carriers)
            carrier = await websocket.connect_in(self._tasks, self._url)
            await carrier.send(
                envelope.build_start(f"call-{number}", f"stream-{number}", "account", MULAW, ("inbound",))
            )
            self._carriers.append(carrier)
            self._frames.append(0)

    async def play(self, frames: int, stored: Stored) -> None:
        """Play so many frames more into each call, and wait until the service has what can be there of them."""
        for number, carrier in enumerate(self._carriers):
            for _ in range(frames):
                at = self._frames[number]
                await carrier.send(envelope.build_media(f"stream-{number}", at, "inbound", at + 1, 20 * at, CODES))
                self._frames[number] += 1
        await stored.reach(sum(32 * (20 * frames - HELD_MS) for frames in self._frames))

    async def in_use(self) -> int:
        """Return the bytes in use once all that was played is in the ledger as delivered: calls have settled by then.

        The least of several: at times the ledger is being written, whose accounts are no part of a call.
        """
        return await anyio.to_thread.run_sync(self._settled)

    def _settled(self) -> int:
        patience = time.monotonic() + 40  # a thread cannot be cancelled
        while not self._is_delivered():
            assert time.monotonic() < patience, "the ledger does not say that what was played is delivered"
            time.sleep(0.02)
        return min(int(self._ask()) for _ in range(10))

    def _is_delivered(self) -> bool:
        accounts = {account["call"]: account["sinks"][0] for account in ledger.read(self._state)}
        return len(accounts) == len(self._frames) and all(
            accounts[f"call-{number}"]["delivered"] >= 16 * (20 * frames - HELD_MS)
            for number, frames in enumerate(self._frames)
        )

    def _ask(self) -> bytes:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    async def leave(self) -> None:
        """Cut all calls."""
        for carrier in self._carriers:
            await carrier.abort()


class Stored:
    """How many bytes of audio the service has, of all calls together."""

    def __init__(self) -> None:
        self._bytes = 0
        self._more = anyio.Event()

    async def take(self, socket: WebSocket) -> None:
        """Take the audio of a session."""
        while True:
            message = await socket.recv()
            self._bytes += len(message)
            self._more.set()

    async def reach(self, number: int) -> None:
        """Wait until it is so many."""
        while self._bytes < number:
            self._more = anyio.Event()
            await self._more.wait()


@contextmanager
def process(folder: Path, rest_url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the shipped pipeline."""
    driver = [sys.executable, str(ROOT / "tests" / "memory_driver.py"), str(ROOT / "pipelines" / "vobiz_to_eka.yaml")]
    variables = {"VOBIZ_LISTEN": "ws://127.0.0.1:0/vobiz", "EKA_BASE_URL": rest_url, "EKA_TOKEN": "t0ken"}
    with subprocess.Popen(
        driver, cwd=folder, env=os.environ | variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as running:
        try:
            yield running
        finally:
            running.kill()


@asynccontextmanager
async def bridge(folder: Path) -> AsyncIterator[tuple[Bridge, Stored]]:
    """Run a bridge and what it talks to."""
    stored, up = Stored(), anyio.Event()
    ports: list[int] = []

    def listening(port: int) -> None:
        ports.append(port)
        up.set()

    async def serve() -> None:
        address = Address("ws", "127.0.0.1", 0, "")
        await websocket.serve(stored.take, address, admit=lambda target: None, listening=listening)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            await up.wait()
            with eka_rest.served(f"ws://127.0.0.1:{ports[0]}") as rest_url, process(folder, rest_url) as running:
                assert running.stdout is not None
                url = (await anyio.to_thread.run_sync(running.stdout.readline)).decode().strip()
                live = Bridge(tasks, running, url, folder / "mediaflow-data")
                try:
                    yield live, stored
                finally:
                    await live.leave()
            tasks.cancel_scope.cancel()


@pytest.fixture
def anyio_backend() -> str:
    """The bridge is on asyncio; what is here need not be tried on trio as well."""
    return "asyncio"


async def test_a_call_keeps_to_its_budget(tmp_path: Path) -> None:
    """Fifty calls more take fifty times what a call may take, and not much more."""
    budget = BUDGET.get(sys.version_info[:2])
    if budget is None:
        pytest.skip(f"the budget is for Python {', '.join('.'.join(map(str, known)) for known in BUDGET)}")
    async with bridge(tmp_path) as (live, stored):
        await live.open(20)
        await live.play(100, stored)
        few = await live.in_use()
        await live.open(50)
        await live.play(100, stored)
        a_call = (await live.in_use() - few) / 50

    assert a_call < budget * (1 + TOLERANCE), (
        f"a call takes {a_call:.0f} bytes, {a_call / budget - 1:+.1%} of its budget"
    )


async def test_a_long_call_takes_no_more_than_a_short_one(tmp_path: Path) -> None:
    """Ten minutes leave less than half a byte for each of 30,000 frames: what the ledger's database keeps, once."""
    async with bridge(tmp_path) as (live, stored):
        await live.open(10)
        await live.play(100, stored)
        short = await live.in_use()
        await live.play(30_000, stored)
        grown = (await live.in_use() - short) / 10

    assert grown < 15_000, f"a call grew by {grown:.0f} bytes"
