"""Simulated calls to a server: several at a time, and whether the server took them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from lab_kit import FRAMES, LOCAL, App, Socket, conversation

from mediaflow import AudioFormat, envelope, httpd, plugins
from mediaflow.lab.caller import Caller
from mediaflow.lab.fork import Rig

pytestmark = pytest.mark.anyio

MULAW = {"content_type": "audio/x-mulaw;rate=8000", "track": "both"}


@asynccontextmanager
async def _app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[App, Rig, list[str]]]:
    monkeypatch.chdir(tmp_path)
    app, said, up = App(), list[str](), anyio.Event()

    def listening(port: int) -> None:
        app.url = LOCAL.url(port).replace("http", "ws", 1) + "/media/s3cret"
        up.set()

    async def serve() -> None:
        await httpd.serve(app.answer, LOCAL, listening=listening, websocket=app.take)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            await up.wait()
            yield app, Rig(plugins.load(), conversation(tmp_path), "max", said.append), said
            tasks.cancel_scope.cancel()


async def test_several_calls_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a call of its own, with all of the audio, and the server is said to have taken them."""
    async with _app(tmp_path, monkeypatch) as (app, rig, said):
        assert await Caller(rig, app.url, 5, **MULAW, end="stop").run()
        await app.until(lambda: all(socket.closed for socket in app.sockets))
    assert len({socket.start["callId"] for socket in app.sockets}) == 5
    for socket in app.sockets:
        assert socket.tracks == ["inbound", "outbound"] * FRAMES
        assert socket.messages[-1]["event"] == "stop"
    assert sum("complete: the server has read 8,000 of 8,000 samples" in line for line in said) == 5
    assert "s3cret" not in "\n".join(said)


async def test_what_the_server_plays_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is played back is counted, and a checkpoint is told by its name."""

    async def talk(socket: Socket) -> None:
        id = socket.start["streamId"]
        await socket.websocket.send(envelope.build_play_audio(id, AudioFormat("mulaw", 8000), bytes(800)))
        await socket.websocket.send(envelope.build_checkpoint(id, "consent"))
        while envelope.parse(await socket.websocket.recv()) != envelope.Played("consent"):
            pass

    async with _app(tmp_path, monkeypatch) as (app, rig, said):
        # The call lasts until the server closes: what it plays is heard in any case.
        app.script = talk
        rig.audio = conversation(_folder(tmp_path), frames=3000)
        rig.speed = 4.0
        caller = Caller(rig, app.url, 1, **MULAW)

        async def hang_up() -> None:
            while not any("PlayedStream consent" in line for line in said):  # noqa: ASYNC110 (a list does not tell)
                await anyio.sleep(0.01)
            caller.stop()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hang_up)
            assert await caller.run()
    assert any("and played 0.10 s" in line for line in said)


def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "long"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("how", ["refuses", "closes", "is not there"])
async def test_a_server_that_does_not_take_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """A call that is refused, or cut off, or has nobody to take it, is no success, and its reason is said."""

    async def close(socket: Socket) -> None:
        await socket.websocket.close(1011)

    async with _app(tmp_path, monkeypatch) as (app, rig, said):
        rig.audio = conversation(_folder(tmp_path), frames=3000)
        rig.speed = 1.0
        app.script = close
        urls = {"refuses": app.url.replace("ws://", "ws://127.0.0.1:1@"), "closes": app.url}
        url = urls.get(how, "ws://127.0.0.1:1/s3cret")
        options: dict[str, Any] = MULAW
        assert not await Caller(rig, url, 1, **options).run()
    assert any("failed: " in line for line in said)
    assert "s3cret" not in "\n".join(said)
