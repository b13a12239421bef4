"""The bridge that a good programmer writes in an afternoon: ``websockets``, msgspec, audioop and uvloop, no more.

It is what everything else is compared with: no negotiation, no account, no detector, no recovery, linear resampling.

    python by_hand.py EKA_URL [CERTIFICATE KEY AUTHORITY]       prints its own port
"""

from __future__ import annotations

import ssl
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
    payload: bytes


class Start(msgspec.Struct):
    callId: str


class Message(msgspec.Struct):
    event: str
    media: Media | None = None
    start: Start | None = None


async def bridge(carrier: ServerConnection, eka_url: str, trust: ssl.SSLContext | None) -> None:
    """Carry one call."""
    parse = msgspec.json.Decoder(Message).decode
    first = parse(await carrier.recv())
    assert first.start is not None
    state = None
    url = f"{eka_url}/{first.start.callId}"
    async with connect(url, compression=None, proxy=None, ssl=trust) as eka:
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


async def main(eka_url: str, certificate: str = "", key: str = "", authority: str = "") -> None:
    """Serve until killed."""
    context = trust = None
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        trust = ssl.create_default_context(cafile=authority)
    async with serve(
        lambda carrier: bridge(carrier, eka_url, trust), "127.0.0.1", 0, compression=None, ssl=context
    ) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
