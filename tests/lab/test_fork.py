"""A fork of a call's audio: what it carries, and what becomes of it when its socket is lost or its time is up."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
import stamina
from lab_kit import FRAMES, Socket, conversation, staged

from mediaflow import AudioFormat, SourceError, dsp, plugins, vobiz
from mediaflow.lab import fork
from mediaflow.lab.fork import Rig
from mediaflow.wav import WavReader, WavWriter

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The lab writes below the working directory; it tries again at once."""
    monkeypatch.chdir(tmp_path)
    with stamina.set_testing(True, attempts=2):
        yield


@pytest.mark.parametrize("track", ["inbound", "outbound", "both"])
@pytest.mark.parametrize(
    ("content_type", "encoding", "rate", "size"),
    [
        ("audio/x-mulaw;rate=8000", "audio/x-mulaw", 8000, 160),
        ("audio/x-l16;rate=8000", "audio/x-l16", 8000, 320),
        ("audio/x-l16;rate=16000", "audio/x-l16", 16000, 640),
    ],
)
async def test_every_format_and_track(
    tmp_path: Path, track: str, content_type: str, encoding: str, rate: int, size: int
) -> None:
    """The socket says what was ordered and carries all of it in frames of 20 ms."""
    async with staged(tmp_path) as stage:
        stage.app.stream(f'audioTrack="{track}" contentType="{content_type}"')
        await stage.call()
        await stage.hung_up()
    (socket,) = stage.app.sockets
    tracks = ["inbound", "outbound"] if track == "both" else [track]
    assert socket.start["tracks"] == tracks
    assert socket.start["mediaFormat"] == {"encoding": encoding, "sampleRate": rate}
    assert sorted(socket.tracks) == sorted(tracks * FRAMES)
    payloads = [message["media"]["payload"] for message in socket.messages if message["event"] == "media"]
    assert {len(base64.b64decode(payload)) for payload in payloads} == {size}


async def test_a_recording_in_g711(tmp_path: Path) -> None:
    """A conversation that was recorded in µ-law is talked like any other."""
    async with staged(tmp_path) as stage:
        pcm = WavReader(tmp_path / "conversation.wav")
        codes = dsp.mulaw_encode(pcm.read(100_000))
        pcm.close()
        (tmp_path / "conversation.wav").unlink()
        writer = WavWriter(tmp_path / "conversation.wav", AudioFormat("mulaw", 8000, 2))
        writer.write(codes)
        writer.sync()
        writer.close()
        stage.app.stream('audioTrack="outbound" contentType="audio/x-mulaw;rate=8000"')
        await stage.call()
        await stage.hung_up()
    (socket,) = stage.app.sockets
    heard = b"".join(base64.b64decode(each["media"]["payload"]) for each in socket.messages if each["event"] == "media")
    assert heard == codes[1::2]


async def test_a_lost_socket_is_connected_again(tmp_path: Path) -> None:
    """With retries there is another socket with a new stream id and the same call id, which goes on where it was."""

    async def hang(socket: Socket) -> None:
        if len(stage.app.sockets) < 3:
            await socket.websocket.close(1011)

    async with staged(tmp_path, speed=20.0, frames=30_000) as stage:
        stage.app.script = hang
        stage.app.stream('maxRetries="3"')
        call = await stage.call()
        await stage.app.told("StartStream", 3)
        await stage.app.until(lambda: len(stage.app.sockets[-1].messages) > 2)
        assert await stage.client.hang_up(call)
        await stage.hung_up()
        assert len(stage.app.sockets) == 3
        assert {socket.start["callId"] for socket in stage.app.sockets} == {call}
        ids = [socket.start["streamId"] for socket in stage.app.sockets]
        assert len(set(ids)) == 3
        assert stage.app.events() == [*("StartStream", "DroppedStream") * 2, "StartStream"]
        stamps = [int(socket.messages[1]["media"]["timestamp"]) for socket in stage.app.sockets if socket.messages[1:]]
        assert stamps == sorted(stamps)
        dropped = (await stage.app.told("DroppedStream")).fields
        assert dropped["Error"] == "connection disconnected with the remote service"
        assert dropped["StreamID"] == ids[0]
        (only,) = stage.carrier.calls[call].forks
        assert only.ids == ids and only.status == "completed"


