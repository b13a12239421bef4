"""Run a pipeline with several workers in processes of their own, and choose which of them a connection meets.

A worker that is stopped (SIGSTOP) accepts nothing, so what comes meanwhile goes to the others.
"""

from __future__ import annotations

import os
import re
import signal
import ssl
import wave
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import trustme
from cli_kit import Running, running

from mediaflow import AudioFormat, envelope, websocket
from mediaflow.websocket import WebSocket

L16 = AudioFormat("s16le", 8000)
FRAME_MS = 20
FRAME_BYTES = 320
PIPELINE = """
source:
  use: vobiz
  listen: {scheme}://127.0.0.1:0/vobiz
  byte_order: little
  reconnect_s: 30
{source}
transforms: [{{use: mulaw_decode}}, {{use: mix}}]
sinks: [{sink}]
state: state
{more}
"""
DISK = "{use: disk, path: 'out/{call_id}.wav'}"


def write(folder: Path, source: str = "", sink: str = DISK, more: str = "", scheme: str = "ws") -> None:
    """Write the pipeline, with more options of its source, another sink, and more options of its own."""
    (folder / "p.yaml").write_text(PIPELINE.format(source=source, sink=sink, more=more, scheme=scheme))


def secure(folder: Path) -> tuple[str, ssl.SSLContext]:
    """Make a certificate; return the source's options for it, and the context that trusts it."""
    authority, trust = trustme.CA(), ssl.create_default_context()
    own = authority.issue_cert("127.0.0.1")
    own.private_key_and_cert_chain_pem.write_to_path(str(folder / "own.pem"))
    authority.configure_trust(trust)
    return "  certificate: own.pem\n  key: own.pem\n", trust


def audio(seed: int, frames: int) -> bytes:
    """Return audio that no other seed gives."""
    return b"".join(bytes([seed, number % 256, number // 256, 1]) * (FRAME_BYTES // 4) for number in range(frames))


def stored(folder: Path, call: str) -> bytes:
    """Return what is on disk of a call."""
    with wave.open(str(folder / "out" / f"{call}.wav")) as file:
        return bytes(file.readframes(file.getnframes()))


class Call:
    """A call as a carrier makes it, on one socket after the other."""

    def __init__(self, url: str, seed: int, name: str = "", tls: ssl.SSLContext | None = None) -> None:
        self.url, self.seed, self.tls = url, seed, tls
        self.name = name or f"call-{seed}"
        self.sent = b""
        self._streams = 0

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[WebSocket]:
        """Connect and say start."""
        async with websocket.connect(self.url, tls=self.tls) as ws:
            self._streams += 1
            await ws.send(envelope.build_start(self.name, self.stream, "account", L16, ("inbound",)))
            yield ws

    @property
    def stream(self) -> str:
        return f"{self.name}-stream-{self._streams}"

    async def speak(self, ws: WebSocket, frames: int) -> None:
        """Send the next frames, as fast as they go."""
        first = len(self.sent) // FRAME_BYTES
        new = audio(self.seed, first + frames)[len(self.sent) :]
        for number in range(frames):
            data = new[number * FRAME_BYTES : (number + 1) * FRAME_BYTES]
            at = first + number
            await ws.send(envelope.build_media(self.stream, at, "inbound", at, 10**12 + FRAME_MS * at, data))
            self.sent += data

    async def stop(self, ws: WebSocket) -> None:
        """Say that the call is over."""
        await ws.send(envelope.build_stop(self.stream))
        await ws.wait_closed()


class Crew:
    """A supervisor and its workers."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.url = ""
        self.control = ""
        self.pids: dict[int, int] = {}
        self.calls: dict[str, int] = {}
        """The worker that began each call."""

    def _note(self, line: str) -> None:
        if found := re.search(r"worker (\d+) is process (\d+)", line):
            self.pids[int(found[1])] = int(found[2])
        elif found := re.search(r"worker (\d+) \S+: call (\S+): started", line):
            self.calls[found[2]] = int(found[1])
        elif found := re.search(r"control answers at (\S+)", line):
            self.control = found[1]
        elif found := re.search(r"p listens at (\S+)", line):
            self.url = found[1]

    def read(self, text: str) -> str:
        """Read what is said until a line holds ``text``."""
        while True:
            line = self.running.wait_for("")
            self._note(line)
            if text in line:
                return line

    async def said(self, text: str) -> str:
        """``read``, without holding up what else goes on."""
        return await anyio.to_thread.run_sync(self.read, text)

    async def began(self, *calls: str) -> None:
        """Wait until a worker has begun each of ``calls``."""
        while not self.calls.keys() >= set(calls):
            await self.said(": started")

    @contextmanager
    def only(self, worker: int) -> Iterator[None]:
        """Let all connections meet this worker."""
        others = [pid for number, pid in self.pids.items() if number != worker]
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
            _wait_stopped(pid)
        try:
            yield
        finally:
            for pid in others:
                os.kill(pid, signal.SIGCONT)

    def stop(self) -> int:
        """Ask the supervisor to finish, and return the exit code."""
        self.running.process.send_signal(signal.SIGTERM)
        return self.running.end()


def _wait_stopped(pid: int) -> None:
    """Return once all threads of the process stand still: the signal is not there at once."""
    while any(_state(task) not in "TtZ" for task in Path(f"/proc/{pid}/task").iterdir()):
        os.sched_yield()


def _state(task: Path) -> str:
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


@contextmanager
def crew(folder: Path, number: int = 2, **env: str) -> Iterator[Crew]:
    """Run the pipeline of ``write`` with so many workers, all of which take calls."""
    with running(folder, "run", "p.yaml", "--workers", str(number), **env) as process:
        crew = Crew(process)
        crew.read("p listens at ")
        yield crew
