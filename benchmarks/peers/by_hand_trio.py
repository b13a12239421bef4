"""``by_hand.py`` on Trio: the same with ``websockets.trio``.

python by_hand_trio.py EKA_URL       prints its own port
"""

from __future__ import annotations

import sys
import warnings

import msgspec
import trio
from websockets.trio.client import connect
from websockets.trio.server import ServerConnection, serve

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop


class Media(msgspec.Struct):
    payload: bytes


class Start(msgspec.Struct):
    callId: str


class Message(msgspec.Struct):
    event: str
    media: Media | None = None
    start: Start | None = None


async def bridge(carrier: ServerConnection, eka_url: str) -> None:
    """Carry one call."""
    parse = msgspec.json.Decoder(Message).decode
    first = parse(await carrier.recv())
    assert first.start is not None
    state = None
    async with connect(f"{eka_url}/{first.start.callId}", compression=None, proxy=None) as eka:
        async for text in carrier:
            message = parse(text)
            if message.media is not None:
                pcm = audioop.ulaw2lin(message.media.payload, 2)
                pcm, state = audioop.ratecv(pcm, 2, 1, 8000, 16_000, state)
                await eka.send(pcm)
            elif message.event == "stop":
                break
        await eka.send('{"event":"stop"}')
        await eka.wait_closed()


async def main(eka_url: str) -> None:
    """Serve until killed."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            lambda task_status: serve(
                lambda carrier: bridge(carrier, eka_url),
                0,
                host="127.0.0.1",
                compression=None,
                task_status=task_status,
            )
        )
        print(server.listeners[0].socket.getsockname()[1], flush=True)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
