"""mediaflow's own parts, wired by hand: what the YAML, the graph, the session, the edge and the ledger cost on top.

python parts.py EKA_URL [CERTIFICATE KEY AUTHORITY]       prints `listens at` and its address

They are the parts that the engine runs, in the same synchronous call from one socket to the other: the compiled reader
of messages, the timeline and the check of what the call sounds like, the three steps as one chain, the packer of
messages, `send_nowait`.
"""

from __future__ import annotations

import ssl
import sys
from functools import partial

import anyio

from mediaflow import AudioFrame, envelope, tls, websocket
from mediaflow._wire.media import Plain
from mediaflow.compiled import Fused, fuse
from mediaflow.eka import Packer
from mediaflow.envelope import Start, Stop
from mediaflow.timeline import Timeline
from mediaflow.websocket import Address, WebSocket
from mediaflow.wire_truth import WireTruth
from mediaflow_plugins.transform_energy_vad import EnergyVad
from mediaflow_plugins.transform_mulaw_decode import MulawDecode
from mediaflow_plugins.transform_resample import Resample

TRACK = "inbound"
MESSAGE = 640
"""Bytes at least in a message: 20 ms."""


class Call:
    """What comes on one socket leaves by the other."""

    def __init__(self, start: Start, carrier: WebSocket, eka: WebSocket) -> None:
        self._carrier, self._stopped = carrier, False
        self._event = anyio.Event()
        self._plain = Plain()
        self._timeline, self._truth = Timeline(start.format.sample_rate), WireTruth(start.format, (TRACK,))
        self._deaf = 0
        steps, format = [], start.format
        for transform in (MulawDecode(), Resample(rate=16_000), EnergyVad()):
            steps.append((type(transform).__name__, transform.open(format)))
            format = transform.output_format(format)
        [(_, chain)] = fuse(steps)
        assert isinstance(chain, Fused)
        self._chain = chain
        self._eka, self._packer = eka, Packer(eka.send_nowait, MESSAGE)
        self._position = 0

    def take(self, text: bytes) -> bool:
        """Take a message of the carrier; False while EkaScribe has no room."""
        plain = self._plain
        if plain.read(text):
            return self._audio(plain.payload or b"", plain)
        self._stopped = isinstance(envelope.parse(text), Stop)
        return not self._stopped

    def refused(self) -> None:
        """Have ``carry`` make room, or see that it is over."""
        self._event.set()

    def ended(self, error: Exception) -> None:
        """Take the end for a stop."""
        self._stopped = True
        self._event.set()

    async def carry(self) -> None:
        """Return when the carrier has said that the call is over."""
        self._carrier.carry(self)
        while True:
            self._carrier.go_on()
            await self._event.wait()
            if self._stopped:
                return
            self._event = anyio.Event()
            await self.ready()

    def _audio(self, data: bytes, plain: Plain) -> bool:
        self._timeline.put(TRACK, len(data), plain.numbered, plain.chunk, plain.timed, plain.timestamp_ms)
        if self._deaf > 0:
            self._deaf -= len(data)
        elif not self._truth.settled:
            self._truth.hear(TRACK, data, plain.timestamp_ms)
            self._deaf = self._truth.rest()
        room = True
        for item in self._chain.take(data, TRACK, self._position):
            if isinstance(item, AudioFrame) and not (room and self._packer.put(item.data)):
                self._packer.keep(item.data)
                room = False
        self._position += len(data)
        return room

    async def ready(self) -> None:
        """Send what there was no room for."""
        while self._packer.waiting:
            await self._eka.send(pcm := self._packer.head())
            self._packer.sent_head(len(pcm))

    async def finish(self) -> None:
        """Send the rest, say that it was all, and wait until EkaScribe has it."""
        for item in self._chain.flush():
            if isinstance(item, AudioFrame):
                self._packer.keep(item.data)
        await self.ready()
        await self._eka.send(envelope.build_eka_stop())
        await self._eka.wait_closed()


async def carry(carrier: WebSocket, eka_url: str, trust: ssl.SSLContext | None) -> None:
    """Carry one call."""
    start = envelope.parse(await carrier.recv())
    assert isinstance(start, Start)
    async with websocket.connect(f"{eka_url}/{start.call_id}", tls=trust) as eka:
        call = Call(start, carrier, eka)
        await call.carry()
        await call.finish()
        carrier.release()


async def main(eka_url: str, certificate: str = "", key: str = "", authority: str = "") -> None:
    """Serve until killed."""
    context = trust = None
    if certificate:
        context, trust = tls.server_context(certificate, key), ssl.create_default_context(cafile=authority)
    address = Address.parse(f"{'wss' if certificate else 'ws'}://127.0.0.1:0/vobiz")
    await websocket.serve(
        lambda carrier: carry(carrier, eka_url, trust),
        address,
        admit=lambda target: None,
        listening=lambda port: print(f"listens at {address.url(port)}", flush=True),
        tls=context,
    )


if __name__ == "__main__":
    _, *words = sys.argv
    anyio.run(partial(main, *words), backend="asyncio", backend_options=websocket.LOOP)
