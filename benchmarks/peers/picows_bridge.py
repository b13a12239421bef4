"""``by_hand.py`` with picows in the place of ``websockets``: a callback per frame, and no task.

python picows_bridge.py EKA_URL [CERTIFICATE KEY AUTHORITY]       prints its own port
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import warnings
from typing import Any

import msgspec
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect, ws_create_server

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


parse = msgspec.json.Decoder(Message).decode


class Eka(WSListener):
    """EkaScribe's end: it only closes."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()


class Carrier(WSListener):
    """The carrier's end of a call."""

    def __init__(self, eka_url: str, trust: ssl.SSLContext | None) -> None:
        self._eka_url, self._trust = eka_url, trust
        self._eka: WSTransport | None = None
        self._early: list[Message] = []
        self._state: Any = None

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            message = parse(frame.get_payload_as_memoryview())
            if message.start is not None:
                self._connecting = asyncio.get_running_loop().create_task(self._connect(message.start.callId))
            elif self._eka is None:
                self._early.append(message)
            else:
                self._carry(self._eka, message)
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()

    async def _connect(self, call: str) -> None:
        self._eka, _ = await ws_connect(Eka, f"{self._eka_url}/{call}", ssl_context=self._trust)
        for message in self._early:
            self._carry(self._eka, message)

    def _carry(self, eka: WSTransport, message: Message) -> None:
        if message.media is not None:
            pcm = audioop.ulaw2lin(message.media.payload, 2)
            pcm, self._state = audioop.ratecv(pcm, 2, 1, 8000, 16_000, self._state)
            eka.send(WSMsgType.BINARY, pcm)
        elif message.event == "stop":
            eka.send(WSMsgType.TEXT, b'{"event":"stop"}')


async def main(eka_url: str, certificate: str = "", key: str = "", authority: str = "") -> None:
    """Serve until killed."""
    context = trust = None
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        trust = ssl.create_default_context(cafile=authority)
    server = await ws_create_server(lambda _: Carrier(eka_url, trust), "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
