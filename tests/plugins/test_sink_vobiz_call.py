"""The simulated carrier, against servers over real sockets."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from mediaflow import (
    AudioFormat,
    AudioFrame,
    Dtmf,
    FormatError,
    Item,
    PathTemplate,
    Secret,
    SinkError,
    Stream,
    Writer,
    dsp,
    envelope,
    websocket,
)
from mediaflow.dialects import DIALECTS, Name
from mediaflow.testing import RecordingEngine, frames, write_all
from mediaflow.wav import WavReader
from mediaflow.websocket import Address, Closed, WebSocket
from mediaflow_plugins import sink_vobiz_call
from mediaflow_plugins.sink_vobiz_call import VobizCall
from mediaflow_plugins.source_vobiz import Vobiz

pytestmark = pytest.mark.anyio

MULAW, L16, WIDE = AudioFormat("mulaw", 8000), AudioFormat("s16le", 8000), AudioFormat("s16le", 16000)
BOTH = ("inbound", "outbound")
NUMBERS: dict[str, Any] = {"from": "+10", "to": "+20"}
PEERS = Path(__file__).parents[1] / "peers"


def _audio(format: AudioFormat, frames: float, seed: int = 0) -> bytes:
    """So many frames of 20 ms, in which every place looks different."""
    size = int(format.sample_rate / 50 * frames) * format.sample_bytes
    return bytes((k * k // 251 + k + seed) % 251 for k in range(size))


def _stream(format: AudioFormat = MULAW, tracks: tuple[str, ...] = ("inbound",), **metadata: str) -> Stream:
    return Stream("CALL_1", format, tracks, metadata)


Handler = Callable[[WebSocket], Awaitable[None]]


@asynccontextmanager
async def _app(handler: Handler) -> AsyncIterator[str]:
    """Run an app that takes calls with ``handler``; yield its URL."""
    port: list[int] = []
    up = anyio.Event()

    def listening(number: int) -> None:
        port.append(number)
        up.set()

    address = Address.parse("ws://127.0.0.1:0/app")
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: websocket.serve(handler, address, admit=lambda path: None, listening=listening))
            await up.wait()
            yield address.url(port[0])
            tasks.cancel_scope.cancel()


class _Ear:
    """An app that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.closed = anyio.Event()
        self.code = 0

    async def __call__(self, socket: WebSocket) -> None:
        try:
            while True:
                self.heard.append(json.loads(await socket.recv()))
        except Closed as closed:
            self.code = closed.code
            self.closed.set()

    @property
    def media(self) -> list[dict[str, Any]]:
        return [message["media"] for message in self.heard if message["event"] == "media"]

    def audio(self, track: str | None = None) -> bytes:
        return b"".join(base64.b64decode(m["payload"]) for m in self.media if track is None or m["track"] == track)


async def _heard(items: Sequence[Item], stream: Stream, **options: Any) -> _Ear:
    """Play ``items`` to an app and return what it heard, once the call is over."""
    ear = _Ear()
    async with _app(ear) as url:
        await write_all(VobizCall(url=Secret(url), **options), stream, items)
        await ear.closed.wait()
    return ear


# --- What goes out


@pytest.mark.parametrize("cuts", [(), (1, 7, 159, 160, 161, 1000), tuple(range(0, 1640, 33))])
async def test_frames_are_cut_to_20_ms(cuts: tuple[int, ...]) -> None:
    """However the audio is sliced, the wire carries 20 ms frames and the rest, numbered and stamped."""
    audio = _audio(MULAW, 10.25)
    ear = await _heard(frames(audio, MULAW, cuts), _stream())
    start, *media = ear.heard
    assert start["event"] == "start"
    assert start["start"]["callId"] == "CALL_1"
    assert start["start"]["tracks"] == ["inbound"]
    assert start["start"]["mediaFormat"] == {"encoding": "audio/x-mulaw", "sampleRate": 8000}
    assert ear.audio() == audio
    assert [len(base64.b64decode(m["media"]["payload"])) for m in media] == [160] * 10 + [40]
    assert [m["sequenceNumber"] for m in media] == [m["media"]["chunk"] for m in media] == list(range(1, 12))
    assert {(m["streamId"], m["event"], m["extra_headers"]) for m in media} == {
        (start["start"]["streamId"], "media", "{}")
    }
    stamps = [int(m["media"]["timestamp"]) for m in media]
    assert stamps == list(range(stamps[0], stamps[0] + 220, 20))
    assert ear.code == 1000


