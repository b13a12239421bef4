"""What the tests of ``eka_ingest`` share: a running source with a client for its API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from mediaflow import http
from mediaflow.testing import RecordingEngine
from mediaflow.websocket import Closed, WebSocket, connect
from mediaflow_plugins.source_eka_ingest import EkaIngest


class Ingest:
    """A running source with a client for its API."""

    def __init__(self, engine: RecordingEngine, client: http.Client, url: str) -> None:
        self.engine, self.client, self.url = engine, client, url

    async def ask(self, method: str, path: str, body: object = None, token: str = "any") -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        reply = await self.client.request(method, path, body, headers=headers)
        return reply.status, json.loads(reply.body)

    async def create(self, **fields: object) -> Any:
        status, body = await self.ask("POST", "/voice/v1/sessions", {"upload_type": "stream", **fields})
        assert status == 201
        return body

    async def end(self, session: Any) -> tuple[int, Any]:
        return await self.ask("POST", f"/voice/v1/sessions/{session['session_id']}/end", {"audio_files_sent": 0})

    async def get(self, session: Any) -> tuple[int, Any]:
        return await self.ask("GET", f"/voice/v1/sessions/{session['session_id']}")

    @asynccontextmanager
    async def stream(self, session: Any) -> AsyncIterator[WebSocket]:
        async with connect(session["upload_url"]) as socket:
            yield socket

    async def send(self, *messages: str | bytes) -> tuple[Closed, Any]:
        """Send ``messages`` over the stream of a new session and wait for the server to close."""
        session = await self.create()
        async with self.stream(session) as socket:
            for message in messages:
                await socket.send(message)
            return await socket.wait_closed(), session

    async def audio(self, number: int = 1) -> bytes:
        """Return the audio of the last of ``number`` sessions."""
        return bytes((await self.engine.ended(number))[-1].audio["inbound"])


@asynccontextmanager
async def running(
    engine: RecordingEngine | None = None, limit_s: float = 10, **options: object
) -> AsyncIterator[Ingest]:
    """Run the source on loopback, and fail after ``limit_s``."""
    engine = engine or RecordingEngine()
    source = EkaIngest(**{"listen": "http://127.0.0.1:0"} | options)  # type: ignore[arg-type]
    with anyio.fail_after(limit_s):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(source.serve, engine)
            url = await engine.url()
            async with http.connect(url) as client:
                yield Ingest(engine, client, url)
            tasks.cancel_scope.cancel()
