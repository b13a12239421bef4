"""The source of calls from the sister wires, over real sockets."""

from __future__ import annotations

import json
import logging
import sys
import warnings
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from mediaflow import AudioFormat, Dtmf, WireAlarm, config, dsp, envelope, intake, plugins, websocket
from mediaflow.dialects import DIALECTS, TELNYX, Name
from mediaflow.lab import CLIP
from mediaflow.runner import Runner
from mediaflow.testing import RecordedSession, RecordingEngine
from mediaflow_plugins.source_media_streams import MediaStreams

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

pytestmark = pytest.mark.anyio

MULAW, ALAW, L16 = AudioFormat("mulaw", 8000), AudioFormat("alaw", 8000), AudioFormat("s16le", 8000)
PEER = Path(__file__).parents[1] / "peers" / "media_streams_carrier.py"
ENCODINGS: dict[str, tuple[str, AudioFormat]] = {
    "twilio": ("audio/x-mulaw", MULAW),
    "plivo": ("audio/x-l16", L16),
    "vobiz": ("audio/x-mulaw", MULAW),
    "telnyx": ("PCMA", ALAW),
    "exotel": ("base64", L16),
}


def _clip(seconds: float = 6.0) -> tuple[bytes, bytes]:
    """Return both sides of the beginning of the lab's consultation."""
    with wave.open(str(CLIP)) as file:
        stereo = file.readframes(int(seconds * 8000))
    return audioop.tomono(stereo, 2, 1, 0), audioop.tomono(stereo, 2, 0, 1)


def _encoded(pcm: bytes, format: AudioFormat) -> bytes:
    if format.encoding == "mulaw":
        return audioop.lin2ulaw(pcm, 2)
    return audioop.lin2alaw(pcm, 2) if format.encoding == "alaw" else pcm


@asynccontextmanager
async def _serving(**options: Any) -> AsyncIterator[tuple[RecordingEngine, str]]:
    """Run the source on a free port; yield the engine and the URL."""
    defaults: dict[str, Any] = {"listen": "ws://127.0.0.1:0/media", "reconnect_s": 0.0}
    source = MediaStreams(**defaults | options)
    source.check()
    engine = RecordingEngine()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(source.serve, engine)
            yield engine, await engine.url()
            tasks.cancel_scope.cancel()


async def _call(url: str, *messages: dict[str, Any]) -> None:
    async with websocket.connect(url) as socket:
        for message in messages:
            await socket.send(json.dumps(message))


async def _one(engine: RecordingEngine) -> RecordedSession:
    (session,) = await engine.ended()
    return session


def _start(encoding: str = "PCMU", rate: int = 8000, **fields: Any) -> dict[str, Any]:
    """Return Telnyx's start."""
    media_format = {"encoding": encoding, "sample_rate": rate, "channels": 1}
    start = {"user_id": "u", "call_control_id": "call", "media_format": media_format, **fields}
    return {"event": "start", "stream_id": "s", "start": start}


def _media(chunk: int, data: bytes, track: str = "inbound", ms: int = 20) -> dict[str, Any]:
    payload = json.loads(envelope.build_eka_media(data))["media"]["payload"]
    stamp = str(ms * (chunk - 1))
    return {"event": "media", "media": {"track": track, "chunk": str(chunk), "timestamp": stamp, "payload": payload}}


def _frame(number: int) -> bytes:
    return bytes((number * 7 + k) % 251 for k in range(160))


# --- A carrier that is not ours


@pytest.mark.parametrize("configured", [True, False])
@pytest.mark.parametrize("name", DIALECTS)
async def test_a_stock_client_plays_every_carrier(name: Name, configured: bool, tmp_path: Path) -> None:
    """A program that knows nothing of mediaflow is carried to the last byte, whichever carrier it plays."""
    encoding, format = ENCODINGS[name]
    audio = _encoded(_clip()[0], format)
    (tmp_path / "audio").write_bytes(audio)
    async with _serving(dialect=name if configured else "auto") as (engine, url):
        await anyio.run_process([sys.executable, str(PEER), url, name, encoding, str(tmp_path / "audio")])
        session = await _one(engine)
    assert session.stream.id == "CALL_1"
    assert session.stream.format == format
    assert session.stream.tracks == (("inbound", "outbound") if name == "telnyx" else ("inbound",))
    assert session.audio == {"inbound": audio}
    assert session.stream.metadata.get("custom_visit") == (None if name == "vobiz" else "42")
    assert not session.concealed and not session.dropped and not session.events
    assert set(engine.counts) <= {"byte-order-little", "byte-order-assumed-little"}


PIPELINE = """
source:
  use: media_streams
  listen: ws://127.0.0.1:0/media
transforms:
  - use: mulaw_decode
  - use: alaw_decode
  - use: mix
  - use: resample
    rate: 16000
sinks:
  - use: disk
    path: {folder}/{{call_id}}-{{custom_visit}}.wav
state: {folder}
"""


