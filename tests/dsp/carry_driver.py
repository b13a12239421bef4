"""What the instruction budget counts of a whole frame: from the bytes of the carrier's line to those of the sink's.

``python carry_driver.py COUNTER CALLS`` carries so many frames of µ-law, 20 ms each, through decoder, mixer, resampler
and detector, with the account kept, over lines that only take the bytes. COUNTER is ``counter.c``, built.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import msgspec
from anyio.abc import TaskGroup

from mediaflow import AudioFormat, AudioFrame, Item, Sink, Stream, Writer, config, envelope, graph, plugins
from mediaflow._websocket.core import WebSocket
from mediaflow._wire.frames import encode
from mediaflow.envelope import Start
from mediaflow.intake import Intake
from mediaflow.session import LiveSession
from mediaflow.testing import RecordingEngine

MULAW = AudioFormat("mulaw", 8000)
CODES = bytes(number * number * 37 % 256 for number in range(160))
STEPS = "[{use: mulaw_decode}, {use: mix}, {use: resample, rate: 16000}, {use: energy_vad}]"
HEARD = 3001  # frames after which a call is no longer listened to for what its wire says wrongly


class Hole:
    """A line that counts the bytes it is given."""

    full = False
    taken = 0

    def write(self, data: bytes) -> None:
        self.taken += len(data)

    def end(self) -> None:
        raise NotImplementedError

    abort = end

    def pause(self) -> None:
        pass

    resume = pause

    async def drain(self) -> None:
        raise NotImplementedError

    def now(self) -> float:
        return 0.0

    def set_deadline(self, deadline: float) -> None:
        pass


class Out(Sink, frozen=True, kw_only=True):
    """Send PCM over a WebSocket."""

    line: Hole

    @asynccontextmanager
    async def open(self, stream: Stream, format: AudioFormat, tracks: tuple[str, ...]) -> AsyncIterator[Writer]:
        yield _Writer(WebSocket(self.line, "/", server=False, max_message=1 << 20))


class _Writer(Writer):
    delivered = 0

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    def write_nowait(self, item: Item) -> bool:
        return not isinstance(item, AudioFrame) or self._socket.send_nowait(item.data)

    async def write(self, item: Item) -> None:
        raise NotImplementedError


class Carrying:
    """Has an intake carry a connection."""

    def __init__(self, intake: Intake) -> None:
        self.take = intake.take

    def refused(self) -> None:
        raise NotImplementedError

    def ended(self, error: Exception) -> None:
        raise error


class Deaf:
    """Runs what a session starts, and takes no news of it."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks

    def start(self, work: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
        self._tasks.start_soon(work, *args)

    def sinks_over(self, session: LiveSession) -> None:
        pass

    def sink_failed(self, session: LiveSession, edge: object) -> None:
        raise NotImplementedError

    def noted(self, session: LiveSession, name: str, facts: object) -> None:
        raise NotImplementedError

    def amended(self, account: object) -> None:
        raise NotImplementedError


def message(number: int) -> bytes:
    """Return a frame of the WebSocket with 20 ms of the call."""
    text = envelope.build_media("stream", number, "inbound", number, 1_770_000_000_000 + 20 * number, CODES)
    return encode(1, text, True)


async def carry(frames: int, counter: ctypes.PyDLL) -> int:
    """Carry so many frames once the call is under way, have them counted, and return the bytes that came out."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "p.yaml"
        file.write_text(f"source: {{use: vobiz}}\ntransforms: {STEPS}\nsinks: [{{use: disk}}]\n")
        pipeline = config.load(str(file), plugins.load(), {})
    out, tracks = Hole(), ("inbound",)
    pipeline = msgspec.structs.replace(pipeline, sinks=(Out(line=out),))
    plan = graph.plan(pipeline, MULAW, tracks)
    carrier = WebSocket(Hole(), "/", server=True, max_message=1 << 20)
    async with anyio.create_task_group() as tasks:
        session = LiveSession(pipeline, plan, Stream("call", MULAW, tracks), Deaf(tasks))
        intake = Intake("call", Start("call", "", "", MULAW, tracks, {}), session, "little", RecordingEngine())
        session.open_sinks()
        carrier.carry(Carrying(intake))
        carrier.go_on()
        await anyio.wait_all_tasks_blocked()
        for number in range(1, HEARD):
            carrier.received(message(number))
        before, messages = out.taken, [message(number) for number in range(HEARD, HEARD + frames)]
        counter.begin()
        for data in messages:
            carrier.received(data)
        counter.end(b"carry_frame")
        carried = out.taken - before
        session.end()
        tasks.cancel_scope.cancel()
    return carried


if __name__ == "__main__":
    print(anyio.run(carry, int(sys.argv[2]), ctypes.PyDLL(sys.argv[1])))