@pytest.mark.parametrize(
    ("dialect", "first", "size", "stop"),
    [
        ("plivo", ["start"], 160, {"reason": "call_ended"}),
        ("twilio", ["connected", "start"], 160, {"stop": {"accountSid": "mediaflow", "callSid": "CALL_1"}}),
        ("telnyx", ["connected", "start"], 160, {"stop": {"user_id": "mediaflow", "call_control_id": "CALL_1"}}),
        (
            "exotel",
            ["connected", "start"],
            800,
            {"stop": {"account_sid": "mediaflow", "call_sid": "CALL_1", "reason": "call_ended"}},
        ),
    ],
)
async def test_a_call_of_another_carrier(dialect: str, first: list[str], size: int, stop: dict[str, Any]) -> None:
    """It begins and ends as that carrier's does, in its frames; where it counts from the start, so does the sink."""
    audio = _audio(MULAW, 10)
    items = [AudioFrame(audio[:800], MULAW, position=8000), AudioFrame(audio[800:], MULAW, position=8800)]
    options: dict[str, Any] = {"dialect": dialect}
    if dialect == "exotel":
        audio, options["content_type"] = bytes(2 * len(audio)), "audio/x-l16;rate=8000"
        items = [AudioFrame(bytes(3200), L16, position=8000)]
    ear = await _heard(items, _stream(items[0].format), end="stop", **options)
    assert [message["event"] for message in ear.heard[: len(first)]] == first
    assert ear.heard[-1].items() >= {"event": "stop", **stop}.items()
    assert ear.audio() == audio
    samples = [len(base64.b64decode(media["payload"])) // items[0].format.sample_bytes for media in ear.media]
    assert samples == [size] * (1600 // size)
    stamps = [int(media["timestamp"]) for media in ear.media]
    zero = stamps[0] if dialect == "plivo" else 0
    assert stamps == [zero + number * size // 8 for number in range(len(stamps))]
    numbers = [message.get("sequenceNumber", message.get("sequence_number")) for message in ear.heard]
    assert [int(number) for number in numbers if number is not None] == list(
        range(0 if dialect == "plivo" else 1, len(numbers) if dialect != "plivo" else len(numbers) - 1)
    )


@pytest.mark.parametrize(
    ("dialect", "echo"),
    [
        ("plivo", {"event": "playedStream", "name": "n"}),
        ("twilio", {"event": "mark", "mark": {"name": "n"}}),
        ("telnyx", {"event": "mark", "mark": {"name": "n"}}),
    ],
)
async def test_an_app_is_obeyed_in_its_carrier_s_words(dialect: Name, echo: dict[str, Any]) -> None:
    """Audio is counted, a mark comes back, and clearing is answered where the carrier answers it."""
    heard: list[dict[str, Any]] = []

    async def app(socket: WebSocket) -> None:
        row = DIALECTS[dialect]
        for text in (row.build_audio("s", MULAW, bytes(160)), row.build_clear("s"), row.build_mark("s", "n")):
            await socket.send(text)
        while not heard or heard[-1]["event"] != echo["event"]:
            heard.append(json.loads(await socket.recv()))
        await socket.wait_closed()

    async with _app(app) as url:
        sink = VobizCall(url=Secret(url), dialect=dialect, stream_id="s")
        async with sink.open(_stream(), MULAW, ("inbound",)) as writer:
            while not heard or heard[-1]["event"] != echo["event"]:
                await anyio.lowlevel.checkpoint()
        assert writer.outcome.items() >= {"play_audio": 1, "checkpoint": 1, "clear_audio": 1}.items()
    assert heard[-1].items() >= echo.items()
    assert ("clearedAudio" in [message["event"] for message in heard]) == (dialect == "plivo")


async def test_the_clock_follows_the_audio() -> None:
    """A stream that begins later, or goes on after a hole, is stamped by its positions."""
    audio = _audio(MULAW, 4)
    first = (await _heard([AudioFrame(audio, MULAW)], _stream())).media
    holed = [AudioFrame(audio[:200], MULAW, position=1600), AudioFrame(audio[200:], MULAW, position=8000)]
    second = (await _heard(holed, _stream())).media
    zero = int(first[0]["timestamp"])
    assert [int(m["timestamp"]) - zero for m in second] == [200, 220, 1000, 1020, 1040]
    assert [len(base64.b64decode(m["payload"])) for m in second] == [160, 40, 160, 160, 120]


async def test_two_tracks_go_in_the_order_of_time() -> None:
    """Frames of two tracks alternate by their time, each track numbered by itself, however they were pushed."""
    inbound, outbound = _audio(MULAW, 5), _audio(MULAW, 3, 100)
    items: list[Item] = [
        *frames(inbound[:480], MULAW),
        AudioFrame(outbound[:300], MULAW, "outbound", 320),
        AudioFrame(inbound[480:], MULAW, "inbound", 480),
        AudioFrame(outbound[300:], MULAW, "outbound", 620),
    ]
    ear = await _heard(items, _stream(tracks=BOTH))
    assert ear.heard[0]["start"]["tracks"] == ["inbound", "outbound"]
    zero = int(ear.media[0]["timestamp"])
    assert [(m["track"], m["chunk"], int(m["timestamp"]) - zero) for m in ear.media] == [
        ("inbound", 1, 0),
        ("inbound", 2, 20),
        ("inbound", 3, 40),
        ("outbound", 1, 40),
        ("inbound", 4, 60),
        ("outbound", 2, 60),
        ("inbound", 5, 80),
        ("outbound", 3, 80),
    ]
    assert [message["sequenceNumber"] for message in ear.heard] == list(range(9))
    assert (ear.audio("inbound"), ear.audio("outbound")) == (inbound, outbound)


async def test_a_track_that_is_silent_holds_the_other_up_only_a_little() -> None:
    """While one of two tracks brings nothing, the other is sent 200 ms behind; at the end everything is."""
    audio = _audio(MULAW, 15)
    ear = _Ear()
    async with _app(ear) as url:
        sink = VobizCall(url=Secret(url))
        async with sink.open(_stream(tracks=BOTH), MULAW, BOTH) as writer:
            await writer.write(AudioFrame(audio, MULAW))
            while len(ear.media) < 6:
                await anyio.lowlevel.checkpoint()
            assert len(ear.audio()) == 960
        await ear.closed.wait()
    assert ear.audio() == audio


@pytest.mark.parametrize("track", ["joined", "outbound"])
async def test_one_track_goes_under_a_name_of_the_wire(track: str) -> None:
    """A joined track is the caller's on the wire; outbound stays outbound."""
    ear = await _heard([AudioFrame(_audio(MULAW, 2), MULAW, track)], _stream(tracks=(track,)))
    expected = "outbound" if track == "outbound" else "inbound"
    assert ear.heard[0]["start"]["tracks"] == [expected]
    assert {m["track"] for m in ear.media} == {expected}


async def test_two_tracks_in_the_flat_shape_are_named() -> None:
    """The older shape names the track where there are two, for they could not be told apart."""
    frames = [AudioFrame(_audio(MULAW, 2), MULAW, track) for track in BOTH]
    ear = await _heard(frames, _stream(tracks=BOTH), shape="flat")
    assert ear.heard[0]["audioTrack"] == "both"
    assert [message["media"]["track"] for message in ear.heard[1:]] == [*BOTH, *BOTH]


async def test_the_flat_shape() -> None:
    """The older shape says everything at the top and ends with stop, where that is wanted."""
    audio = _audio(L16, 2)
    stream = _stream(L16, account_id="MA_1", direction="inbound", **NUMBERS)
    ear = await _heard([AudioFrame(audio, L16)], stream, shape="flat", content_type="audio/x-l16;rate=8000", end="stop")
    start, first, second, stop = ear.heard
    stream_id = start["streamId"]
    assert start == {
        "event": "start",
        "streamId": stream_id,
        "accountId": "MA_1",
        "callId": "CALL_1",
        "from": "+10",
        "to": "+20",
        "direction": "inbound",
        "contentType": "audio/x-l16;rate=8000",
        "audioTrack": "inbound",
    }
    payload = base64.b64encode(audio[:320]).decode()
    stamp = first["media"]["timestamp"]
    media = {"contentType": "audio/x-l16", "sampleRate": 8000, "payload": payload, "timestamp": stamp}
    assert first == {"event": "media", "streamId": stream_id, "media": media}
    assert isinstance(stamp, int)
    assert second["media"]["timestamp"] == stamp + 20
    assert stop == {"event": "stop", "streamId": stream_id, "reason": "call_ended"}


async def test_the_byte_order_can_be_turned() -> None:
    """L16 goes out as big-endian where that is asked for."""
    audio = _audio(WIDE, 2)
    ear = await _heard(
        [AudioFrame(audio, WIDE)], _stream(WIDE), content_type="audio/x-l16;rate=16000", byte_order="big"
    )
    assert ear.audio() == dsp.swap_bytes(audio)
    assert [len(base64.b64decode(m["payload"])) for m in ear.media] == [640, 640]


async def test_keys_are_sent_in_their_place() -> None:
    """A pressed key goes out behind the audio before it."""
    audio = _audio(MULAW, 2)
    first, second = frames(audio, MULAW, (160,))
    items: list[Item] = [first, Dtmf("inbound", 0.02, "5"), second]
    ear = await _heard(items, _stream())
    assert [message["event"] for message in ear.heard] == ["start", "media", "dtmf", "media"]
    assert ear.heard[2]["dtmf"] == {"digit": "5", "track": "inbound"}
    assert [message["sequenceNumber"] for message in ear.heard] == [0, 1, 2, 3]


# --- What comes back


async def test_the_app_is_obeyed() -> None:
    """playAudio is played, a checkpoint and clearAudio are answered, junk does no harm."""
    answers: list[dict[str, Any]] = []
    notes: list[tuple[str, dict[str, Any]]] = []
    done = anyio.Event()

    async def app(socket: WebSocket) -> None:
        stream_id = json.loads(await socket.recv())["start"]["streamId"]
        for message in (
            envelope.build_play_audio(stream_id, MULAW, b"\xff" * 160),
            "junk",
            '{"event":"sendDTMF","dtmf":"42"}',
            envelope.build_checkpoint(stream_id, "greeting"),
        ):
            await socket.send(message)
        answers.append(json.loads(await socket.recv()))
        await socket.send(envelope.build_clear_audio(stream_id))
        answers.append(json.loads(await socket.recv()))
        done.set()
        await socket.wait_closed()

    def note(name: str, /, **facts: object) -> None:
        notes.append((name, facts))

    async with _app(app) as url:
        async with VobizCall(url=Secret(url)).open(_stream(), MULAW, ("inbound",)) as writer:
            writer.note = note
            await done.wait()
            await writer.write(AudioFrame(_audio(MULAW, 1), MULAW))
        outcome = dict(writer.outcome)
    stream_id = outcome.pop("stream_id")
    assert answers == [
        {"event": "playedStream", "streamId": stream_id, "name": "greeting"},
        {"event": "clearedAudio", "streamId": stream_id},
    ]
    assert outcome == {
        "messages": 1,
        "play_audio": 1,
        "play_audio_bytes": 160,
        "not-json": 1,
        "unknown_event": 1,
        "checkpoint": 1,
        "clear_audio": 1,
        "played_s": 0.02,
    }
    of_this = {"stream_id": stream_id}
    assert notes == [
        ("StartStream", of_this),
        ("PlayedStream", of_this | {"name": "greeting"}),
        ("ClearedAudio", of_this),
    ]


async def _fails(url: str, pause: anyio.Event | None = None) -> SinkError:
    """Play a call of silence without end and return what it fails with."""
    with pytest.raises(SinkError) as caught:
        async with VobizCall(url=Secret(url)).open(_stream(), MULAW, ("inbound",)) as writer:
            position = 0
            while True:
                frame = AudioFrame(MULAW.silence(160), MULAW, position=position)
                if not writer.write_nowait(frame):
                    await writer.write(frame)
                position += 160
                await anyio.lowlevel.checkpoint()
    return caught.value


async def test_stop_of_the_app_ends_the_call() -> None:
    """After the app's stop there is no call any more: the sink fails with that code."""

    async def app(socket: WebSocket) -> None:
        await socket.send(envelope.build_stop("stream"))
        await socket.wait_closed()

    async with _app(app) as url:
        assert (await _fails(url)).code == "stopped"


@pytest.mark.parametrize("way", [{}, {"bidirectional": False}])
async def test_what_the_app_plays_is_kept(tmp_path: Path, way: dict[str, Any]) -> None:
    """What the app plays into this stream is in the file, in the app's format; a stream of one way plays nothing."""
    done = anyio.Event()

    async def app(socket: WebSocket) -> None:
        await socket.recv()
        for message in (
            envelope.build_play_audio("another", MULAW, b"\x00" * 160),
            envelope.build_play_audio("S1", MULAW, _audio(MULAW, 2)),
            envelope.build_play_audio("S1", L16, _audio(L16, 1) + b"\x00"),
            envelope.build_clear_audio("S1") if way else envelope.build_checkpoint("S1", "end"),
        ):
            await socket.send(message)
        if not way:
            await socket.recv()
        await socket.ping()
        done.set()
        await socket.wait_closed()

    played = PathTemplate(str(tmp_path / "{call_id}/{stream_id}.wav"))
    async with _app(app) as url:
        sink = VobizCall(url=Secret(url), stream_id="S1", speed="max", played=played, **way)
        async with sink.open(_stream(), MULAW, ("inbound",)) as writer:
            await done.wait()
            await writer.write(AudioFrame(_audio(MULAW, 1), MULAW))
    outcome = writer.outcome
    assert outcome["stream_id"] == "S1"
    if way:
        assert outcome["one_way"] == 4
        assert "played" not in outcome
        return
    assert (outcome["play_audio"], outcome["play_audio_elsewhere"], outcome["play_audio_odd"]) == (2, 1, 1)
    assert outcome["played_s"] == 0.06
    files = [tmp_path / "CALL_1" / name for name in ("S1.wav", "S1-2.wav")]
    assert outcome["played"] == [str(file) for file in files]
    for file, format, audio in zip(files, (MULAW, L16), (_audio(MULAW, 2), _audio(L16, 1)), strict=True):
        with WavReader(file) as reader:
            assert (reader.format, reader.read(10_000)) == (format, audio)


async def test_an_app_that_falls_behind_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """An app that does not read is on record as a degraded connection."""
    monkeypatch.setattr(sink_vobiz_call, "CONFIRM_S", 0.01)
    monkeypatch.setattr(sink_vobiz_call, "DEGRADED_S", 0.05)
    noted = anyio.Event()

    async def app(socket: WebSocket) -> None:
        await noted.wait()
        await socket.wait_closed()

    def note(name: str, /, **facts: object) -> None:
        if name == "DegradedStream":
            assert facts["error"] == "connection degraded"
            noted.set()

    async with _app(app) as url, VobizCall(url=Secret(url)).open(_stream(), MULAW, ("inbound",)) as writer:
        writer.note = note
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_write_again, writer, noted)
            await noted.wait()


async def _write_again(writer: Writer, until: anyio.Event) -> None:
    """Write more than the sockets and the library hold for an app that reads nothing: then no pong comes either."""
    frame = AudioFrame(_audio(MULAW, 2000), MULAW)
    position = 0
    while not until.is_set():
        await writer.write(frame.replace(frame.data, position=position))
        position += frame.sample_count


@pytest.mark.parametrize("code", [1000, 1011, 4000])
async def test_a_close_in_the_middle_is_a_failure(code: int) -> None:
    """An app that hangs up during the call makes the sink fail with the code of the close."""

    async def app(socket: WebSocket) -> None:
        await socket.recv()
        await socket.close(code)

    async with _app(app) as url:
        assert (await _fails(url)).code == f"closed-{code}"


async def test_nobody_there() -> None:
    """Where nobody listens the sink fails as unreachable, and the text holds no path."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)
    await listener.aclose()
    error = await _fails(f"ws://127.0.0.1:{port}/s3cr3t")
    assert error.code == "unreachable"
    assert "s3cr3t" not in str(error)


async def test_refused() -> None:
    """A server that answers the handshake with 403 makes the sink fail as refused."""
    engine = RecordingEngine()
    async with _source(engine, secret=Secret("right")) as url:
        assert (await _fails(f"{url}/wrong")).code == "refused"


async def test_delivered_grows_while_the_call_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the app has read is confirmed during the call, and everything is at its end, in the order written."""
    monkeypatch.setattr(sink_vobiz_call, "CONFIRM_S", 0.01)
    ear = _Ear()
    async with _app(ear) as url:
        async with VobizCall(url=Secret(url)).open(_stream(tracks=BOTH), MULAW, BOTH) as writer:
            assert writer.delivered == 0
            await writer.write(AudioFrame(_audio(MULAW, 3), MULAW))
            await writer.write(AudioFrame(_audio(MULAW, 1.5), MULAW, "outbound"))
            # Of inbound, the third frame may still be preceded by outbound's second, which is half there.
            while writer.delivered < 320:
                await anyio.lowlevel.checkpoint()
            assert writer.delivered == 320
        assert writer.delivered == 720


async def test_an_app_that_reads_nothing_confirms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Audio that only went into a buffer on the way is not delivered: the sink fails when its patience ends."""
    monkeypatch.setattr(sink_vobiz_call, "FINISH_S", 0.2)

    async def deaf(stream: SocketStream) -> None:
        async with stream:
            request = await stream.receive()
            key = next(line[19:] for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key: "))
            accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            upgrade = b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
            await stream.send(upgrade + accept + b"\r\n\r\n")
            await anyio.sleep_forever()

    with anyio.fail_after(20):
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, deaf)
            url = f"ws://127.0.0.1:{listener.extra(SocketAttribute.local_port)}/"
            with pytest.raises(SinkError) as caught:
                async with VobizCall(url=Secret(url)).open(_stream(), MULAW, ("inbound",)) as writer:
                    await writer.write(AudioFrame(_audio(MULAW, 100), MULAW))
            tasks.cancel_scope.cancel()
    assert caught.value.code == "timeout"
    assert writer.delivered == 0


async def test_a_call_that_is_left_by_an_error_is_given_up() -> None:
    """An error of the engine's leaves the call as it is: no stop is said, nothing more is confirmed."""
    ear = _Ear()
    async with _app(ear) as url:
        with pytest.raises(RuntimeError):
            async with VobizCall(url=Secret(url), end="stop").open(_stream(), MULAW, ("inbound",)) as writer:
                await writer.write(AudioFrame(_audio(MULAW, 3.5), MULAW))
                raise RuntimeError
        await ear.closed.wait()
    assert [message["event"] for message in ear.heard] == ["start", "media", "media", "media"]
    assert writer.delivered == 0


# --- What it takes


@pytest.mark.parametrize(
    ("format", "tracks", "options", "hint"),
    [
        (L16, ("inbound",), {}, "mulaw_encode"),
        (MULAW, ("inbound",), {"content_type": "audio/x-l16;rate=8000"}, "mulaw_decode"),
        (AudioFormat("alaw", 8000), ("inbound",), {"content_type": "audio/x-l16;rate=8000"}, "alaw_decode"),
        (WIDE, ("inbound",), {"content_type": "audio/x-l16;rate=8000"}, "rate: 8000"),
        (AudioFormat("mulaw", 8000, 2), ("inbound",), {}, "mix"),
        (MULAW, ("left", "right"), {}, "mix"),
    ],
)
async def test_formats_that_do_not_fit(
    format: AudioFormat, tracks: tuple[str, ...], options: dict[str, Any], hint: str
) -> None:
    """A format or tracks that the call cannot carry are refused with the step that is missing."""
    sink = VobizCall(url=Secret("ws://127.0.0.1:1/x"), **options)
    with pytest.raises(FormatError) as caught:
        sink.check_format(format, tracks)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"dialect": "twilio", "content_type": "audio/x-l16;rate=8000"}, "twilio has no .*, only audio/x-mulaw"),
        ({"dialect": "exotel"}, "exotel has no audio/x-mulaw"),
        ({"dialect": "plivo", "shape": "flat"}, "Vobiz's alone"),
    ],
)
async def test_what_a_carrier_does_not_have_is_refused(options: dict[str, Any], complaint: str) -> None:
    """A codec, or the older shape."""
    with pytest.raises(ValueError, match=complaint):
        VobizCall(url=Secret("ws://127.0.0.1:1/"), **options).check()


