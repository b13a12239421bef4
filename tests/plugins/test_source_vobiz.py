"""The source of calls from Vobiz, over real sockets."""

from __future__ import annotations

import json
import logging
import math
import ssl
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme

from mediaflow import (
    AudioFormat,
    Dtmf,
    FormatError,
    Secret,
    SessionError,
    SourceError,
    Stream,
    dsp,
    envelope,
    websocket,
)
from mediaflow.testing import RecordedSession, RecordingEngine
from mediaflow.websocket import Closed, Refused, WebSocket
from mediaflow_plugins.source_vobiz import Vobiz

pytestmark = pytest.mark.anyio

MULAW, L16 = AudioFormat("mulaw", 8000), AudioFormat("s16le", 8000)
BOTH = ("inbound", "outbound")
EPOCH = 1_778_597_597_091
PEERS = Path(__file__).parents[1] / "peers"


def _frame(number: int, size: int = 160) -> bytes:
    """Audio of its own for each frame, so that order and place show."""
    return bytes((number * 7 + k) % 251 for k in range(size))


def _media(number: int, data: bytes | None = None, track: str = "inbound", chunk: int | None = None) -> str:
    """Frame ``number`` as today's wire carries it."""
    return envelope.build_media(
        "stream",
        number,
        track,
        number if chunk is None else chunk,
        EPOCH + 20 * number,
        _frame(number) if data is None else data,
    )


def _start(
    call: str = "call", stream: str = "stream", format: AudioFormat = MULAW, tracks: tuple[str, ...] = ("inbound",)
) -> str:
    return envelope.build_start(call, stream, "account", format, tracks)


@asynccontextmanager
async def _serving(engine: RecordingEngine | None = None, **options: Any) -> AsyncIterator[tuple[RecordingEngine, str]]:
    """Run the source on a free port; yield the engine and the URL."""
    defaults: dict[str, Any] = {"listen": "ws://127.0.0.1:0/vobiz", "reconnect_s": 0.0}
    source = Vobiz(**defaults | options)
    source.check()
    engine = engine or RecordingEngine()
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(source.serve, engine)
            yield engine, await engine.url()
            tasks.cancel_scope.cancel()


async def _call(url: str, *messages: str | bytes) -> None:
    """Play the carrier: connect, say all this, close."""
    async with websocket.connect(url) as socket:
        for message in messages:
            await socket.send(message)


async def _closed(socket: WebSocket) -> Closed:
    closed = await socket.wait_closed()
    assert closed.by == "peer"
    return closed


async def _one(engine: RecordingEngine) -> RecordedSession:
    (session,) = await engine.ended()
    return session


# --- The two shapes, the formats, the tracks


@pytest.mark.parametrize("shape", ["nested", "flat"])
@pytest.mark.parametrize("format", [MULAW, AudioFormat("alaw", 8000), L16, AudioFormat("s16le", 16000)])
async def test_both_shapes_bring_the_announced_format(shape: envelope.Shape, format: AudioFormat) -> None:
    """A call in either shape becomes a session of the format, the tracks and the names that its start announces."""
    metadata = {"from": "+10", "to": "+20", "direction": "inbound"}
    start = envelope.build_start("call", "stream", "account", format, ("inbound",), metadata, shape)
    size = format.sample_rate // 50 * format.sample_bytes
    audio = [_frame(n, size) for n in range(5)]
    if shape == "nested":
        media = [_media(n, data) for n, data in enumerate(audio)]
    else:
        media = [envelope.build_flat_media("stream", format, EPOCH + 20 * n, data) for n, data in enumerate(audio)]
    async with _serving(byte_order="little") as (engine, url):
        await _call(url, start, *media)
        session = await _one(engine)
    ids = {"call_id": "call", "stream_id": "stream", "account_id": "account"}
    assert session.stream == Stream("call", format, ("inbound",), ids | (metadata if shape == "flat" else {}))
    assert session.audio == {"inbound": b"".join(audio)}
    assert not session.concealed and not session.dropped and not engine.counts


async def test_tracks_are_kept_apart() -> None:
    """Frames of two interleaved tracks go to their tracks, and the one that begins later begins at its time."""
    stamps = [("inbound", 0), ("inbound", 1), ("outbound", 1), ("inbound", 2), ("outbound", 2)]
    media = [_media(n, _frame(n + 100 * (track == "outbound")), track) for track, n in stamps]
    async with _serving() as (engine, url):
        await _call(url, _start(tracks=BOTH), *media)
        session = await _one(engine)
    assert session.stream.tracks == BOTH
    assert session.audio == {
        "inbound": _frame(0) + _frame(1) + _frame(2),
        "outbound": _frame(101) + _frame(102),
    }
    assert session.starts == {"outbound": 160}


