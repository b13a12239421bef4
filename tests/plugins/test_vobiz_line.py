"""What the misbehaving carrier does to real sockets."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from mediaflow import AudioFormat, AudioFrame, Secret, Stream, websocket
from mediaflow.testing import write_all
from mediaflow.websocket import Address, Answer, Closed, WebSocket
from mediaflow_plugins.sink_vobiz_call import VobizCall

pytestmark = pytest.mark.anyio

MULAW = AudioFormat("mulaw", 8000)
WHOLE = bytes(at * at // 160 % 251 for at in range(160 * 160))


class App:
    """A server that keeps what each of its sockets hears, and how it ended."""

    def __init__(self) -> None:
        self.sockets: list[list[str]] = []
        self.ends: list[Closed] = []
        self.closed = anyio.Condition()
        self.refuse_from = 99

    def admit(self, path: str) -> Answer | None:
        return Answer(403, "no\n") if len(self.sockets) >= self.refuse_from else None

    async def __call__(self, socket: WebSocket) -> None:
        heard: list[str] = []
        self.sockets.append(heard)
        try:
            while True:
                heard.append(str(await socket.recv()))
        except Closed as closed:
            self.ends.append(closed)
            async with self.closed:
                self.closed.notify_all()

    async def over(self, number: int) -> None:
        async with self.closed:
            while len(self.ends) < number:
                await self.closed.wait()

    def audio(self) -> bytes:
        messages = [json.loads(text) for heard in self.sockets for text in heard]
        return b"".join(base64.b64decode(m["media"]["payload"]) for m in messages if m["event"] == "media")


@asynccontextmanager
async def serving(app: App) -> AsyncIterator[str]:
    """Run ``app``, and fail after twenty seconds."""
    address, ports, up = Address.parse("ws://127.0.0.1:0/app"), list[int](), anyio.Event()

    def listening(port: int) -> None:
        ports.append(port)
        up.set()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: websocket.serve(app, address, admit=app.admit, listening=listening))
            await up.wait()
            yield address.url(ports[0])
            tasks.cancel_scope.cancel()


async def play(app: App, sockets: int, **options: Any) -> dict[str, Any]:
    """Play a call of 3.2 s to ``app``, wait until ``sockets`` are over, and return the sink's outcome."""
    async with serving(app) as url:
        writer = await write_all(
            VobizCall(url=Secret(url), **options), Stream("CALL", MULAW, ("inbound",)), [AudioFrame(WHOLE, MULAW)]
        )
        await app.over(sockets)
    return dict(writer.outcome)


async def test_the_line_tears() -> None:
    """The server hears everything, and then neither stop nor a closing handshake."""
    app = App()
    outcome = await play(app, 1, quirks=("cut_off",))
    assert (app.ends[0].code, app.ends[0].by, app.audio()) == (1006, "broken", WHOLE)
    assert outcome["quirks"] == ["cut_off"]


@pytest.mark.parametrize("overlaps", [False, True])
async def test_the_carrier_comes_back(overlaps: bool) -> None:
    """Two sockets bring the whole audio; the first is torn, or stays open until the call is over."""
    app = App()
    await play(app, 2, quirks=("reconnects", *(("overlaps",) if overlaps else ())))
    assert [json.loads(heard[0])["event"] for heard in app.sockets] == ["start", "start"]
    assert app.audio() == WHOLE
    assert sorted(end.code for end in app.ends) == ([1000, 1000] if overlaps else [1000, 1006])


@pytest.mark.parametrize("refused", [False, True])
async def test_a_phantom_comes_behind_the_end(refused: bool) -> None:
    """Another socket brings old audio; whether it is taken or refused, the call was one that ended well."""
    app = App()
    app.refuse_from = 1 if refused else 99
    outcome = await play(app, 1 if refused else 2, quirks=("phantom",), end="stop")
    assert len(app.sockets) == (1 if refused else 2)
    assert json.loads(app.sockets[0][-1])["event"] == "stop"
    assert outcome["quirks"] == ["phantom"]


async def test_audio_behind_stop() -> None:
    """Ten frames that were there before follow it."""
    app = App()
    await play(app, 1, quirks=("media_after_stop",), end="stop")
    kinds = [json.loads(text)["event"] for text in app.sockets[0]]
    assert kinds[-11:] == ["stop", *["media"] * 10]
    assert app.audio() == WHOLE + WHOLE[-160:] * 10
