"""Simulated calls, from their ringing to their end, against an app that answers, listens and talks back."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
import stamina
from anyio.abc import SocketAttribute, SocketStream
from lab_kit import FRAMES, Socket, staged

from mediaflow import AudioFormat, callback, dsp, envelope
from mediaflow.httpd import Response
from mediaflow.lab import telephone
from mediaflow.lab.vobiz import CREDENTIALS
from mediaflow.wav import WavReader

pytestmark = pytest.mark.anyio

MULAW = AudioFormat("mulaw", 8000)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The lab writes below the working directory; what it sends again is sent again at once."""
    monkeypatch.chdir(tmp_path)
    with stamina.set_testing(True, attempts=2):
        yield


async def test_a_call_that_is_listened_to(tmp_path: Path) -> None:
    """The answer is asked for, its stream carries both sides to their end, the caller hangs up, and all is told."""
    async with staged(tmp_path) as stage:
        stage.app.stream('audioTrack="both" contentType="audio/x-mulaw;rate=8000" extraHeaders="clinic=7"')
        call = await stage.call()
        hangup = await stage.hung_up()
        asked, *_ = stage.app.heard
        (socket,) = stage.app.sockets
        started = (await stage.app.told("StartStream")).fields
    assert (asked.path, asked.event, asked.fields["CallUUID"]) == ("/answer", "StartApp", call)
    assert (asked.fields["From"], asked.fields["To"]) == ("+911140001000", "+919800000000")
    assert (asked.fields["Direction"], asked.fields["CallStatus"]) == ("outbound", "ringing")
    assert (socket.start["callId"], socket.start["accountId"]) == (call, CREDENTIALS.auth_id)
    assert socket.tracks == ["inbound", "outbound"] * FRAMES
    assert socket.messages[-1]["event"] == "media" and socket.closed  # no stop, as on today's wire
    assert (started["StreamID"], started["CallUUID"]) == (socket.start["streamId"], call)
    assert (started["ServiceURL"][:5], started["X-VH-clinic"], started["audioTrack"]) == ("ws://", "7", "both")
    assert stage.app.events() == ["StartStream"]
    assert hangup["CallUUID"] == call
    assert (hangup["HangupCauseName"], hangup["HangupCauseCode"]) == ("Normal Hangup", "4000")
    assert (hangup["HangupSource"], hangup["CallStatus"]) == ("Caller", "completed")
    signatures = callback.Signatures(CREDENTIALS.auth_token, stage.app.url)
    for heard in stage.app.heard:
        assert signatures.check(heard.request)
    shown = "\n".join(stage.said)
    assert f"call {call}: hung up by Caller" in shown
    assert not re.search(r"\+91|/media", shown)


async def test_a_call_that_is_talked_into(tmp_path: Path) -> None:
    """What the app plays is captured, checkpoint and clearing are answered and told, its stop ends the stream."""
    audio = bytes(range(160)) * 3

    async def talk(socket: Socket) -> None:
        id, ws = socket.start["streamId"], socket.websocket
        await ws.send(envelope.build_play_audio(id, MULAW, audio))
        await ws.send(envelope.build_checkpoint(id, "consent"))
        while envelope.parse(await ws.recv()) != envelope.Played("consent"):
            pass
        await ws.send(envelope.build_clear_audio(id))
        while envelope.parse(await ws.recv()) != envelope.Cleared():
            pass
        await ws.send(envelope.build_stop(id))

    async with staged(tmp_path, speed=8.0, frames=2000) as stage:
        stage.app.script = talk
        ways = 'bidirectional="true" keepCallAlive="true" contentType="audio/x-mulaw;rate=8000"'
        stage.app.stream(ways, then="<Speak>x</Speak><Hangup/>")
        call = await stage.call()
        hangup = await stage.hung_up()
        assert stage.app.events() == ["StartStream", "PlayedStream", "ClearedAudio", "StopStream"]
        assert (await stage.app.told("PlayedStream")).fields["Name"] == "consent"
    assert (hangup["HangupSource"], hangup["HangupCauseCode"]) == ("Vobiz", "4000")
    with WavReader(tmp_path / "mediaflow-data" / "lab" / f"{call}.wav") as reader:
        assert (reader.format, reader.read(10_000)) == (MULAW, audio)
    assert set(stage.app.sockets[0].tracks) <= {"inbound"}


@pytest.mark.parametrize(
    ("xml", "code", "said"),
    [
        (b"<Response><Wait/>", "8011", "it is not XML"),
        (Response(200, b"<Response/>", "text/html"), "8011", "sent as text/html"),
        (Response(404), "7011", "HTTP 404"),
        (b"<Response/>", "4010", "answered"),
        (b"<Response><Speak>Good day</Speak></Response>", "4010", "answered: Speak"),
        (b"<Response><Play>https://a.example/a.mp3</Play></Response>", "4010", "Play is passed over"),
        (b"<Response><Hangup/></Response>", "4000", "answered: Hangup"),
    ],
)
async def test_what_an_answer_leads_to(tmp_path: Path, xml: bytes | Response, code: str, said: str) -> None:
    """A call whose answer is none is dropped, and one without more instructions ends, each with its cause."""
    async with staged(tmp_path) as stage:
        stage.app.xml = xml
        await stage.call(answer_method="GET")
        assert (await stage.hung_up())["HangupCauseCode"] == code
        assert (stage.app.heard[0].request.method, stage.app.heard[0].event) == ("GET", "StartApp")
        assert any(said in line for line in stage.said)