async def test_alaw_from_end_to_end(tmp_path: Path) -> None:
    """A call in A-law goes through a whole pipeline to a file that sounds like what was said."""
    pcm = _clip()[0]
    (tmp_path / "audio").write_bytes(audioop.lin2alaw(pcm, 2))
    (tmp_path / "pipeline.yaml").write_text(PIPELINE.format(folder=tmp_path))
    installed = plugins.load()
    runner = Runner(config.load(str(tmp_path / "pipeline.yaml"), installed, {}), installed)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.run)
            await runner.up.wait()
            await anyio.run_process([sys.executable, str(PEER), runner.url, "telnyx", "PCMA", str(tmp_path / "audio")])
            await runner.over(1)
            runner.stop()
    (account,) = runner.accounts
    assert account["status"] == "complete"
    with wave.open(str(tmp_path / "CALL_1-42.wav")) as file:
        stored = file.readframes(file.getnframes())
    half, _ = audioop.ratecv(stored, 2, 1, 16_000, 8000, None)
    wanted = audioop.alaw2lin(audioop.lin2alaw(pcm, 2), 2)
    start = 5 * 8000 * 2  # in the middle of a turn
    _, factor = audioop.findfit(half[start - 400 : start + 16_000], wanted[start : start + 8000])
    assert factor == pytest.approx(1.0, abs=0.1)


# --- What the dialects do differently


async def test_frames_that_overtake_each_other_are_sorted() -> None:
    """Telnyx's frames come out in order, each once, also those that wait when the call ends."""
    chunks = [2, 1, 4, 5, 3, 6, 8, 9]
    async with _serving() as (engine, url):
        await _call(url, _start(), *[_media(chunk, _frame(chunk)) for chunk in chunks])
        session = await _one(engine)
    gone = MULAW.silence(160)
    assert session.audio == {"inbound": b"".join(map(_frame, range(1, 7))) + gone + _frame(8) + _frame(9)}
    assert session.concealed == [("inbound", 960, 160, "gap")]
    assert engine.counts == {"gap": 1}


async def test_a_frame_that_comes_too_late_is_booked() -> None:
    """What comes when its place has gone by is dropped on record, and its place is silence on record."""
    chunks = [1, *range(3, 3 + TELNYX.reorder + 1), 2, 9]
    async with _serving() as (engine, url):
        await _call(url, _start(), *[_media(chunk, _frame(chunk)) for chunk in chunks])
        session = await _one(engine)
    later = b"".join(map(_frame, range(3, 10)))
    assert session.audio == {"inbound": _frame(1) + MULAW.silence(160) + later}
    assert session.dropped == [("inbound", 160, "duplicate")]


async def test_unreadable_frames_are_sorted_too() -> None:
    """The place of a frame whose payload is not base64 is kept in order."""
    broken = _media(3, b"")
    broken["media"]["payload"] = "?"
    async with _serving() as (engine, url):
        await _call(url, _start(), _media(1, _frame(1)), broken, _media(2, _frame(2)), _media(4, _frame(4)))
        session = await _one(engine)
    assert session.audio == {"inbound": _frame(1) + _frame(2) + MULAW.silence(160) + _frame(4)}
    assert session.concealed == [("inbound", 320, 160, "bad-base64")]


@pytest.mark.parametrize(("seconds", "missing"), [(0.0, 0), (2.5, 19840)])
async def test_a_clock_of_the_stream_begins_anew_with_a_socket(
    monkeypatch: pytest.MonkeyPatch, seconds: float, missing: int
) -> None:
    """The audio of a second socket is no repeat, and what our clock says was missed before it is concealed."""
    now = [1000.0]
    monkeypatch.setattr(intake, "monotonic", lambda: now[0])
    first = [_media(n, _frame(n)) for n in range(1, 4)]
    second = [_media(n, _frame(10 + n)) for n in range(1, 4)]
    stop = {"event": "stop", "stop": {"call_control_id": "call"}}
    async with _serving(reconnect_s=10.0) as (engine, url):
        await _call(url, _start(), *first)
        await engine.until(lambda: bool(engine.sessions) and len(engine.sessions[0].audio.get("inbound", b"")) == 480)
        now[0] += seconds
        await _call(url, _start(), *second, stop)
        session = await _one(engine)
    before, after = (b"".join(_frame(n) for n in numbers) for numbers in ((1, 2, 3), (11, 12, 13)))
    assert session.audio == {"inbound": before + MULAW.silence(missing) + after}
    assert session.concealed == ([("inbound", 480, missing, "reconnect")] if missing else [])
    assert not session.dropped
    assert engine.counts == {"reconnected": 1} | ({"reconnect": 1} if missing else {})


async def test_media_before_start_waits_for_the_dialect() -> None:
    """What comes before start is kept until start has told whose it is, and nothing has to follow start."""
    async with _serving() as (engine, url):
        await _call(url, _media(1, _frame(1)), {"event": "connected"}, _start())
        session = await _one(engine)
    assert session.audio == {"inbound": _frame(1)}


