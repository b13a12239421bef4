"""Play the carrier to the server at the URL given: one second of two tracks, then close, as the wire does today.

Uses the websockets library and nothing of mediaflow.
"""

import base64
import json
import sys

from websockets.sync.client import connect


def message(event: str, sequence: int, **fields: object) -> str:
    return json.dumps({"sequenceNumber": sequence, "event": event, **fields, "extra_headers": "{}"})


with connect(sys.argv[1]) as socket:
    start = {
        "callId": "CALL_1",
        "streamId": "20170ada",
        "accountId": "500",
        "tracks": ["inbound", "outbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000},
    }
    socket.send(message("start", 0, start=start))
    sequence = 0
    for number in range(50):
        for track, code in (("inbound", number), ("outbound", 100 + number)):
            sequence += 1
            media = {
                "track": track,
                "timestamp": str(1778597597091 + 20 * number),
                "chunk": sequence,
                "payload": base64.b64encode(bytes([code]) * 160).decode(),
            }
            socket.send(message("media", sequence, streamId="20170ada", media=media))