async def test_exotel_has_one_track() -> None:
    """Two have to be joined before."""
    sink = VobizCall(url=Secret("ws://127.0.0.1:1/"), dialect="exotel", content_type="audio/x-l16;rate=8000")
    with pytest.raises(FormatError, match="one track"):
        sink.check_format(L16, BOTH)


@pytest.mark.parametrize("url", ["", "http://127.0.0.1/s3cr3t", "ws:///s3cr3t", "s3cr3t"])
async def test_a_url_that_is_none(url: str) -> None:
    """An address that is no WebSocket's is refused without being shown."""
    with pytest.raises(ValueError, match="ws://") as caught:
        VobizCall(url=Secret(url)).check()
    assert "s3cr3t" not in str(caught.value)


# --- Peers


@asynccontextmanager
async def _source(engine: RecordingEngine, **options: Any) -> AsyncIterator[str]:
    source = Vobiz(listen="ws://127.0.0.1:0/vobiz", reconnect_s=0.0, byte_order="little", **options)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(source.serve, engine)
            yield await engine.url()
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize(("content_type", "format"), list(sink_vobiz_call._FORMATS.items()))
@pytest.mark.parametrize("shape", ["nested", "flat"])
async def test_our_own_source_hears_it(content_type: str, format: AudioFormat, shape: str) -> None:
    """What this sink sends is what the source vobiz brings, to the last byte."""
    tracks = BOTH if shape == "nested" else ("inbound",)
    audio = {track: _audio(format, 50.5, seed) for seed, track in enumerate(tracks)}
    pieces = [frame for track in tracks for frame in frames(audio[track], format, (1000, 2000), track)]
    items = sorted(pieces, key=lambda frame: frame.position)
    engine = RecordingEngine()
    async with _source(engine) as url:
        sink = VobizCall(url=Secret(url), shape=shape, content_type=content_type, end="stop")  # type: ignore[arg-type]
        writer = await write_all(sink, _stream(format, tracks), items)
        (session,) = await engine.ended()
    assert session.audio == audio
    assert not session.concealed and not session.dropped and not engine.counts
    assert writer.delivered == sum(len(data) for data in audio.values()) // format.sample_bytes