async def test_keys_and_errors(caplog: pytest.LogCaptureFixture) -> None:
    """A key is an event in its place; an error of the carrier is counted, and logged by its number only."""
    error = {"event": "error", "payload": {"code": 100003, "title": "malformed", "detail": "+4912345"}}
    key = {"event": "dtmf", "dtmf": {"digit": "5"}}
    mark = {"event": "mark", "mark": {"name": "m"}}
    async with _serving() as (engine, url):
        await _call(url, _start(), _media(1, _frame(1)), key, error, mark, _media(2, _frame(2)))
        session = await _one(engine)
    assert session.events == [Dtmf("inbound", 0.02, "5")]
    assert engine.counts == {"carrier-error": 1}
    assert "100003" in caplog.text
    assert "4912345" not in caplog.text


async def test_what_was_given_along_is_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Custom parameters reach the stream's metadata and no log, even at debug."""
    caplog.set_level(logging.DEBUG)
    async with _serving() as (engine, url):
        await _call(url, _start(custom_parameters={"patient": "Asha"}, client_state="c2VjcmV0"), _media(1, _frame(1)))
        session = await _one(engine)
    assert session.stream.metadata["custom_patient"] == "Asha"
    assert session.stream.metadata["custom_client_state"] == "c2VjcmV0"
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("mediaflow"))
    assert not any(word in ours for word in ("Asha", "c2VjcmV0"))


async def test_a_codec_that_nothing_decodes_closes(caplog: pytest.LogCaptureFixture) -> None:
    """A call in OPUS is refused with 1003, and the log says what to ask for."""
    async with _serving() as (engine, url), websocket.connect(url) as socket:
        await socket.send(json.dumps(_start("OPUS", 16_000)))
        closed = await socket.wait_closed()
    assert (closed.code, closed.reason) == (1003, "unknown-encoding")
    assert engine.counts == {"unknown-encoding": 1}
    assert "set stream_codec to PCMU, PCMA or L16" in caplog.text


async def test_another_carrier_than_the_configured_is_refused() -> None:
    """With one carrier configured, the start of another is not a call."""
    async with _serving(dialect="twilio") as (engine, url), websocket.connect(url) as socket:
        await socket.send(json.dumps(_start()))
        assert (await socket.wait_closed()).reason == "no-call-id"
    assert engine.counts == {"no-call-id": 1}


@pytest.mark.parametrize(
    ("dialect", "number"), [("twilio", 3), ("vobiz", 9), ("telnyx", 12), ("exotel", 3), ("auto", 13)]
)
async def test_formats_are_known_beforehand(dialect: Any, number: int) -> None:
    """What may come is known before it does: one carrier's formats, or those of all."""
    formats = list(MediaStreams(dialect=dialect).formats())
    assert len(formats) == len(set(formats)) == number


# --- Wire truth, in a call


def _frames(data: bytes, size: int, track: str = "inbound", ms: int = 20) -> list[dict[str, Any]]:
    return [_media(n + 1, data[n * size : (n + 1) * size], track, ms) for n in range(len(data) // size)]


async def test_a_wrong_codec_is_told_in_its_place(caplog: pytest.LogCaptureFixture) -> None:
    """A-law that is announced as µ-law is carried as it is, and told: counted, logged, and an event in the stream."""
    audio = _encoded(_clip(8.0)[0], ALAW)
    async with _serving() as (engine, url):
        await _call(url, _start("PCMU"), *_frames(audio, 160))
        session = await _one(engine)
    assert session.audio == {"inbound": audio}
    assert engine.counts == {"sounds-like-alaw": 1}
    (alarm,) = session.events
    assert isinstance(alarm, WireAlarm)
    assert alarm.finding == "sounds-like-alaw"
    assert 4.7 < alarm.time < 6.0  # the patient says the first word at 4.7 s
    assert "announced as mulaw, but sounds like alaw" in caplog.text


async def test_a_wrong_rate_is_told() -> None:
    """16-bit audio at 8 kHz that is announced at 16 kHz is told by the carrier's own clock."""
    pcm = _clip(3.0)[1]
    async with _serving(byte_order="little") as (engine, url):
        await _call(url, _start("L16", 16_000), *_frames(pcm, 320))
        session = await _one(engine)
    assert engine.counts["rate-is-8000"] == 1
    assert [event.finding for event in session.events if isinstance(event, WireAlarm)] == ["rate-is-8000"]


async def test_doubled_tracks_are_told() -> None:
    """One side of the call on both tracks is told once."""
    audio = _encoded(_clip(3.0)[1], MULAW)
    pairs = zip(_frames(audio, 160), _frames(audio, 160, "outbound"), strict=True)
    async with _serving() as (engine, url):
        await _call(url, _start(), *[message for pair in pairs for message in pair])
        await _one(engine)
    assert engine.counts == {"tracks-identical": 1}


async def test_big_endian_audio_is_turned_and_no_alarm() -> None:
    """The byte order is corrected, so it is no alarm."""
    pcm = _clip()[0]
    async with _serving() as (engine, url):
        await _call(url, _start("L16"), *_frames(dsp.swap_bytes(pcm), 320))
        session = await _one(engine)
    assert session.audio == {"inbound": pcm}
    assert engine.counts.keys() <= {"byte-order-big", "byte-order-assumed-big"}
    assert not session.events