async def test_a_fork_does_not_hold_the_call(tmp_path: Path) -> None:
    """With nothing behind a stream that only listens the call ends at once, as at Vobiz."""
    async with staged(tmp_path, speed=1.0, frames=3000) as stage:
        stage.app.stream(then="")
        await stage.call()
        hangup = await stage.hung_up()
    assert (hangup["HangupCauseCode"], hangup["HangupSource"]) == ("4010", "Vobiz")
    assert any("add Dial or Wait" in line for line in stage.said)


async def test_nobody_at_the_answer_url(tmp_path: Path) -> None:
    """The call is dropped for it."""
    async with staged(tmp_path) as stage:
        await stage.call(answer_url="http://127.0.0.1:1/s3cret")
        assert (await stage.hung_up())["HangupCauseName"] == "Error Reaching Answer URL"
        assert "s3cret" not in "\n".join(stage.said)


async def test_the_time_limit_of_a_call(tmp_path: Path) -> None:
    """A call is hung up when it has lasted as long as it may."""
    async with staged(tmp_path, speed=20.0, frames=60_000) as stage:
        stage.app.stream(then="<Dial callerId='+911140002000'>+911140001000</Dial>")
        await stage.call(time_limit_s=2)
        assert (await stage.hung_up())["HangupCauseName"] == "Scheduled Hangup"


async def test_a_wait_that_is_over(tmp_path: Path) -> None:
    """After its seconds the call goes on, here to its end."""
    async with staged(tmp_path, speed=20.0, frames=60_000) as stage:
        stage.app.xml = b"<Response><Wait length='1'/><Hangup/></Response>"
        await stage.call()
        hangup = await stage.hung_up()
    assert (hangup["HangupSource"], hangup["HangupCauseCode"]) == ("Vobiz", "4000")


async def test_an_app_that_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that is over does not wait for its app longer than a little: it is cut off, and told of."""
    monkeypatch.setattr(telephone, "CLOSE_S", 0.1)
    connected = anyio.Event()

    async def deaf(stream: SocketStream) -> None:
        async with stream:
            request = await stream.receive()
            key = next(line[19:] for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key: "))
            accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            upgrade = b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
            await stream.send(upgrade + accept + b"\r\n\r\n")
            connected.set()
            await anyio.sleep_forever()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)
    async with staged(tmp_path, speed=1.0, frames=3000) as stage, listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, deaf)
        stage.app.xml = f"<Response><Stream>ws://127.0.0.1:{port}/</Stream><Wait length='60'/></Response>".encode()
        call = await stage.call()
        await connected.wait()
        with anyio.fail_after(10):  # of the thirty that the audio would have to be read
            assert await stage.client.hang_up(call)
            hangup = await stage.hung_up()
        assert (hangup["HangupSource"], hangup["HangupCauseCode"]) == ("API", "4000")
        tasks.cancel_scope.cancel()


async def test_callbacks_that_nobody_takes(tmp_path: Path) -> None:
    """They are sent again, given up, and said; the call is none the worse for it."""
    async with staged(tmp_path) as stage:
        stage.app.stream()
        stage.app.status = 500
        call = await stage.call()
        await stage.app.told("Hangup", 2)
        assert stage.app.events() == ["StartStream"] * 2
        assert any("callback StartStream" in line and "not taken: HTTP 500" in line for line in stage.said)
        assert stage.carrier.calls[call].forks[0].status == "completed"


async def test_callbacks_as_json(tmp_path: Path) -> None:
    """One page of Vobiz shows callbacks as JSON: they hold the same."""
    async with staged(tmp_path, as_json=True) as stage:
        stage.app.stream()
        call = await stage.call()
        await stage.hung_up()
        started = await stage.app.told("StartStream")
    assert started.request.headers["content-type"] == "application/json"
    assert callback.parse(started.request).call_id == call


async def test_what_is_heard_is_what_was_said(tmp_path: Path) -> None:
    """The audio on the socket is the conversation's, side by side, coded as the carrier codes it."""
    async with staged(tmp_path) as stage:
        stage.app.stream('audioTrack="both" contentType="audio/x-mulaw;rate=8000"')
        await stage.call()
        await stage.hung_up()
    (socket,) = stage.app.sockets
    with WavReader(tmp_path / "conversation.wav") as reader:
        sides = dsp.deinterleave(reader.read(100_000), 2)
    for track, pcm in zip(("inbound", "outbound"), sides, strict=True):
        media = [envelope.parse(json.dumps(message)) for message in socket.messages if message["event"] == "media"]
        heard = b"".join(each.payload for each in media if isinstance(each, envelope.Media) and each.track == track)
        assert heard == dsp.mulaw_encode(pcm)
