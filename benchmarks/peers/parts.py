"""mediaflow's own parts, wired by hand: what the YAML, the graph, the session, the edge and the ledger cost on top.

python parts.py EKA_URL [CERTIFICATE KEY AUTHORITY]       prints `listens at` and its address
"""

from __future__ import annotations

import ssl
import sys
from functools import partial

import anyio
import uvloop  # noqa: F401 (what the backend is asked for below)

from mediaflow import dsp, envelope, tls, websocket
from mediaflow.envelope import Media, Start, Stop
from mediaflow.timeline import Timeline
from mediaflow.websocket import Address, WebSocket
from mediaflow.wire_truth import WireTruth

MESSAGE = 640


async def carry(carrier: WebSocket, eka_url: str, trust: ssl.SSLContext | None) -> None:
    """Carry one call."""
    first = envelope.parse(await carrier.recv())
    assert isinstance(first, Start)
    timeline, truth = Timeline(first.format.sample_rate), WireTruth(first.format, ("inbound",))
    resampler, vad = dsp.Resampler(8000, 16_000), dsp.EnergyVad(16_000)
    pending = b""
    async with websocket.connect(f"{eka_url}/{first.call_id}", tls=trust) as eka:
        while not isinstance(media := envelope.parse(await carrier.recv()), Stop):
            if not isinstance(media, Media):
                continue
            timeline.place("inbound", len(media.payload), media.chunk, media.timestamp_ms)
            if not truth.settled:
                truth.hear("inbound", media.payload, media.timestamp_ms)
            pcm = resampler.process(dsp.mulaw_decode(media.payload))
            vad.process(pcm)
            pending += pcm
            while len(pending) >= MESSAGE:
                if not eka.send_nowait(pending[:MESSAGE]):
                    await eka.send(pending[:MESSAGE])
                pending = pending[MESSAGE:]
        await eka.send(pending + resampler.flush())
        await eka.send(envelope.build_eka_stop())
        await eka.wait_closed()


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
    anyio.run(partial(main, *words), backend="asyncio", backend_options={"use_uvloop": True})
