"""Print what Pipecat's serializer for Plivo sends when it plays the 16-bit samples on standard input, then clears.

    python pipecat_plivo.py < samples > pipecat_plivo.jsonl

One message a line, 480 samples of 8 kHz a message.  It needs pipecat-ai, which brings 48 packages and 433 MB, so what
it printed is kept beside it; the first line says which version that was.
"""

import asyncio
import json
import sys
from importlib.metadata import version

from pipecat.frames.frames import InterruptionFrame, OutputAudioRawFrame
from pipecat.serializers.plivo import PlivoFrameSerializer


async def main() -> None:
    serializer = PlivoFrameSerializer("s1", params=PlivoFrameSerializer.InputParams(auto_hang_up=False))
    print(json.dumps({"pipecat-ai": version("pipecat-ai")}))
    while pcm := sys.stdin.buffer.read(960):
        print(await serializer.serialize(OutputAudioRawFrame(pcm, 8000, 1)))
    print(await serializer.serialize(InterruptionFrame()))


asyncio.run(main())
