"""A bridge made of Pipecat: its WebSocket transport and Plivo serializer in, its resampler's PCM at 16 kHz out.

    python bridge_pipecat.py ws://WHERE-TO [FAULT...]        prints {"port": …} once it listens

Runs in an environment of its own with ``pipecat-ai[websocket]``.  Nothing is added to what Pipecat does but the
forwarder; what is planted is

    wrong_rate      the serializer is told that the call has 16 kHz
    drops_frames    the forwarder leaves out every 20th piece that it is given
"""

import asyncio
import json
import socket
import sys

from loguru import logger
from pipecat.frames.frames import Frame, InputAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.serializers.plivo import PlivoFrameSerializer
from pipecat.transports.websocket.server import (
    SingleClientWebsocketServerParams,
    SingleClientWebsocketServerTransport,
)
from pipecat.workers.runner import WorkerRunner
from websockets.asyncio.client import ClientConnection, connect

TARGET, FAULTS = sys.argv[1], set(sys.argv[2:])
LINGER_S = 0.5


class Forward(FrameProcessor):  # type: ignore[misc]
    """Sends the audio of one client after the other on."""

    def __init__(self) -> None:
        super().__init__()
        self.out: ClientConnection | None = None
        self.count = 0

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame) and self.out is not None:
            self.count += 1
            if "drops_frames" not in FAULTS or self.count % 20:
                await self.out.send(frame.audio)
        await self.push_frame(frame, direction)


async def main() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    rate = 16_000 if "wrong_rate" in FAULTS else 8000
    inputs = PlivoFrameSerializer.InputParams(plivo_sample_rate=rate, auto_hang_up=False)
    params = SingleClientWebsocketServerParams(
        audio_in_enabled=True,
        audio_in_sample_rate=16_000,
        serializer=PlivoFrameSerializer("stream", params=inputs),
        allowed_origins=[],
    )
    transport = SingleClientWebsocketServerTransport(params=params, host="127.0.0.1", port=port)
    forward = Forward()

    @transport.event_handler("on_client_connected")  # type: ignore[untyped-decorator]
    async def connected(_transport: object, _client: object) -> None:
        forward.out = await connect(TARGET, proxy=None)

    @transport.event_handler("on_client_disconnected")  # type: ignore[untyped-decorator]
    async def disconnected(_transport: object, _client: object) -> None:
        await asyncio.sleep(LINGER_S)  # Pipecat's own queue runs dry
        if forward.out is not None:
            await forward.out.close()

    @transport.event_handler("on_websocket_ready")  # type: ignore[untyped-decorator]
    async def ready(_transport: object) -> None:
        print(json.dumps({"port": port}), flush=True)

    worker = PipelineWorker(
        Pipeline([transport.input(), forward, transport.output()]),
        params=PipelineParams(audio_in_sample_rate=16_000),
        cancel_on_idle_timeout=False,
    )
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


logger.remove()
asyncio.run(main())
