"""Capture a microphone, or any input that PortAudio knows.

PortAudio calls back from a thread of its own, every 20 ms, and must never be made to wait.  The callback only copies
its block into a ring and rings a bell; the event loop takes the blocks out::

    PortAudio's thread                 event loop
    callback: ring.append(block)  →    ring.take() → session.push
              bell (one byte into a socket pair) wakes the loop, on every backend, without waiting

The ring is bounded.  When the loop does not keep up, blocks that find no room are counted and come out as silence of
the same length at the place where they are missing.  PortAudio itself does not notice that: with the loop held up for
two seconds it reported no overflow.  What the device driver loses before us it does report; how much it was is worked
out from the time stamps of the blocks around the hole.

When a device goes away PortAudio raises nothing; its "finished" callback comes some 20 ms later, and the call ends.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Annotated, Any, Literal

import anyio
from anyio import to_thread
from msgspec import Meta

from mediaflow import (
    AudioFormat,
    Engine,
    Finding,
    Gap,
    PathTemplate,
    Register,
    Session,
    SessionError,
    Source,
    SourceError,
    Stream,
    dsp,
    hookimpl,
)

_BLOCK_MS = 20
_TRACKS = ("inbound", "outbound")


class Mic(Source, frozen=True):
    """Capture a microphone as one call, until the device goes away (``pip install mediaflow[mic]`` and PortAudio).

    With two channels, left is the track ``inbound`` and right ``outbound``: two people with a microphone each.
    """

    emits = (Gap,)

    device: Annotated[
        str | int | None, Meta(description="name, a part of it, or number; the default input if not given")
    ] = None
    rate: Annotated[int, Meta(ge=8000, le=192_000, description="sample rate in Hz")] = 16000
    channels: Annotated[Literal[1, 2], Meta(description="1, or 2 for a track each")] = 1
    id: Annotated[PathTemplate, Meta(description="the id of the call; {date} and {time} are UTC")] = PathTemplate(
        "mic-{date}-{time}"
    )
    seconds: Annotated[
        Annotated[float, Meta(gt=0)] | None, Meta(description="end after so long; when the device goes if not given")
    ] = None
    buffer_ms: Annotated[int, Meta(ge=100, le=60_000, description="audio that waits for full sinks, in ms")] = 5000

    def check(self) -> None:
        if find_spec("sounddevice") is None:
            raise ValueError("a microphone needs sounddevice: pip install mediaflow[mic]")

    async def diagnose(self) -> AsyncIterator[Finding]:
        """Open the device for a moment."""
        with _Bell() as bell:
            try:
                device = await to_thread.run_sync(self._start, _Ring(self, bell))
            except SourceError as error:
                yield Finding(False, str(error), "plug it in, or name another one as `device`")
                return
            await to_thread.run_sync(_stop, device)
        name = "the default microphone" if self.device is None else f"microphone {self.device!r}"
        yield Finding(True, f"{name} opens at {self.rate} Hz")

    def formats(self) -> Iterator[tuple[AudioFormat, tuple[str, ...]]]:
        yield AudioFormat("s16le", self.rate), _TRACKS[: self.channels]

    async def serve(self, engine: Engine) -> None:
        now = datetime.now(UTC)
        id = str(self.id.fill({"date": f"{now:%Y-%m-%d}", "time": f"{now:%H%M%S}"}))
        with _Bell() as bell:
            ring = _Ring(self, bell)
            device = await to_thread.run_sync(self._start, ring)
            try:
                with suppress(SessionError):  # nobody takes the audio any more; the engine has said why
                    async with engine.open(Stream(id, *next(self.formats()))) as session:
                        await self._carry(ring, session)
            finally:
                with anyio.CancelScope(shield=True):
                    await to_thread.run_sync(_stop, device)
        if ring.overflows:
            engine.count("input-overflow", ring.overflows)

    async def _carry(self, ring: _Ring, session: Session) -> None:
        left = None if self.seconds is None else round(self.seconds * self.rate)
        while (block := await ring.take()) is not None:
            samples = block if isinstance(block, int) else len(block) // (2 * self.channels)
            if left is not None:
                samples = min(samples, left)
                left -= samples
            if isinstance(block, int):
                roomy = [session.conceal(samples, "overrun", track) for track in session.stream.tracks]
            else:
                data = block[: samples * 2 * self.channels]
                sides = [data] if self.channels == 1 else dsp.deinterleave(data, self.channels)
                roomy = [session.push(*side) for side in zip(sides, session.stream.tracks, strict=True)]
            if left == 0:
                return
            if not all(roomy):
                await session.ready()

    def _start(self, ring: _Ring) -> Any:
        try:
            import sounddevice  # here: optional, and it starts PortAudio
        except ImportError:
            raise SourceError("a microphone needs sounddevice: pip install mediaflow[mic]") from None
        except OSError:  # what it raises when the library itself is missing
            raise SourceError("a microphone needs PortAudio: apt-get install libportaudio2") from None
        name = "the default microphone" if self.device is None else f"microphone {self.device!r}"
        try:
            device = sounddevice.RawInputStream(
                samplerate=self.rate,
                blocksize=self.rate * _BLOCK_MS // 1000,
                device=self.device,
                channels=self.channels,
                dtype="int16",
                callback=ring.put,
                finished_callback=ring.finish,
            )
        except (sounddevice.PortAudioError, ValueError) as error:  # ValueError: no device of that name
            raise SourceError(f"{name}: {error}; `python -m sounddevice` lists what there is") from None
        try:
            device.start()
        except sounddevice.PortAudioError as error:
            device.close(ignore_errors=True)
            raise SourceError(f"{name}: {error}") from None
        return device


def _stop(device: Any) -> None:
    device.abort(ignore_errors=True)
    device.close(ignore_errors=True)


class _Bell:
    """Wakes the event loop from any thread: a byte sent never waits, and one that finds no room is not needed."""

    def __enter__(self) -> _Bell:
        self._ear, self._hand = socket.socketpair()
        self._ear.setblocking(False)
        self._hand.setblocking(False)
        return self

    def __exit__(self, *_: object) -> None:
        self._ear.close()
        self._hand.close()

    def ring(self) -> None:
        with suppress(OSError):
            self._hand.send(b"!")

    async def wait(self) -> None:
        await anyio.wait_readable(self._ear)
        self._ear.recv(4096)


class _Ring:
    """Blocks on their way from PortAudio's thread to the loop; where some are missing, their number of samples.

    Neither side locks: appending and popping are atomic, ``_put`` and ``_lost`` belong to the one thread, ``_taken`` to
    the other.
    """

    def __init__(self, mic: Mic, bell: _Bell) -> None:
        self.overflows = 0
        """How often PortAudio said that input was lost before it reached us."""
        self._rate, self._sample_bytes, self._bell = mic.rate, 2 * mic.channels, bell
        self._capacity = mic.buffer_ms * mic.rate // 1000
        self._blocks: deque[bytes | int] = deque()
        self._put = self._taken = self._lost = 0
        self._due = 0.0
        self._finished = False

    def put(self, data: Any, samples: int, time: Any, status: Any) -> None:
        """Take a block, in PortAudio's thread."""
        if status.input_overflow:
            self.overflows += 1
            if self._due:
                self._lost += max(0, round((time.inputBufferAdcTime - self._due) * self._rate))
        self._due = time.inputBufferAdcTime + samples / self._rate
        if self._put - self._taken + samples > self._capacity:
            self._lost += samples
            return
        if self._lost:
            self._blocks.append(self._lost)
            self._lost = 0
        self._blocks.append(bytes(data))
        self._put += samples
        self._bell.ring()

    def finish(self) -> None:
        """Take note that no more will come, in PortAudio's thread."""
        self._finished = True
        self._bell.ring()

    async def take(self) -> bytes | int | None:
        """Return the next block or number of missing samples, None when the device is gone."""
        while True:
            finished = self._finished  # looked at first: everything that was put before is then in the deque
            if self._blocks:
                block = self._blocks.popleft()
                if isinstance(block, bytes):
                    self._taken += len(block) // self._sample_bytes
                return block
            if finished:
                lost, self._lost = self._lost, 0
                return lost or None
            await self._bell.wait()


@hookimpl
def register_components(register: Register) -> None:
    register("mic", Mic)
