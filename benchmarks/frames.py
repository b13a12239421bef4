"""WebSocket frames and calls, made before the clock starts, so that the load costs next to nothing to produce.

Frames are masked with a key of zeros: legal, and the payload stays as it is.  Every call plays one of ``VOICES``
different recordings of noise, so a block that arrives doubled, late, swapped or from another call is not the block that
is expected.
"""

from __future__ import annotations

import base64
import json
import random
import struct

from mediaflow import dsp

VOICES = 8
FRAME_SAMPLES, FRAME_S = 160, 0.02
RATE_IN, RATE_OUT = 8000, 16_000
DELAY_S = dsp.Resampler(RATE_IN, RATE_OUT).latency
_EPOCH_MS = 1_778_597_597_091


def client_frame(opcode: int, payload: bytes) -> bytes:
    """Return one masked frame (RFC 6455, section 5.2)."""
    length = len(payload)
    if length < 126:
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | length)
    else:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, length)
    return head + bytes(4) + payload


def text(message: dict[str, object]) -> bytes:
    """Return a text frame that carries ``message`` as JSON."""
    return client_frame(1, json.dumps(message, separators=(",", ":")).encode())


def codes(voice: int, frames: int) -> bytes:
    """Return ``frames`` frames of µ-law noise, always the same for a voice."""
    return random.Random(voice).randbytes(frames * FRAME_SAMPLES)


def media(voice: int, frames: int) -> list[bytes]:
    """Return the media messages of a voice, as Vobiz sends them."""
    audio = codes(voice, frames)
    return [
        text(
            {
                "sequenceNumber": number + 1,
                "streamId": f"20170ada-f610-433b-8758-{voice:012d}",
                "event": "media",
                "media": {
                    "track": "inbound",
                    "timestamp": str(_EPOCH_MS + 20 * number),
                    "chunk": number + 1,
                    "payload": base64.b64encode(audio[number * FRAME_SAMPLES :][:FRAME_SAMPLES]).decode(),
                },
                "extra_headers": "{}",
            }
        )
        for number in range(frames)
    ]


def start(call_id: str) -> bytes:
    """Return the start message of a call."""
    return text(
        {
            "sequenceNumber": 0,
            "event": "start",
            "start": {
                "callId": call_id,
                "streamId": f"stream-{call_id}",
                "accountId": "1",
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": RATE_IN},
            },
            "extra_headers": "{}",
        }
    )


STOP = text({"event": "stop", "reason": "call_ended"})


def expected(voice: int, frames: int) -> bytes:
    """Return what EkaScribe must receive of a voice: the whole call at once through the same kernels."""
    resampler = dsp.Resampler(RATE_IN, RATE_OUT)
    return resampler.process(dsp.mulaw_decode(codes(voice, frames))) + resampler.flush()
