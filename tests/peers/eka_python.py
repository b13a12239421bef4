"""A client of EkaScribe's stream on stock ``websockets`` with its defaults, among them compression.

usage: python eka_python.py URL raw|json < pcm        prints {"code": close code of the server}
"""

import base64
import json
import sys

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

url, mode = sys.argv[1:]
pcm = sys.stdin.buffer.read()
with connect(url, proxy=None) as websocket:
    if mode == "json":
        media_format = {"encoding": "audio/x-l16", "sampleRate": 16000}
        websocket.send(json.dumps({"event": "start", "start": {"mediaFormat": media_format}}))
    for start in range(0, len(pcm), 640):
        chunk = pcm[start : start + 640]
        if mode == "raw":
            websocket.send(chunk)
        else:
            payload = base64.b64encode(chunk).decode()
            websocket.send(json.dumps({"event": "media", "media": {"payload": payload}}))
    websocket.send(json.dumps({"event": "stop"}))
    try:
        websocket.recv()
    except ConnectionClosed as closed:
        print(json.dumps({"code": closed.rcvd.code if closed.rcvd else 1006}))
