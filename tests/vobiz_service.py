"""A stand-in for Vobiz's REST API made of the standard library's HTTP server, in threads.

It takes the two ways to say who one is: Vobiz's own headers, and the HTTP Basic of its relative Plivo, whose SDK sends
requests of the same shape.  As Vobiz does, it answers 401 to a path in wrong case or without the slash at its end.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

ACCOUNT, TOKEN, CALL = "MAXXXXXXXXXXXXXXXXXX", "t0ken", "3a4bf0e2-0000-4000-8000-0123456789ab"
ROOT = f"/api/v1/Account/{ACCOUNT}"
PATHS = {
    rf"{ROOT}/Call/": "calls",
    rf"{ROOT}/Call/([^/]+)/": "call",
    rf"{ROOT}/Call/([^/]+)/Stream/": "streams",
    rf"{ROOT}/Call/([^/]+)/Stream/([^/]+)/": "stream",
}


class Seen(NamedTuple):
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


Answer = tuple[int, object, dict[str, str]]


class Service:
    """A running service: what it saw, the streams that it has, and answers to give before any of its own."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.streams: list[dict[str, Any]] = []
        self.calls = {CALL}
        self.answers: list[Answer] = []
        self.url = ""
        self.list_shape = "objects"

    def answer(self, request: Seen) -> Answer:
        if self.answers:
            return self.answers.pop(0)
        split = urlsplit(request.path)
        found = ((kind, re.fullmatch(path, split.path)) for path, kind in PATHS.items())
        kind, match = next(((kind, match) for kind, match in found if match), ("", None))
        basic = "Basic " + base64.b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()
        own = (request.headers.get("x-auth-id"), request.headers.get("x-auth-token")) == (ACCOUNT, TOKEN)
        if match is None or not (own or request.headers.get("authorization") == basic):
            return 401, {"api_id": "a1", "error": "authentication failed"}, {}
        return getattr(self, f"_{kind}")(request, *match.groups())  # type: ignore[no-any-return]

    def _calls(self, request: Seen) -> Answer:
        self.calls.add("new-call")
        return 201, {"api_id": "a1", "message": "Call fired", "request_uuid": "new-call"}, {}

    def _call(self, request: Seen, call: str) -> Answer:
        if call not in self.calls:
            return 404, {"api_id": "a1", "error": "Call not found"}, {}
        self.calls.discard(call)
        return 204, None, {}

    def _streams(self, request: Seen, call: str) -> Answer:
        if request.method == "POST":
            id = f"stream-{len(self.streams)}"
            self.streams.append(
                {
                    **request.body,
                    "stream_id": id,
                    "call_uuid": call,
                    # Only the string makes a stream of both ways.
                    "bidirectional": request.body.get("bidirectional") == "true",
                    "sampling_rate": 8000,
                    "status": "in-progress",
                    "start_time": "2025-11-06 13:49:10+00:00",
                    "end_time": None,
                    "api_id": "a1",
                    "resource_uri": f"{ROOT}/Call/{call}/Stream/{id}/",
                }
            )
            return 202, {"api_id": "a1", "message": "audio streaming started", "stream_id": id}, {}
        if request.method == "DELETE":
            self.streams.clear()
            return 204, None, {}
        if self.list_shape == "list":
            return 200, self.streams, {}
        query = parse_qs(urlsplit(request.path).query)
        limit, offset = int(query.get("limit", ["20"])[0]), int(query.get("offset", ["0"])[0])
        more = offset + limit < len(self.streams)
        meta = {"limit": limit, "offset": offset, "next": "…" if more else None, "total_count": len(self.streams)}
        return 200, {"api_id": "a1", "meta": meta, "objects": self.streams[offset : offset + limit]}, {}

    def _stream(self, request: Seen, call: str, id: str) -> Answer:
        for stream in self.streams:
            if stream["stream_id"] == id:
                if request.method == "DELETE":
                    self.streams.remove(stream)
                    return 204, None, {}
                return 200, stream, {}
        return 404, {"api_id": "a1", "error": "Stream not found"}, {}


@contextmanager
def running() -> Iterator[Service]:
    """Run a service on a free port of this machine."""
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _do(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Seen(self.command, self.path, headers, json.loads(raw) if raw else None)
            service.seen.append(request)
            status, body, extra = service.answer(request)
            if status == 0:  # the line is cut before an answer
                self.close_connection = True
                return
            content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
            self.send_response(status)
            for name, value in extra.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = _do

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.url = f"http://127.0.0.1:{server.server_address[1]}/api/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
