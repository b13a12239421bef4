"""The bridge that a good programmer writes in an afternoon: ``websockets``, msgspec, uvloop and audioop, no more.

It is what ``bench_calls`` compares with: no negotiation, no second sink, no account, no recovery, linear resampling.

    python -m benchmarks.reference_bridge EKA_PORT       prints its own port
"""

from __future__ import annotations

import base64
import sys
import warnings

import msgspec
import uvloop
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop


class Media(msgspec.Struct):
    payload: str


class Start(msgspec.Struct):
    callId: str


class Message(msgspec.Struct):
    event: str
    media: Media | None = None
    start: Start | None = None


async def bridge(carrier: ServerConnection, eka_port: int) -> None:
    """Carry one call."""
    parse = msgspec.json.Decoder(Message).decode
    first = parse(await carrier.recv())
    assert first.start is not None
    url = f"ws://127.0.0.1:{eka_port}/{first.start.callId}"
    state = None
    async with connect(url, compression=None, proxy=None) as eka:
        async for text in carrier:
            message = parse(text)
            if message.media is not None:
                pcm = audioop.ulaw2lin(base64.b64decode(message.media.payload), 2)
                pcm, state = audioop.ratecv(pcm, 2, 1, 8000, 16_000, state)
                await eka.send(pcm)
            elif message.event == "stop":
                break
        await eka.send('{"event":"stop"}')
        await eka.wait_closed()


async def main(eka_port: int) -> None:
    """Serve until killed."""
    async with serve(lambda carrier: bridge(carrier, eka_port), "127.0.0.1", 0, compression=None) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
