"""The two ends of a load test on one event loop: carriers that play paced calls, and an EkaScribe that checks them.

Both are plain asyncio protocols that write and compare ready-made bytes, a few microseconds a frame, so that they are
not what is measured; ``Harness.busy`` says how much of its core the harness used.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import resource
import time
from array import array
from collections.abc import Callable
from functools import partial

from . import frames

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_BLOCK = 2 * frames.FRAME_SAMPLES * frames.RATE_OUT // frames.RATE_IN


class Call:
    """One call of the load: what was sent when, and what came back."""

    def __init__(self, id: str, voice: int, count: int) -> None:
        self.id, self.voice = id, voice
        self.sent_at = array("d", bytes(8 * count))
        self.sent = self.received = self.wrong = 0
        self.latencies: list[float] = []
        self.connected = asyncio.Event()
        """EkaScribe's socket is open."""
        self.stored = asyncio.Event()
        """EkaScribe's socket is closed: everything has arrived that will."""


class Harness:
    """The calls of one run, and both servers' worth of sockets for them."""

    def __init__(self, seconds: float, exact: bool) -> None:
        self.frames = round(seconds / frames.FRAME_S)
        self.exact = exact
        """Whether every byte is compared, or only the length (for servers with another resampler)."""
        self.media = [frames.media(voice, self.frames) for voice in range(frames.VOICES)]
        self.expected = [frames.expected(voice, self.frames) for voice in range(frames.VOICES)]
        self._delay = 2 * round(frames.DELAY_S * frames.RATE_OUT) if exact else 0
        self.calls: dict[str, Call] = {}
        self.busy = 0.0

    async def serve(self) -> int:
        """Start EkaScribe's end and return its port."""
        server = await asyncio.get_running_loop().create_server(lambda: _Eka(self), "127.0.0.1", 0)
        return int(server.sockets[0].getsockname()[1])

    async def play(self, port: int, path: str, number: int) -> None:
        """Play ``number`` calls to the server at ``port``, evenly spread over the 20 ms of a frame."""
        loop = asyncio.get_running_loop()
        carriers = []
        for index in range(number):
            call = Call(f"c{number}-{index}", index % frames.VOICES, self.frames)
            self.calls[call.id] = call
            _, carrier = await loop.create_connection(partial(_Carrier, call, path), "127.0.0.1", port)
            carriers.append(carrier)
        # Opening is not what is measured: begin when every call is through to EkaScribe.
        for carrier in carriers:
            await carrier.call.connected.wait()
        before, began = _cpu(), time.perf_counter()
        await self._pace([(frames.FRAME_S * index / number, carrier) for index, carrier in enumerate(carriers)])
        self.busy = (_cpu() - before) / (time.perf_counter() - began)
        for carrier in carriers:
            carrier.write(frames.STOP)
        async with asyncio.timeout(60):
            for carrier in carriers:
                await carrier.call.stored.wait()

    async def _pace(self, carriers: list[tuple[float, _Carrier]]) -> None:
        """Send the frames of all carriers, each at its own moment of the 20 ms."""
        began = time.perf_counter()
        for number in range(self.frames):
            for phase, carrier in carriers:
                due = began + number * frames.FRAME_S + phase
                wait = due - time.perf_counter()
                if wait > 0.0005:
                    await asyncio.sleep(wait)
                call = carrier.call
                call.sent_at[number] = time.perf_counter()
                carrier.write(self.media[call.voice][number])
                call.sent += 1

    def check(self, call: Call, pcm: bytes) -> None:
        """Compare what has arrived with what must."""
        end = call.received + len(pcm)
        if self.exact and self.expected[call.voice][call.received : end] != pcm:
            call.wrong += 1
        call.received = end
        # The frame that made this message go out: what the resampler holds back came with it.
        newest = -(-(end + self._delay) // _BLOCK) - 1
        if 0 <= newest < call.sent:
            call.latencies.append(time.perf_counter() - call.sent_at[newest])


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class _Carrier(asyncio.Protocol):
    """The carrier's end of one call."""

    def __init__(self, call: Call, path: str) -> None:
        self.call = call
        self._path = path.format(call_id=call.id)
        self.write: Callable[[bytes], None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.write = transport.write
        transport.write(
            f"GET {self._path} HTTP/1.1\r\nHost: load\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"HTTP/1.1 101"):
            self.write(frames.start(self.call.id))
        elif data[0] == 0x89:  # a ping wants its pong
            self.write(frames.client_frame(10, data[2:]))


class _Eka(asyncio.Protocol):
    """EkaScribe's end: sessions over HTTP, audio over a WebSocket, on one port."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness
        self._buffer = bytearray()
        self._call: Call | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._port = transport.get_extra_info("sockname")[1]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._message() if self._call is not None else self._request():
            pass

    def connection_lost(self, exc: Exception | None) -> None:
        if self._call is not None:
            self._call.stored.set()

    def _request(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n") + 4
        if end < 4:
            return False
        head = bytes(self._buffer[:end])
        fields = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:] if line)
        }
        length = int(fields.get(b"content-length", b"0"))
        if len(self._buffer) < end + length:
            return False
        body = bytes(self._buffer[end : end + length])
        del self._buffer[: end + length]
        method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        if b"sec-websocket-key" in fields:
            accept = base64.b64encode(hashlib.sha1(fields[b"sec-websocket-key"] + _GUID).digest())
            self._transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
            )
            self._call = self._harness.calls[path.rpartition("/")[2]]
            self._call.connected.set()
            return True
        self._transport.write(self._answer(method, path, body))
        return True

    def _answer(self, method: str, path: str, body: bytes) -> bytes:
        status, answer = "200 OK", {"session_id": "ses_0", "status": "completed"}
        if path.endswith("/sessions"):
            call_id = json.loads(body)["additional_data"]["call_id"]
            status = "201 Created"
            answer = {
                "session_id": f"ses_{call_id}",
                "status": "created",
                "upload_url": f"ws://127.0.0.1:{self._port}/{call_id}",
            }
        elif path.endswith("/end"):
            status, answer["status"] = "202 Accepted", "processing"
        text = json.dumps(answer)
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
        return (head + text).encode()

    def _message(self) -> bool:
        """Take one frame off the buffer: binary is audio, text is `stop`."""
        buffer = self._buffer
        if len(buffer) < 2:
            return False
        opcode, length, at = buffer[0] & 15, buffer[1] & 127, 2
        if length == 126:
            length, at = int.from_bytes(buffer[2:4], "big"), 4
        elif length == 127:
            length, at = int.from_bytes(buffer[2:10], "big"), 10
        end = at + 4 + length
        if len(buffer) < end:
            return False
        mask, masked = bytes(buffer[at : at + 4]), bytes(buffer[at + 4 : end])
        del buffer[:end]
        key = (mask * (length // 4 + 1))[:length]
        payload = (int.from_bytes(masked, "big") ^ int.from_bytes(key, "big")).to_bytes(length, "big")
        assert self._call is not None
        if opcode == 2:
            self._harness.check(self._call, payload)
        elif opcode == 9:
            self._transport.write(bytes([0x8A, length]) + payload)
        else:  # stop, or a close without one
            self._transport.write(b"\x88\x02\x03\xe8")
            self._transport.close()
            return False
        return True