async def test_absent_tracks_mean_both() -> None:
    """A start that names no tracks may bring both; media without a track is the caller's."""
    start = json.dumps({"event": "start", "start": {"callId": "call", "mediaFormat": {"encoding": "PCMU"}}})
    async with _serving() as (engine, url):
        await _call(url, start, envelope.build_flat_media("stream", MULAW, EPOCH, _frame(0)))
        session = await _one(engine)
    assert session.stream.tracks == BOTH
    assert session.audio == {"inbound": _frame(0)}


async def test_media_without_a_track_is_of_the_only_one() -> None:
    """Where only the other side is announced, media without a track is its."""
    async with _serving() as (engine, url):
        media = envelope.build_flat_media("stream", MULAW, EPOCH, _frame(0))
        await _call(url, _start(tracks=("outbound",)), media)
        session = await _one(engine)
    assert session.audio == {"outbound": _frame(0)}


async def test_media_of_an_unannounced_track_is_booked() -> None:
    """Audio of a track that start did not announce is dropped on record, under no name from the wire."""
    async with _serving() as (engine, url):
        await _call(url, _start(), _media(0), _media(0, track="outbound"), _media(1, track="x" * 99), _media(1))
        session = await _one(engine)
    assert session.audio == {"inbound": _frame(0) + _frame(1)}
    assert session.dropped == [("outbound", 160, "unannounced-track"), ("inbound", 160, "unannounced-track")]
    assert engine.counts == {"unannounced-track": 2}


# --- Beginnings


async def test_media_before_start_is_kept() -> None:
    """Audio that comes before start is in the session, in order; so is the place of a frame that could not be read."""
    broken = json.dumps({"event": "media", "media": {"payload": "?", "track": "inbound", "chunk": 1}})
    async with _serving() as (engine, url):
        await _call(url, _media(0), broken, _media(2), _start(), _media(3))
        session = await _one(engine)
    silence = MULAW.silence(160)
    assert session.audio == {"inbound": _frame(0) + silence + _frame(2) + _frame(3)}
    assert session.concealed == [("inbound", 160, 160, "bad-base64")]


async def test_too_much_before_start_is_booked() -> None:
    """Two seconds of two tracks are kept before start; what is older is dropped, counted and booked."""
    async with _serving() as (engine, url):
        await _call(url, *[_media(n) for n in range(203)], _start())
        session = await _one(engine)
    assert session.audio == {"inbound": b"".join(_frame(n) for n in range(3, 203))}
    assert session.dropped == [("inbound", 480, "before-start")]
    assert engine.counts == {"early-media-dropped": 3}


