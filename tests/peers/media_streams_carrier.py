"""Play a carrier of the Media Streams family to the server at the URL given: URL DIALECT ENCODING FILE.

Sends the samples of FILE, as they are, in frames as long as the carrier's, and stops as it does.  Telnyx's frames
overtake each other in pairs.  Uses the websockets library and nothing of mediaflow.
"""

import base64
import json
import sys
from contextlib import suppress
from pathlib import Path

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

url, dialect, encoding, file = sys.argv[1:]
audio = Path(file).read_bytes()
rate, sample_bytes = 8000, 2 if encoding in ("audio/x-l16", "base64") else 1
frame_ms = 100 if dialect == "exotel" else 20
size = rate * frame_ms // 1000 * sample_bytes
camel = {"encoding": encoding, "sampleRate": rate}
snake = {"encoding": encoding, "sample_rate": str(rate)}

START = {
    "twilio": {
        "event": "start",
        "sequenceNumber": "1",
        "streamSid": "MZ1",
        "start": {
            "accountSid": "AC1",
            "streamSid": "MZ1",
            "callSid": "CALL_1",
            "tracks": ["inbound"],
            "customParameters": {"visit": "42"},
            "mediaFormat": {**camel, "channels": 1},
        },
    },
    "plivo": {
        "event": "start",
        "sequenceNumber": 1,
        "start": {
            "callId": "CALL_1",
            "streamId": "s1",
            "accountId": "MA1",
            "tracks": ["inbound"],
            "mediaFormat": camel,
        },
        "extra_headers": "visit=42",
    },
    "vobiz": {
        "event": "start",
        "sequenceNumber": 0,
        "start": {
            "callId": "CALL_1",
            "streamId": "s1",
            "accountId": "500",
            "tracks": ["inbound"],
            "mediaFormat": camel,
        },
        "extra_headers": "{}",
    },
    "telnyx": {
        "event": "start",
        "sequence_number": "1",
        "stream_id": "s1",
        "start": {
            "user_id": "u1",
            "call_control_id": "CALL_1",
            "from": "+10",
            "to": "+20",
            "custom_parameters": {"visit": "42"},
            "media_format": {**snake, "channels": 1},
        },
    },
    "exotel": {
        "event": "start",
        "sequence_number": "1",
        "stream_sid": "s1",
        "start": {
            "stream_sid": "s1",
            "call_sid": "CALL_1",
            "account_sid": "a1",
            "from": "+10",
            "to": "+20",
            "custom_parameters": {"visit": "42"},
            "media_format": {**snake, "bit_rate": "128kbps"},
        },
    },
}


def media(number: int) -> dict[str, object]:
    payload = base64.b64encode(audio[number * size : (number + 1) * size]).decode()
    stamp = number * frame_ms
    if dialect in ("plivo", "vobiz"):
        body = {"track": "inbound", "chunk": number + 1, "timestamp": str(1778597597091 + stamp), "payload": payload}
    elif dialect == "exotel":
        body = {"chunk": number + 1, "timestamp": str(stamp), "payload": payload}
    else:
        body = {"track": "inbound", "chunk": str(number + 1), "timestamp": str(stamp), "payload": payload}
    return {"event": "media", "media": body}


STOP = {
    "twilio": {"event": "stop", "streamSid": "MZ1", "stop": {"accountSid": "AC1", "callSid": "CALL_1"}},
    "telnyx": {"event": "stop", "stream_id": "s1", "stop": {"user_id": "u1", "call_control_id": "CALL_1"}},
    "exotel": {"event": "stop", "stream_sid": "s1", "stop": {"call_sid": "CALL_1", "reason": "callended"}},
}

order = list(range(len(audio) // size))
if dialect == "telnyx":
    for at in range(2, len(order) - 1, 4):
        order[at], order[at + 1] = order[at + 1], order[at]

with connect(url) as socket:
    if dialect in ("twilio", "telnyx", "exotel"):
        socket.send(json.dumps({"event": "connected", "version": "1.0.0"}))
    socket.send(json.dumps(START[dialect]))
    for number in order:
        socket.send(json.dumps(media(number)))
    if dialect in STOP:
        socket.send(json.dumps(STOP[dialect]))
        with suppress(ConnectionClosed):
            socket.recv()