@pytest.mark.parametrize("retries", [0, 1])
async def test_retries_come_to_an_end(tmp_path: Path, retries: int) -> None:
    """A stream that is lost as often as it may is failed; the call itself goes on to its end."""
    async with staged(tmp_path) as stage:
        stage.app.stream(f'maxRetries="{retries}"')
        assert isinstance(stage.app.xml, bytes)
        stage.app.xml = stage.app.xml.replace(b"/media", b"/media?").replace(b"ws://127.0.0.1", b"ws://127.0.0.2")
        call = await stage.call()
        await stage.hung_up()
        assert stage.app.events() == ["DroppedStream"] * (retries + 1)
        assert stage.carrier.calls[call].forks[0].status == "failed"
        assert any("0 retries left" in line for line in stage.said)


@pytest.mark.parametrize(("keep", "sockets"), [("false", 1), ("true", 2)])
async def test_a_lost_socket_of_both_ways_holds_the_call_only_if_told_to(
    tmp_path: Path, keep: str, sockets: int
) -> None:
    """Without keepCallAlive the next element follows when the socket is lost, though it would be connected again."""

    async def hang(socket: Socket) -> None:
        await socket.websocket.close(1011)

    async with staged(tmp_path, speed=1.0, frames=3000) as stage:
        stage.app.script = hang
        stage.app.stream(f'bidirectional="true" keepCallAlive="{keep}" maxRetries="1"', then="<Hangup/>")
        await stage.call()
        assert (await stage.hung_up())["HangupSource"] == "Vobiz"
        assert len(stage.app.sockets) == sockets


async def test_the_time_is_up(tmp_path: Path) -> None:
    """A stream is closed after streamTimeout; the call goes on."""
    async with staged(tmp_path, speed=4.0, frames=3000) as stage:
        stage.app.stream('streamTimeout="1"')
        call = await stage.call()
        await stage.app.until(lambda: stage.app.sockets and stage.app.sockets[0].closed)
        one = stage.carrier.calls[call]
        await one.forks[0].over.wait()
        assert (one.forks[0].status, one.status) == ("completed", "in-progress")
        assert 0 < len(stage.app.sockets[0].tracks) < 3000
        assert await stage.client.hang_up(call)
        assert (await stage.hung_up())["HangupSource"] == "API"


async def test_a_rate_for_the_other_direction(tmp_path: Path) -> None:
    """At 24000 Hz the stream is taken and its socket never opened, as at Vobiz; it can be stopped."""
    async with staged(tmp_path) as stage:
        stage.app.stream('contentType="audio/x-l16;rate=24000"')
        call = await stage.call()
        while not stage.carrier.calls[call].forks:  # noqa: ASYNC110 (a call does not tell of its forks)
            await anyio.sleep(0.01)
        (one,) = stage.carrier.calls[call].forks
        await stage.client.stop_stream(call, one.id)
        await stage.hung_up()
        assert (one.status, stage.app.sockets) == ("completed", [])


async def test_a_fork_in_the_middle_of_a_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that is ordered later carries what is being said then, not what was said before."""
    async with staged(tmp_path, speed=10.0, frames=500) as stage:
        stage.app.xml = b"<Response><Wait length='3600'/></Response>"
        call = await stage.call()
        one = stage.carrier.calls[call]
        while one.status == "ringing" or one.position() < 2.0:  # noqa: ASYNC110 (time passes, and tells nobody)
            await anyio.sleep(0.01)
        url = f"{stage.app.url.replace('http', 'ws', 1)}/media"
        await stage.client.start_stream(call, vobiz.StreamRequest(url, "inbound"))
        await stage.hung_up()
        assert 0 < len(stage.app.sockets[0].tracks) <= 400


def test_a_conversation_has_to_have_an_end(tmp_path: Path) -> None:
    """A file whose length nobody knows, or that is none, is refused before there are calls."""
    file = conversation(tmp_path)
    data = file.read_bytes()
    file.write_bytes(data[:4] + b"\xff\xff\xff\xff" + data[8:76] + b"\xff\xff\xff\xff" + data[80:])
    with pytest.raises(SourceError, match="nobody knows how long it is"):
        Rig(plugins.load(), file)
    with pytest.raises(SourceError, match="No such file"):
        Rig(plugins.load(), tmp_path / "none.wav")


def test_the_pause_before_a_retry_is_shorter_than_what_our_source_waits() -> None:
    """So the rehearsal of a reconnect is one: the source is still there."""
    from mediaflow_plugins.source_vobiz import Vobiz

    assert Vobiz().reconnect_s > fork.RETRY_S
