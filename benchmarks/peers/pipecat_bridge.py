"""The same bridge as a Pipecat pipeline: FastAPI's transport, the serializer for Plivo, whose wire is alike, a sink.

Its resampler (soxr as a stream) hands audio on in pieces of some 100 ms, and keeps the last piece of a call.

    python pipecat_bridge.py EKA_URL       prints its own port
"""

from __future__ import annotations

import json
import socket
import sys

from loguru import logger

logger.remove()  # before the rest is imported, which says hello

import uvicorn  # noqa: E402
from fastapi import FastAPI, WebSocket  # noqa: E402
from pipecat.frames.frames import EndFrame, Frame, InputAudioRawFrame  # noqa: E402
from pipecat.pipeline.pipeline import Pipeline  # noqa: E402
from pipecat.pipeline.worker import PipelineParams, PipelineWorker  # noqa: E402
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor  # noqa: E402
from pipecat.serializers.plivo import PlivoFrameSerializer  # noqa: E402
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport  # noqa: E402
from pipecat.workers.runner import WorkerRunner  # noqa: E402
from websockets.asyncio.client import ClientConnection, connect  # noqa: E402


class Serializer(PlivoFrameSerializer):
    """Takes the carrier's stop for the end, which Pipecat's leaves to the closing of the socket."""

    async def deserialize(self, data: str | bytes) -> Frame | None:
        if isinstance(data, str) and len(data) < 100 and '"stop"' in data:
            return EndFrame()
        return await super().deserialize(data)


class ToEka(FrameProcessor):
    """Sends audio to EkaScribe."""

    def __init__(self, eka: ClientConnection) -> None:
        super().__init__()
        self._eka = eka

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            await self._eka.send(frame.audio)
        elif isinstance(frame, EndFrame):
            await self._eka.send('{"event":"stop"}')
        await self.push_frame(frame, direction)


app = FastAPI()


@app.websocket("/")
async def bridge(carrier: WebSocket) -> None:
    """Carry one call."""
    await carrier.accept()
    start = json.loads(await carrier.receive_text())["start"]
    async with connect(f"{sys.argv[1]}/{start['callId']}", compression=None, proxy=None) as eka:
        serializer = Serializer(start["streamId"], params=PlivoFrameSerializer.InputParams(auto_hang_up=False))
        transport = FastAPIWebsocketTransport(
            carrier, FastAPIWebsocketParams(audio_in_enabled=True, serializer=serializer)
        )
        pipeline = Pipeline([transport.input(), ToEka(eka)])
        params = PipelineParams(audio_in_sample_rate=16_000)
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(PipelineWorker(pipeline, params=params, cancel_on_idle_timeout=False))
        await runner.run()
        await eka.wait_closed()


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(listener.getsockname()[1], flush=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", ws_per_message_deflate=False))
    server.run(sockets=[listener])
