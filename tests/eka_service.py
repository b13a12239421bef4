"""A stand-in for EkaScribe made of stock parts only: the standard library's HTTP server and ``websockets``, in threads.

What it does differently from a service in good health is said in a ``Plan``.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import anyio
import anyio.to_thread
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve


class Plan(NamedTuple):
    """How the service behaves."""

    token: str = "t0ken"
    login_status: int = 200
    create_status: int = 201
    create_again: int = 201
    upload_url: str = ""
    wait: bool = False
    """Do not read, or with ``close_at`` do not close, before ``go_on``."""
    close_at: int | None = None
    """Close after so many messages of audio."""
    close_after_stop: bool = True
    close_code: int = 1000
    end_status: int = 202
    end_again: int = 202
    polls: list[tuple[int, str]] = [(200, "completed")]  # noqa: RUF012 - a NamedTuple's default is never written to
    """What a question for the result is answered with; the last one for ever."""


class Service:
    """A running service and what it saw."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.url = ""
        self.log: list[str] = []
        self.messages: list[str | bytes] = []
        self.created: dict[str, Any] = {}
        self.authorization: set[str | None] = set()
        self.stream_headers: dict[str, str] = {}
        self.go_on = threading.Event()
        self.gone = threading.Event()
        self._polls = list(plan.polls)

    @property
    def audio(self) -> bytes:
        """All audio that came in binary messages."""
        return b"".join(message for message in self.messages if isinstance(message, bytes))

    async def wait_gone(self) -> None:
        """Wait until the stream's socket is closed."""
        assert await anyio.to_thread.run_sync(self.gone.wait, 5)

    # The HTTP part.

    def answer(self, method: str, path: str, body: Any, authorization: str | None) -> tuple[int, object]:
        plan = self.plan
        if path == "/connect-auth/v1/account/login":
            self.log.append("login")
            good = {"access_token": plan.token, "expires_in": 1800, "refresh_token": "r", "refresh_expires_in": 1}
            return plan.login_status, good if plan.login_status == 200 else {"code": 401, "error": "no"}
        if path == "/voice/v1/.well-known/medscribealliance":
            return 200, {"models": [{"id": "pro", "max_session_duration_seconds": 3600}]}
        self.authorization.add(authorization)
        if authorization != f"Bearer {plan.token}":
            return 401, {"error": {"code": "authentication_failed", "message": "no", "details": {}}}
        if path == "/voice/v1/sessions":
            self.log.append("create")
            self.created = body
            status = plan.create_status if self.log.count("create") == 1 else plan.create_again
            if status != 201:
                return status, {"error": {"code": "invalid_template", "message": "a message"}}
            return 201, {
                "session_id": "ses_1",
                "status": "created",
                "created_at": 1_790_000_000,
                "expires_at": "2026-11-20T12:00:00Z",
                "upload_url": plan.upload_url or self.stream_url,
                "patient_details": None,
            }
        if path == "/voice/v1/sessions/ses_1/end":
            self.log.append("end")
            assert body == {"audio_files_sent": 0}
            status = plan.end_status if self.log.count("end") == 1 else plan.end_again
            if status == 202:
                return 202, {"session_id": "ses_1", "status": "processing", "audio_files": []}
            code = "session_ended" if status == 400 else "session_not_found"
            return status, {"error": {"code": code, "message": "a message"}}
        assert (method, path) == ("GET", "/voice/v1/sessions/ses_1")
        self.log.append("get")
        status, word = self._polls.pop(0) if len(self._polls) > 1 else self._polls[0]
        answer = {"session_id": "ses_1", "status": word, "templates": [{"clinical_notes_template": {"data": "bm90ZQ"}}]}
        if status == 206:
            answer["processing_errors"] = [{"code": "audio_too_short"}]
        return status, answer

    # The WebSocket part.

    stream_url = ""

    def stream(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.stream_headers = {name.lower(): value for name, value in connection.request.headers.raw_items()}
        self.log.append("open")
        plan = self.plan
        try:
            while plan.close_at is None or len(self.messages) < plan.close_at:
                if plan.wait and plan.close_at is None:
                    assert self.go_on.wait(5)
                message = connection.recv()
                if isinstance(message, str) and json.loads(message) == {"event": "stop"}:
                    self.log.append("stop")
                    break
                self.messages.append(message)
            if self.log[-1] == "stop" and not plan.close_after_stop:
                with suppress(ConnectionClosed):
                    connection.recv()
                return
            if plan.wait:
                assert self.go_on.wait(5)
            self.log.append("closed")
            if plan.close_code == 1006:
                connection.socket.shutdown(socket.SHUT_RDWR)
            else:
                connection.close(plan.close_code, "reason")
        except ConnectionClosed:
            self.log.append("left")
        finally:
            self.gone.set()


@asynccontextmanager
async def running_service(plan: Plan) -> AsyncIterator[Service]:
    """Run a service on loopback, and fail after ten seconds."""
    service = Service(plan)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            status, answer = service.answer(
                self.command, self.path, json.loads(body) if body else None, self.headers.get("Authorization")
            )
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST

        def log_message(self, format: str, *args: object) -> None:
            pass

    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Handler) as api,
        serve(service.stream, "127.0.0.1", 0, compression=None) as streams,
    ):
        service.url = f"http://127.0.0.1:{api.server_port}"
        service.stream_url = f"ws://127.0.0.1:{streams.socket.getsockname()[1]}/voice/v1/stream/sessions/str_1/audio"
        threads = [
            threading.Thread(target=api.serve_forever, kwargs={"poll_interval": 0.01}),
            threading.Thread(target=streams.serve_forever),
        ]
        for thread in threads:
            thread.start()
        try:
            with anyio.fail_after(10):
                yield service
        finally:
            service.go_on.set()
            await anyio.to_thread.run_sync(api.shutdown)
            await anyio.to_thread.run_sync(streams.shutdown)
            for thread in threads:
                thread.join()