@pytest.mark.parametrize(
    ("start", "code"),
    [
        ({"callId": "call", "mediaFormat": {"encoding": "audio/opus", "sampleRate": 48000}}, "unknown-encoding"),
        ({"callId": "call", "mediaFormat": {"encoding": "audio/x-l16"}}, "bad-rate"),
        ({"mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000}}, "no-call-id"),
    ],
)
async def test_a_start_that_cannot_be_used_is_refused(start: Any, code: str, caplog: pytest.LogCaptureFixture) -> None:
    """A start without identity or of an unknown encoding closes with 1003, is counted and logged, and opens nothing."""
    async with _serving() as (engine, url), websocket.connect(url) as socket:
        await socket.send(json.dumps({"event": "start", "start": start}))
        closed = await _closed(socket)
    assert (closed.code, closed.reason) == (1003, code)
    assert engine.counts == {code: 1}
    assert not engine.sessions
    assert code in caplog.text


async def test_a_format_that_the_pipeline_refuses_closes() -> None:
    """Where the pipeline cannot take the format, the socket closes with 1003."""

    class Refusing(RecordingEngine):
        @asynccontextmanager
        async def open(self, stream: Stream) -> AsyncIterator[RecordedSession]:
            raise FormatError("takes nothing")
            yield

    async with _serving(Refusing()) as (_, url), websocket.connect(url) as socket:
        await socket.send(_start())
        assert (await _closed(socket)).code == 1003


async def test_a_second_start_is_no_second_call() -> None:
    """The same start said twice is counted and changes nothing."""
    async with _serving() as (engine, url):
        await _call(url, _start(), _media(0), _start(), _media(1))
        session = await _one(engine)
    assert len(engine.sessions) == 1
    assert session.audio == {"inbound": _frame(0) + _frame(1)}
    assert engine.counts == {"duplicate-start": 1}


async def test_a_socket_that_never_starts_is_closed() -> None:
    """Who connects and says nothing is sent away, and no session was opened."""
    async with _serving(idle_s=0.1) as (engine, url), websocket.connect(url) as socket:
        assert (await _closed(socket)).code == 1000
    assert engine.counts == {"no-start": 1}
    assert not engine.sessions


# --- Ends


@pytest.mark.parametrize("end", ["stop", "close"])
async def test_a_call_ends_once(end: str) -> None:
    """By stop or by the mere close of the socket, the session ends, once, with all its audio."""
    stop = [envelope.build_stop("stream", "call_ended")] if end == "stop" else []
    async with _serving() as (engine, url):
        await _call(url, _start(), _media(0), *stop)
        session = await _one(engine)
    assert engine.sessions == [session]
    assert session.audio == {"inbound": _frame(0)}


async def test_stop_ends_without_waiting_for_the_close() -> None:
    """After stop the session is over although the socket is open; what still comes is counted."""
    async with _serving(reconnect_s=60.0) as (engine, url), websocket.connect(url) as socket:
        for message in (_start(), _media(0), envelope.build_stop("stream"), _media(1), _media(2)):
            await socket.send(message)
        session = await _one(engine)
        await engine.counted("media-after-stop", 2)
    assert session.audio == {"inbound": _frame(0)}


async def test_silence_of_the_carrier_ends_the_call() -> None:
    """A socket that stays open and says nothing is closed after idle_s, and the session ends."""
    async with _serving(idle_s=0.2, reconnect_s=60.0) as (engine, url), websocket.connect(url) as socket:
        await socket.send(_start())
        await socket.send(_media(0))
        session = await _one(engine)
        closed = await _closed(socket)
    assert (closed.code, closed.reason) == (1000, "idle")
    assert session.audio == {"inbound": _frame(0)}
    assert engine.counts == {"idle": 1}


async def test_a_call_that_goes_on_is_not_idle() -> None:
    """Every message starts the waiting anew: a call may last longer than idle_s."""
    async with _serving(idle_s=0.4) as (engine, url), websocket.connect(url) as socket:
        await socket.send(_start())
        for number in range(10):
            await anyio.sleep(0.08)  # the pace of the call, twice idle_s in all
            await socket.send(_media(number))
        await socket.send(envelope.build_stop("stream"))
        session = await _one(engine)
    assert session.audio == {"inbound": b"".join(_frame(n) for n in range(10))}
    assert not engine.counts


async def test_a_cancelled_source_ends_its_calls() -> None:
    """When the source is stopped, every call that is open ends with its audio."""
    async with _serving() as (engine, url), websocket.connect(url) as one, websocket.connect(url) as two:
        for name, socket in (("one", one), ("two", two)):
            await socket.send(_start(name))
            await socket.send(_media(0))
            await socket.ping()
        await engine.until(lambda: len(engine.sessions) == 2 and all(session.audio for session in engine.sessions))
    assert [session.ended for session in engine.sessions] == [True, True]
    assert [session.audio for session in engine.sessions] == [{"inbound": _frame(0)}] * 2


async def test_sinks_that_all_failed_close_the_socket() -> None:
    """Where nothing can take the audio any more, the carrier is told with 1011 and the session ends."""

    class Broken(RecordedSession):
        def push(self, data: bytes, track: str = "inbound") -> bool:
            raise SessionError("every sink has failed")

    async with _serving() as (engine, url), websocket.connect(url) as socket:
        _replace_sessions(engine, Broken)
        await socket.send(_start())
        await socket.send(_media(0))
        assert (await _closed(socket)).code == 1011
        await engine.ended()


async def test_a_call_given_up_under_pressure_closes_at_once() -> None:
    """Messages that wait unread while the sinks are full do not hold up the close when the sinks fail."""

    class Full(RecordedSession):
        def push(self, data: bytes, track: str = "inbound") -> bool:
            return False

        async def ready(self) -> None:
            await failing.wait()
            raise SessionError("every sink has failed")

    failing = anyio.Event()
    async with _serving() as (engine, url), websocket.connect(url) as socket:
        _replace_sessions(engine, Full)
        await socket.send(_start())
        for number in range(100):
            await socket.send(_media(number))
        failing.set()
        with anyio.fail_after(5):
            assert (await _closed(socket)).code == 1011


async def test_a_source_stopped_under_pressure_stops_at_once() -> None:
    """A source that is stopped while messages wait unread closes its sockets with 1001 and returns."""

    class Full(RecordedSession):
        def push(self, data: bytes, track: str = "inbound") -> bool:
            return False

        async def ready(self) -> None:
            full.set()
            await anyio.sleep_forever()

    engine, full = RecordingEngine(), anyio.Event()
    _replace_sessions(engine, Full)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as outer:
            inner = anyio.CancelScope()

            async def serve() -> None:
                with inner:
                    await Vobiz(listen="ws://127.0.0.1:0/vobiz").serve(engine)

            outer.start_soon(serve)
            async with websocket.connect(await engine.url()) as socket:
                await socket.send(_start())
                for number in range(100):
                    await socket.send(_media(number))
                await full.wait()
                inner.cancel()
                assert (await _closed(socket)).code == 1001
    assert [session.ended for session in engine.sessions] == [True]


async def test_the_fault_of_one_call_is_not_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """A call in which something breaks unexpectedly is closed with 1011; another goes on beside it."""

    class Broken(RecordedSession):
        def push(self, data: bytes, track: str = "inbound") -> bool:
            if self.stream.id == "bad":
                raise ZeroDivisionError
            return super().push(data, track)

    async with _serving() as (engine, url), websocket.connect(url) as good, websocket.connect(url) as bad:
        _replace_sessions(engine, Broken)
        await good.send(_start("good"))
        await good.send(_media(0))
        await bad.send(_start("bad"))
        await bad.send(_media(0))
        assert (await _closed(bad)).code == 1011
        await good.send(_media(1))
        await good.close()
        sessions = {session.stream.id: session for session in await engine.ended(2)}
    assert sessions["good"].audio == {"inbound": _frame(0) + _frame(1)}
    assert engine.counts == {"call-crashed": 1}
    assert "call bad" in caplog.text


def _replace_sessions(engine: RecordingEngine, kind: type[RecordedSession]) -> None:
    """Let ``engine`` open sessions of ``kind``."""
    inner = engine.open

    @asynccontextmanager
    async def open(stream: Stream) -> AsyncIterator[RecordedSession]:
        async with inner(stream) as session:
            session.__class__ = kind
            yield session

    engine.open = open  # type: ignore[method-assign]


# --- Reconnecting


async def test_a_reconnect_continues_the_session() -> None:
    """A new socket with a new stream id and the same call id goes on in the session; the hole between is silence."""
    async with _serving(reconnect_s=60.0) as (engine, url):
        await _call(url, _start(stream="one"), _media(0), _media(1))
        again = [_media(n, chunk=n - 11) for n in (12, 13)]
        await _call(url, _start(stream="two"), *again, envelope.build_stop("two"))
        session = await _one(engine)
    silence = MULAW.silence(1600)
    assert session.audio == {"inbound": _frame(0) + _frame(1) + silence + _frame(12) + _frame(13)}
    assert session.concealed == [("inbound", 320, 1600, "reconnect")]
    assert engine.counts == {"reconnected": 1, "reconnect": 1}
    assert len(engine.sessions) == 1


async def test_the_newest_socket_wins() -> None:
    """A second socket of a call whose first is still open takes over, and the first is closed."""
    async with _serving() as (engine, url), websocket.connect(url) as old, websocket.connect(url) as new:
        await old.send(_start(stream="one"))
        await old.send(_media(0))
        await engine.until(lambda: bool(engine.sessions and engine.sessions[0].audio))
        await new.send(_start(stream="two"))
        closed = await _closed(old)
        await new.send(_media(1))
        await new.close()
        session = await _one(engine)
    assert (closed.code, closed.reason) == (1000, "replaced")
    assert session.audio == {"inbound": _frame(0) + _frame(1)}
    assert len(engine.sessions) == 1


async def test_a_reconnect_in_another_format_is_refused() -> None:
    """A session has one format: a new socket that announces another is closed with 1003 and the call goes on."""
    async with _serving() as (engine, url), websocket.connect(url) as old, websocket.connect(url) as new:
        await old.send(_start())
        await old.send(_media(0))
        await engine.until(lambda: bool(engine.sessions))
        await new.send(_start(format=L16))
        assert (await _closed(new)).code == 1003
        await old.send(_media(1))
        await old.close()
        session = await _one(engine)
    assert session.audio == {"inbound": _frame(0) + _frame(1)}
    assert engine.counts == {"changed-format": 1}


class _Slow(RecordingEngine):
    """An engine whose sessions take until ``finish`` to end."""

    def __init__(self) -> None:
        super().__init__()
        self.finish = anyio.Event()
        self.finishing = anyio.Event()

    @asynccontextmanager
    async def open(self, stream: Stream) -> AsyncIterator[RecordedSession]:
        async with super().open(stream) as session:
            yield session
            self.finishing.set()
            await self.finish.wait()


async def test_a_socket_after_the_end_is_no_call() -> None:
    """A carrier that connects once more after stop, while the session finishes, is sent away."""
    async with _serving(_Slow()) as (engine, url):
        assert isinstance(engine, _Slow)
        await _call(url, _start(), _media(0), envelope.build_stop("stream"))
        await engine.finishing.wait()
        async with websocket.connect(url) as socket:
            await socket.send(_start(stream="phantom"))
            assert (await _closed(socket)).reason == "the call has ended"
        engine.finish.set()
        await engine.ended()
    assert engine.counts == {"start-after-stop": 1}
    assert len(engine.sessions) == 1


async def test_a_late_reconnect_is_a_session_of_its_own() -> None:
    """Who comes back too late to continue, while the session finishes, is carried all the same."""
    async with _serving(_Slow()) as (engine, url):
        assert isinstance(engine, _Slow)
        await _call(url, _start(), _media(0))
        await engine.finishing.wait()
        async with websocket.connect(url) as socket:
            await socket.send(_start(stream="late"))
            await socket.send(_media(9))
            await engine.until(lambda: len(engine.sessions) == 2 and bool(engine.sessions[1].audio))
            engine.finish.set()
        await engine.ended(2)
    assert [session.stream.id for session in engine.sessions] == ["call", "call.2"]
    assert [session.stream.metadata["call_id"] for session in engine.sessions] == ["call", "call"]


# --- What arrives damaged


async def test_text_that_is_no_message_is_counted() -> None:
    """Frames that are no JSON, events that nobody knows: counted, survived, before and after start."""
    junk: list[str | bytes] = ["hello", b"\x00\xff", "[]", "{}", '{"event":"weather"}', '{"event":"connected"}']
    async with _serving() as (engine, url):
        await _call(url, *junk, _start(), *junk, _media(0))
        session = await _one(engine)
    assert session.audio == {"inbound": _frame(0)}
    assert engine.counts == {"not-json": 4, "not-an-object": 2, "no-event": 2, "unknown-event": 2}


async def test_audio_that_cannot_be_read_is_silence() -> None:
    """A payload that is not base64 leaves silence of a frame's length in its place, on record."""
    bad = json.loads(_media(1))
    bad["media"]["payload"] = "???"
    async with _serving() as (engine, url):
        await _call(url, _start(), _media(0), json.dumps(bad), _media(2))
        session = await _one(engine)
    assert session.audio == {"inbound": _frame(0) + MULAW.silence(160) + _frame(2)}
    assert session.concealed == [("inbound", 160, 160, "bad-base64")]
    assert engine.counts == {"bad-base64": 1}


async def test_half_a_sample_is_silence() -> None:
    """L16 with an odd number of bytes would shift all that follows: silence stands in its place."""
    async with _serving(byte_order="little") as (engine, url):
        whole = [_media(n, _frame(n, 320)) for n in (0, 2)]
        await _call(url, _start(format=L16), whole[0], _media(1, _frame(1, 319)), whole[1])
        session = await _one(engine)
    assert session.audio == {"inbound": _frame(0, 320) + L16.silence(160) + _frame(2, 320)}
    assert session.concealed == [("inbound", 160, 160, "odd-bytes")]
    assert engine.counts == {"odd-bytes": 1}


async def test_losses_and_repeats_are_booked() -> None:
    """Frames that are missing become silence, frames that come twice are dropped, both on record."""
    async with _serving() as (engine, url):
        await _call(url, _start(), _media(0), _media(3), _media(3), _media(4))
        session = await _one(engine)
    assert session.audio == {"inbound": _frame(0) + MULAW.silence(320) + _frame(3) + _frame(4)}
    assert session.concealed == [("inbound", 160, 320, "gap")]
    assert session.dropped == [("inbound", 160, "duplicate")]
    assert engine.counts == {"gap": 1, "duplicate": 1}


async def test_a_huge_frame_ends_its_call_and_no_other() -> None:
    """A message of 10 MiB closes its connection with 1009; its session keeps its audio and others go on."""
    async with _serving() as (engine, url), websocket.connect(url) as good, websocket.connect(url) as bad:
        await good.send(_start("good"))
        await bad.send(_start("bad"))
        await bad.send(_media(0))
        with suppress(Closed):
            await bad.send("x" * (10 << 20))
        assert (await bad.wait_closed()).code == 1009
        (session,) = await engine.ended()
        await good.send(_media(0))
        await good.close()
        await engine.ended(2)
    assert session.stream.id == "bad"
    assert all(session.audio == {"inbound": _frame(0)} for session in engine.sessions)


async def test_media_without_audio_is_told_loudly(caplog: pytest.LogCaptureFixture) -> None:
    """Fifty media messages in a row without audio are logged once, by their shape and not their content."""
    empty = json.dumps({"event": "media", "media": "c2VjcmV0"})
    async with _serving() as (engine, url):
        await _call(url, _start(), *[empty] * 120)
        await engine.ended()
    assert engine.counts["no-audio"] == 1
    assert engine.counts["no-payload"] == 120
    assert caplog.text.count("without audio") == 1
    assert "'media': 8 characters" in caplog.text
    assert "c2VjcmV0" not in caplog.text


async def test_logs_hold_no_numbers(caplog: pytest.LogCaptureFixture) -> None:
    """Even at debug, a log tells the call id and the shape of messages, no telephone number and no secret."""
    caplog.set_level(logging.DEBUG)
    start = envelope.build_start(
        "call-7", "stream", "account", MULAW, ("inbound",), {"from": "+491234", "to": "+495678"}, "flat"
    )
    async with _serving(secret=Secret("s3cr3t")) as (engine, url):
        await _call(f"{url}/s3cr3t", start, _media(0))
        await engine.ended()
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("mediaflow"))
    assert "call-7" in ours
    assert "messages look like" in ours
    assert not any(word in ours for word in ("491234", "495678", "s3cr3t"))


# --- The rest of the wire


async def test_keys_are_events_in_their_place() -> None:
    """A pressed key is an event at the time of the audio before it."""
    async with _serving() as (engine, url):
        await _call(url, _start(), _media(0), envelope.build_dtmf("stream", 1, "5", "inbound"), _media(1))
        session = await _one(engine)
    assert session.events == [Dtmf("inbound", 0.02, "5")]


async def test_a_full_sink_holds_the_carrier_up() -> None:
    """While the sinks have no room, nothing more is read; the carrier's silence meanwhile is not counted as idle."""

    class Full(RecordedSession):
        def push(self, data: bytes, track: str = "inbound") -> bool:
            super().push(data, track)
            return False

        async def ready(self) -> None:
            waiting.set()
            await room.wait()

    waiting, room = anyio.Event(), anyio.Event()
    async with _serving(idle_s=0.05, reconnect_s=0.0) as (engine, url), websocket.connect(url) as socket:
        _replace_sessions(engine, Full)
        await socket.send(_start())
        await socket.send(_media(0))
        await waiting.wait()
        await socket.send(_media(1))
        with anyio.move_on_after(0.2):
            await engine.ended()
        assert not engine.sessions[0].ended
        assert engine.sessions[0].audio == {"inbound": _frame(0)}
        room.set()
        await socket.close()
        session = await _one(engine)
    assert session.audio == {"inbound": _frame(0) + _frame(1)}


def _speech(samples: int, level: float = 8000.0) -> bytes:
    """A smooth sound, as speech is."""
    values = (round(level * math.sin(k / 9) * math.sin(k / 400)) for k in range(samples))
    return struct.pack(f"<{samples}h", *values)


def _frames(pcm: bytes, first: int = 0) -> list[str]:
    return [_media(first + n, pcm[n * 320 : n * 320 + 320]) for n in range(len(pcm) // 320)]


@pytest.mark.parametrize("order", ["little", "big"])
async def test_the_byte_order_is_found(order: str) -> None:
    """L16 of either order arrives as little-endian, from its first sample on, silence and keys in their places."""
    pcm = bytes(3200) + _speech(8000)
    wire = dsp.swap_bytes(pcm) if order == "big" else pcm
    frames = _frames(wire)
    frames.insert(12, envelope.build_dtmf("stream", 1, "5", "inbound"))  # while audio is held back
    async with _serving() as (engine, url):
        await _call(url, _start(format=L16), *frames)
        session = await _one(engine)
    assert session.audio == {"inbound": pcm}
    assert session.events == [Dtmf("inbound", 0.24, "5")]
    assert engine.counts == {f"byte-order-{order}": 1}


@pytest.mark.parametrize("order", ["little", "big"])
async def test_a_quiet_line_is_read_the_quiet_way(order: str) -> None:
    """Line noise shows no order by its shape; the quieter reading is assumed until speech makes it certain."""
    noise = struct.pack("<8000h", *((k * 7919 % 41) - 20 for k in range(8000)))
    pcm = noise + _speech(8000)
    wire = dsp.swap_bytes(pcm) if order == "big" else pcm
    async with _serving() as (engine, url):
        await _call(url, _start(format=L16), *_frames(wire))
        session = await _one(engine)
    assert session.audio == {"inbound": pcm}
    assert engine.counts == {f"byte-order-assumed-{order}": 1, f"byte-order-{order}": 1}


async def test_a_wrong_assumption_is_corrected() -> None:
    """Where the first half second misleads, speech puts it right from then on."""
    noise = struct.pack("<4000h", *((k * 7919 % 65536) - 32768 for k in range(4000)))
    speech = _speech(16000)
    async with _serving() as (engine, url):
        await _call(url, _start(format=L16), *_frames(noise + dsp.swap_bytes(speech)))
        session = await _one(engine)
    assert engine.counts == {"byte-order-assumed-little": 1, "byte-order-big": 1}
    assert bytes(session.audio["inbound"][-30000:]) == speech[-30000:]


async def test_a_call_too_short_to_tell_loses_nothing() -> None:
    """Audio that is still held back when the call ends goes out as little-endian."""
    pcm = _speech(320)[:600]
    async with _serving() as (engine, url):
        await _call(url, _start(format=L16), _media(0, pcm[:100]), _media(1, pcm[100:200]))
        session = await _one(engine)
    assert session.audio["inbound"].startswith(pcm[:100])
    assert session.audio["inbound"].endswith(pcm[100:200])


async def test_silence_decides_nothing_and_waits_for_nothing() -> None:
    """Digital silence is the same in both orders: it is passed on at once and no order is told."""
    async with _serving() as (engine, url), websocket.connect(url) as socket:
        await socket.send(_start(format=L16))
        for text in _frames(bytes(3200)):
            await socket.send(text)
        await engine.until(lambda: bool(engine.sessions) and len(engine.sessions[0].audio.get("inbound", b"")) == 3200)
    assert not engine.counts


# --- Who may come in


async def _get(url: str, path: str) -> bytes:
    """Return what a plain HTTP request is answered."""
    address = websocket.Address.parse(url)
    async with await anyio.connect_tcp(address.host, address.port) as stream:
        await stream.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        try:
            while True:
                answer += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return answer


@pytest.mark.parametrize("path", ["", "/", "/wrong", "/s3cr3", "/s3cr3t/more", "/S3CR3T", "?token=s3cr3t"])
async def test_a_wrong_secret_is_refused(path: str) -> None:
    """Without the right secret at the end of the path the answer is 403, before any WebSocket, and counted."""
    async with _serving(secret=Secret("s3cr3t")) as (engine, url):
        with pytest.raises(Refused) as caught:
            await _call(url + path, _start())
    assert caught.value.status == 403
    assert engine.counts == {"refused-token": 1}


@pytest.mark.parametrize("path", ["/s3cr%C3%A9t", "/s3crét?template_id=1&to=2"])
async def test_the_right_secret_comes_in(path: str) -> None:
    """The secret opens the door, also percent-encoded, and a query behind it does no harm."""
    async with _serving(secret=Secret("s3crét")) as (engine, url):
        await _call(url + path.replace("é", "%C3%A9"), _start(), _media(0))
        await engine.ended()
    assert not engine.counts


@pytest.mark.parametrize("path", ["/other", "/vobizz", "/", "/vobiz/something"])
async def test_another_path_is_not_found(path: str) -> None:
    """What is not the listen path is 404."""
    async with _serving() as (engine, url):
        with pytest.raises(Refused) as caught:
            await _call(url.removesuffix("/vobiz") + path, _start())
    assert caught.value.status == 404
    assert not engine.counts


async def test_health() -> None:
    """GET /healthz says that the source is up, and how many calls are."""
    async with _serving(secret=Secret("s3cr3t")) as (engine, url):
        assert b'{"status":"ok","calls":0}' in await _get(url, "/healthz")
        async with websocket.connect(f"{url}/s3cr3t") as socket:
            await socket.send(_start())
            await engine.until(lambda: bool(engine.sessions))
            answer = await _get(url, "/healthz?probe=1")
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"application/json" in answer
    assert answer.endswith(b'{"status":"ok","calls":1}')


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def files(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Files with a certificate for 127.0.0.1 and its key."""
    folder = tmp_path_factory.mktemp("tls")
    pair = authority.issue_cert("127.0.0.1")
    pair.private_key_pem.write_to_path(str(folder / "key.pem"))
    for blob in pair.cert_chain_pems:
        blob.write_to_path(str(folder / "certificate.pem"), append=True)
    return {"certificate": str(folder / "certificate.pem"), "key": str(folder / "key.pem")}


async def test_wss(authority: trustme.CA, files: dict[str, Any]) -> None:
    """With a certificate and its key the source speaks TLS."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with _serving(listen="wss://127.0.0.1:0/vobiz", **files) as (engine, url):
        assert url.startswith("wss://127.0.0.1:")
        async with websocket.connect(url, tls=context) as socket:
            await socket.send(_start())
            await socket.send(_media(0))
        session = await _one(engine)
    assert session.audio == {"inbound": _frame(0)}


@pytest.mark.parametrize("wrong", ["certificate", "key"])
async def test_a_certificate_that_is_not_there(files: dict[str, Any], wrong: str) -> None:
    """A wrong path of a certificate or key ends the source with an error that names it."""
    source = Vobiz(listen="wss://127.0.0.1:0/vobiz", **files | {wrong: "/nowhere.pem"})
    with pytest.raises(SourceError, match=r"/nowhere\.pem"):
        await source.serve(RecordingEngine())


async def test_a_taken_port_is_told() -> None:
    """A port that somebody else listens on ends the source with an error that names it."""
    async with _serving() as (_, url):
        port = websocket.Address.parse(url).port
        with pytest.raises(SourceError, match=f"127.0.0.1:{port}"):
            await Vobiz(listen=url).serve(RecordingEngine())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"listen": "http://127.0.0.1:8080/vobiz"}, "ws"),
        ({"listen": "ws://127.0.0.1/vobiz"}, "port"),
        ({"listen": "ws://0.0.0.0:8080/vobiz"}, "secret"),
        ({"listen": "ws://0.0.0.0:8080/vobiz", "secret": Secret("")}, "secret"),
        ({"listen": "wss://127.0.0.1:8080/vobiz", "certificate": "c.pem"}, "both certificate and key"),
        ({"certificate": "c.pem", "key": "k.pem"}, "wss"),
    ],
)
async def test_options_that_contradict_each_other(options: dict[str, Any], words: str) -> None:
    """Options that cannot work together are refused with the reason."""
    with pytest.raises(ValueError, match=words):
        Vobiz(**options).check()


async def test_formats_are_known_beforehand() -> None:
    """What may come is known before it does: µ-law and L16, one side or both."""
    formats = list(Vobiz().formats())
    assert len(formats) == 9
    assert (MULAW, BOTH) in formats
    assert (AudioFormat("s16le", 16000), ("outbound",)) in formats


# --- A peer that is not ours


async def test_a_stock_client_plays_the_carrier() -> None:
    """A program that knows nothing of mediaflow, on the websockets library alone, is carried to the last byte."""
    async with _serving(secret=Secret("s3cr3t")) as (engine, url):
        await anyio.run_process([sys.executable, str(PEERS / "vobiz_carrier.py"), f"{url}/s3cr3t"])
        session = await _one(engine)
    assert session.stream.id == "CALL_1"
    assert session.stream.tracks == BOTH
    assert session.audio == {
        "inbound": b"".join(bytes([n]) * 160 for n in range(50)),
        "outbound": b"".join(bytes([100 + n]) * 160 for n in range(50)),
    }
    assert not session.concealed and not session.dropped