async def _stock_server(command: list[str], **options: Any) -> tuple[list[dict[str, Any]], bytes]:
    """Play a call to a server program; return its lines and the audio sent."""
    audio = _audio(MULAW, 50)
    stream = _stream(account_id="500", **NUMBERS)
    with anyio.fail_after(30):
        async with await anyio.open_process(command, stderr=subprocess.STDOUT) as process:
            assert process.stdout is not None
            lines = BufferedByteReceiveStream(process.stdout)
            port = json.loads(await lines.receive_until(b"\n", 1000))["port"]
            sink = VobizCall(url=Secret(f"ws://127.0.0.1:{port}/"), **options)
            await write_all(sink, stream, frames(audio, MULAW, (333,)))
            text = b"".join([part async for part in lines])
    return [json.loads(line) for line in text.splitlines()], audio


def _check(lines: list[dict[str, Any]], audio: bytes, stop: bool) -> None:
    start, *media, close = lines
    if stop:
        assert media.pop() == {"heard": "stop", "reason": "call_ended"}
    assert start["heard"] == "start"
    assert media == [{"heard": "media", "bytes": 160}] * 50
    assert close == {"heard": "close", "code": 1000, "audio": hashlib.sha256(audio).hexdigest()}


@pytest.mark.parametrize("end", ["stop", "close"])
@pytest.mark.parametrize("shape", ["nested", "flat"])
async def test_the_documented_node_server(shape: str, end: str, needs: Callable[..., None]) -> None:
    """A server as the carrier documents it in Node, on the ws library, hears every frame and a clean end."""
    needs("node", "npm")
    if not (PEERS / "node_modules" / "ws").exists():
        await anyio.run_process(["npm", "ci"], cwd=PEERS)
    lines, audio = await _stock_server(["node", str(PEERS / "vobiz_server.js")], shape=shape, end=end)
    _check(lines, audio, end == "stop")
    if shape == "flat":
        assert (lines[0]["streamId"], lines[0]["from"], lines[0]["to"]) == (lines[0]["whole"]["streamId"], "+10", "+20")


@pytest.mark.parametrize("end", ["stop", "close"])
async def test_the_documented_python_server(end: str) -> None:
    """A server as the carrier documents it in Python, on the websockets library, hears every frame and a clean end."""
    lines, audio = await _stock_server([sys.executable, str(PEERS / "vobiz_server.py")], shape="flat", end=end)
    _check(lines, audio, end == "stop")
