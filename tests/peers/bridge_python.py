"""A bridge that nobody of mediaflow wrote, on the websockets library: media messages in, EkaScribe's JSON stream out.

    python bridge_python.py http://EKA [FAULT...]        prints {"port": …} once it listens

Without a fault it places audio by the carrier's stamps, so it fills gaps and drops what comes twice, mixes both tracks,
and ends its session behind the last audio.  It takes L16 for little-endian.

    no_flush        keeps the last half second for late frames, and forgets it at the end
    no_end          never ends its session
    no_stamps       appends audio as it comes
    rate_as_text    announces the rate to EkaScribe as text, which it ignores
    hangs_up        closes the carrier's socket at a stop of a second
    per_socket      opens a session for every socket
"""

import asyncio
import base64
import json
import sys
import urllib.request
import warnings

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

EKA, FAULTS = sys.argv[1], set(sys.argv[2:])
HOLD_S, LINGER_S = 0.5, 0.3


def post(path: str, body: object) -> dict[str, str]:
    headers = {"Authorization": "Bearer any", "Content-Type": "application/json"}
    request = urllib.request.Request(EKA + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as reply:
        found: dict[str, str] = json.load(reply)
        return found


class Call:
    """The audio of a call on its own clock, and its session."""

    def __init__(self) -> None:
        self.encoding, self.rate = "", 0
        self.zero: int | None = None
        self.pcm: dict[str, bytearray] = {}
        self.sent = 0  # bytes
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.over = False
        self.leaving: asyncio.TimerHandle | None = None
        self.task = asyncio.create_task(self.forward())

    def start(self, message: dict) -> None:  # type: ignore[type-arg]
        inner = message.get("start", message)
        kind = inner.get("mediaFormat", {}).get("encoding") or inner["contentType"]
        rate = inner.get("mediaFormat", {}).get("sampleRate") or kind.partition("rate=")[2]
        self.encoding, self.rate = kind.partition(";")[0], int(rate)

    def media(self, media: dict) -> None:  # type: ignore[type-arg]
        try:
            data = base64.b64decode(media["payload"], validate=True)
        except ValueError:
            return
        if "mulaw" in self.encoding:
            data = audioop.ulaw2lin(data, 2)
        stamp = int(media["timestamp"])
        if self.zero is None:
            self.zero = stamp
        track = self.pcm.setdefault(media.get("track", "inbound"), bytearray())
        place = len(track) if "no_stamps" in FAULTS else (stamp - self.zero) * self.rate // 1000 * 2
        if place < 0:
            return
        track.extend(bytes(max(0, place + len(data) - len(track))))
        track[place : place + len(data)] = data
        self.send(max(map(len, self.pcm.values())) - int(HOLD_S * self.rate) * 2)

    def send(self, until: int) -> None:
        if until <= self.sent:
            return
        parts = [bytes(track[self.sent : until]).ljust(until - self.sent, b"\0") for track in self.pcm.values()]
        mixed = parts[0]
        for part in parts[1:]:
            mixed = audioop.add(mixed, part, 2)
        self.sent = until
        self.queue.put_nowait(mixed)

    def end(self) -> None:
        if not self.over:
            self.over = True
            if "no_flush" not in FAULTS:
                self.send(max(map(len, self.pcm.values()), default=0))
            self.queue.put_nowait(None)

    async def forward(self) -> None:
        first = await self.queue.get()
        if first is None:
            return
        session = await asyncio.to_thread(post, "/voice/v1/sessions", {"upload_type": "stream"})
        async with connect(session["upload_url"], compression=None) as socket:
            rate = str(self.rate) if "rate_as_text" in FAULTS else self.rate
            await socket.send(json.dumps({"event": "start", "start": {"mediaFormat": {"sampleRate": rate}}}))
            pcm: bytes | None = first
            while pcm is not None:
                for start in range(0, len(pcm), 3200):
                    payload = base64.b64encode(pcm[start : start + 3200]).decode()
                    await socket.send(json.dumps({"event": "media", "media": {"payload": payload}}))
                pcm = await self.queue.get()
            await socket.send('{"event": "stop"}')
            await socket.wait_closed()
        if "no_end" not in FAULTS:
            await asyncio.to_thread(post, f"/voice/v1/sessions/{session['session_id']}/end", {})


calls: dict[str, Call] = {}


async def take(socket: ServerConnection) -> None:
    call: Call | None = None
    early: list[dict] = []  # type: ignore[type-arg]
    seconds = 0
    try:
        async for text in socket:
            message = json.loads(text)
            if message["event"] == "start" and call is None:
                id = message.get("start", message)["callId"]
                if id not in calls or "per_socket" in FAULTS:
                    calls[id] = Call()
                call = calls[id]
                if call.leaving is not None:
                    call.leaving.cancel()
                call.start(message)
                for media in early:
                    call.media(media)
            elif message["event"] == "media":
                if call is None:
                    early.append(message["media"])
                elif not call.over:
                    call.media(message["media"])
                    seconds += 1
                    if "hangs_up" in FAULTS and seconds == 100:
                        break
            elif message["event"] == "stop" and call is not None:
                call.end()
    except ConnectionClosed:
        pass
    if call is not None:
        call.leaving = asyncio.get_running_loop().call_later(LINGER_S, call.end)


async def main() -> None:
    async with serve(take, "127.0.0.1", 0, max_size=None, close_timeout=0.1) as server:
        print(json.dumps({"port": next(iter(server.sockets)).getsockname()[1]}), flush=True)
        await asyncio.Future()


asyncio.run(main())
