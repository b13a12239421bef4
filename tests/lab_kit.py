"""What the tests of the lab share: an app (answer URL, media socket, callbacks) and the lab that calls it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl

import anyio

from mediaflow import AudioFormat, httpd, plugins, vobiz
from mediaflow.httpd import Request, Response
from mediaflow.lab.courier import Courier, Routes
from mediaflow.lab.fork import Rig
from mediaflow.lab.vobiz import CREDENTIALS, Carrier
from mediaflow.vobiz import CallRequest
from mediaflow.wav import WavWriter
from mediaflow.websocket import Address, Closed, WebSocket

LOCAL = Address("http", "127.0.0.1", 0, "")
FRAMES = 25
"""Frames of 20 ms that each side of the conversation has."""


def conversation(folder: Path, frames: int = FRAMES) -> Path:
    """Write a conversation in which every place of half a second looks different, and return its file."""
    file = folder / "conversation.wav"
    writer = WavWriter(file, AudioFormat("s16le", 8000, 2))
    half_a_second = bytes((k * k // 251 + k) % 251 for k in range(FRAMES * 640))
    writer.write((half_a_second * (frames // FRAMES + 1))[: frames * 640])
    writer.sync()
    writer.close()
    return file


class Heard:
    """A request that the app got, its fields read from form, JSON or query."""

    def __init__(self, request: Request) -> None:
        self.request, self.path = request, request.path
        body = request.body
        as_form = dict(parse_qsl((body or request.query.encode()).decode(), keep_blank_values=True))
        self.fields: dict[str, Any] = json.loads(body) if body.startswith(b"{") else as_form

    @property
    def event(self) -> str:
        return str(self.fields.get("Event"))


class Socket:
    """A media socket that the app got, and what it has heard on it."""

    def __init__(self, websocket: WebSocket) -> None:
        self.websocket = websocket
        self.messages: list[dict[str, Any]] = []
        self.closed = False

    @property
    def start(self) -> dict[str, Any]:
        return dict(self.messages[0]["start"])

    @property
    def tracks(self) -> list[str]:
        return [message["media"]["track"] for message in self.messages if message["event"] == "media"]


Script = Callable[[Socket], Awaitable[None]]


class App:
    """Answers calls with ``xml``, keeps what it is told, and runs ``script`` on each socket, then reads to its end."""

    def __init__(self) -> None:
        self.url = ""
        self.xml: bytes | Response = b"<Response/>"
        self.heard: list[Heard] = []
        self.sockets: list[Socket] = []
        self.status = 200
        self.script: Script | None = None
        self._changed = anyio.Event()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until ``condition`` holds; it is looked at whenever something has come."""
        while not condition():
            await self._changed.wait()

    def changed(self) -> None:
        """Look at all conditions again."""
        self._changed.set()
        self._changed = anyio.Event()

    def events(self, path: str = "/status") -> list[str]:
        """Return the events that were told at ``path``."""
        return [heard.event for heard in self.heard if heard.path == path]

    async def told(self, event: str, number: int = 1) -> Heard:
        """Wait until ``event`` was told, and return how."""
        await self.until(lambda: len([heard for heard in self.heard if heard.event == event]) >= number)
        return [heard for heard in self.heard if heard.event == event][number - 1]

    def stream(self, attributes: str = "", then: str = "<Wait length='3600'/>") -> None:
        """Answer calls with a stream to this app, whose callbacks go to ``/status``."""
        address = f"{self.url.replace('http', 'ws', 1)}/media"
        status = f'statusCallbackUrl="{self.url}/status"'
        self.xml = f"<Response><Stream {status} {attributes}>{address}</Stream>{then}</Response>".encode()

    async def answer(self, request: Request) -> Response:
        """Take a request."""
        heard = Heard(request)
        self.heard.append(heard)
        self.changed()
        if request.path == "/answer":
            return self.xml if isinstance(self.xml, Response) else Response(200, self.xml, "application/xml")
        return Response(self.status)

    async def take(self, websocket: WebSocket) -> None:
        """Take a socket."""
        socket = Socket(websocket)
        self.sockets.append(socket)
        try:
            socket.messages.append(json.loads(await websocket.recv()))
            self.changed()
            if self.script is not None:
                await self.script(socket)
            while True:
                socket.messages.append(json.loads(await websocket.recv()))
                self.changed()
        except Closed:
            socket.closed = True
            self.changed()


class Stage:
    """A lab with an app beside it, a client of the lab, and what the lab has said."""

    def __init__(self, app: App, carrier: Carrier, client: vobiz.Client, url: str, said: list[str]) -> None:
        self.app, self.carrier, self.client, self.url, self.said = app, carrier, client, url, said

    async def call(self, **options: Any) -> str:
        """Make a call to the app and return its id."""
        request = {
            "caller": "+911140001000",
            "callee": "+919800000000",
            "answer_url": f"{self.app.url}/answer",
            "hangup_url": f"{self.app.url}/hangup",
        }
        return (await self.client.make_call(CallRequest(**request | options))).call_uuid

    async def hung_up(self) -> dict[str, Any]:
        """Wait for the hang-up callback and return its fields."""
        return (await self.app.told("Hangup")).fields


@asynccontextmanager
async def staged(
    folder: Path,
    speed: float | Literal["max"] = "max",
    frames: int = FRAMES,
    routes: tuple[tuple[str, str], ...] = (),
    as_json: bool = False,
    concurrency: int = 100,
) -> AsyncIterator[Stage]:
    """Run a lab and an app, in the working directory of the test, and fail after 30 seconds."""
    said: list[str] = []
    app, up = App(), [anyio.Event(), anyio.Event()]
    rig = Rig(plugins.load(), conversation(folder, frames), speed, said.append, Routes(routes))
    carrier = Carrier(rig, Courier(CREDENTIALS, rig.routes, as_json), CREDENTIALS, concurrency)
    url: list[str] = []

    def app_listens(port: int) -> None:
        app.url = LOCAL.url(port)
        up[0].set()

    def lab_listens(at: str) -> None:
        url.append(at)
        up[1].set()

    async def serve_app() -> None:
        await httpd.serve(app.answer, LOCAL, listening=app_listens, websocket=app.take)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve_app)
            # The app goes last: asyncio cannot bear that an accept is cancelled in the moment that somebody connects.
            async with anyio.create_task_group() as lab:
                lab.start_soon(carrier.serve, LOCAL, lab_listens)
                for event in up:
                    await event.wait()
                async with vobiz.connect(CREDENTIALS, url[0]) as client:
                    yield Stage(app, carrier, client, url[0], said)
                carrier.stop()
            tasks.cancel_scope.cancel()
