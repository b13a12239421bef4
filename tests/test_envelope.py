"""Media Streams messages, read and written."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from mediaflow import AudioFormat, WireError, envelope
from mediaflow.dialects import DIALECTS
from mediaflow.envelope import (
    Checkpoint,
    ClearAudio,
    Cleared,
    Connected,
    Dtmf,
    EkaStart,
    Media,
    MediaError,
    Message,
    PlayAudio,
    Played,
    Start,
    Stop,
    Trouble,
    Unknown,
    parse,
    parse_eka,
)

MULAW, L16, WIDE = AudioFormat("mulaw", 8000), AudioFormat("s16le", 8000), AudioFormat("s16le", 16000)
AUDIO = bytes(range(160))
B64 = base64.b64encode(AUDIO).decode()
BOTH = ("inbound", "outbound")

# (what is built, the JSON it must be, the event it must be read as)
GOLDEN: list[tuple[str, dict[str, Any], Message]] = [
    (
        envelope.build_start("call", "stream", "1", WIDE, ("inbound",)),
        {
            "sequenceNumber": 0,
            "event": "start",
            "start": {
                "callId": "call",
                "streamId": "stream",
                "accountId": "1",
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-l16", "sampleRate": 16000},
            },
            "extra_headers": "{}",
        },
        Start("call", "stream", "1", WIDE, ("inbound",), {}),
    ),
    (
        envelope.build_start(
            "call",
            "stream",
            "MA_1",
            L16,
            ("inbound",),
            {"from": "+10", "to": "+20", "direction": "inbound", "other": "x"},
            "flat",
        ),
        {
            "event": "start",
            "streamId": "stream",
            "accountId": "MA_1",
            "callId": "call",
            "from": "+10",
            "to": "+20",
            "direction": "inbound",
            "contentType": "audio/x-l16;rate=8000",
            "audioTrack": "inbound",
        },
        Start("call", "stream", "MA_1", L16, ("inbound",), {"from": "+10", "to": "+20", "direction": "inbound"}),
    ),
    (
        envelope.build_start("call", "stream", "MA_1", MULAW, BOTH, shape="flat"),
        {
            "event": "start",
            "streamId": "stream",
            "accountId": "MA_1",
            "callId": "call",
            "contentType": "audio/x-mulaw;rate=8000",
            "audioTrack": "both",
        },
        Start("call", "stream", "MA_1", MULAW, BOTH, {}),
    ),
    (
        envelope.build_media("stream", 2, "outbound", 3, 1778597597091, AUDIO),
        {
            "sequenceNumber": 2,
            "streamId": "stream",
            "event": "media",
            "media": {"track": "outbound", "timestamp": "1778597597091", "chunk": 3, "payload": B64},
            "extra_headers": "{}",
        },
        Media(AUDIO, "outbound", 3, 1778597597091),
    ),
    (
        envelope.build_flat_media("stream", MULAW, 1634567890123, AUDIO, "outbound"),
        {
            "event": "media",
            "streamId": "stream",
            "media": {
                "contentType": "audio/x-mulaw",
                "sampleRate": 8000,
                "payload": B64,
                "timestamp": 1634567890123,
                "track": "outbound",
            },
        },
        Media(AUDIO, "outbound", None, 1634567890123),
    ),
    (
        envelope.build_flat_media("stream", L16, 1634567890123, AUDIO),
        {
            "event": "media",
            "streamId": "stream",
            "media": {
                "contentType": "audio/x-l16",
                "sampleRate": 8000,
                "payload": B64,
                "timestamp": 1634567890123,
            },
        },
        Media(AUDIO, None, None, 1634567890123),
    ),
    (
        envelope.build_stop("stream", "call_ended"),
        {"event": "stop", "streamId": "stream", "reason": "call_ended"},
        Stop("call_ended"),
    ),
    (envelope.build_stop("stream"), {"event": "stop", "streamId": "stream"}, Stop("")),
    (
        envelope.build_dtmf("stream", 7, "5", "inbound"),
        {
            "event": "dtmf",
            "sequenceNumber": 7,
            "streamId": "stream",
            "dtmf": {"digit": "5", "track": "inbound"},
            "extra_headers": "{}",
        },
        Dtmf("5", "inbound"),
    ),
    (
        envelope.build_played("stream", "greeting"),
        {"event": "playedStream", "streamId": "stream", "name": "greeting"},
        Played("greeting"),
    ),
    (envelope.build_cleared("stream"), {"event": "clearedAudio", "streamId": "stream"}, Cleared()),
    (
        envelope.build_play_audio("stream", MULAW, AUDIO),
        {
            "event": "playAudio",
            "streamId": "stream",
            "media": {"contentType": "audio/x-mulaw", "sampleRate": 8000, "payload": B64},
        },
        PlayAudio("stream", AUDIO, MULAW),
    ),
    (
        envelope.build_checkpoint("stream", "greeting"),
        {"event": "checkpoint", "streamId": "stream", "name": "greeting"},
        Checkpoint("stream", "greeting"),
    ),
    (envelope.build_clear_audio("stream"), {"event": "clearAudio", "streamId": "stream"}, ClearAudio("stream")),
]

GOLDEN_EKA: list[tuple[str, dict[str, Any], Message]] = [
    (
        envelope.build_eka_start(16000, "str_1"),
        {
            "event": "start",
            "start": {"streamId": "str_1", "mediaFormat": {"encoding": "audio/x-l16", "sampleRate": 16000}},
        },
        EkaStart("str_1", "audio/x-l16", 16000),
    ),
    (
        envelope.build_eka_start(8000),
        {"event": "start", "start": {"mediaFormat": {"encoding": "audio/x-l16", "sampleRate": 8000}}},
        EkaStart("", "audio/x-l16", 8000),
    ),
    (envelope.build_eka_media(AUDIO), {"event": "media", "media": {"payload": B64}}, Media(AUDIO)),
    (envelope.build_eka_stop(), {"event": "stop"}, Stop("")),
    (envelope.build_eka_stop("done"), {"event": "stop", "reason": "done"}, Stop("done")),
]


@pytest.mark.parametrize(("text", "wire", "event"), GOLDEN)
def test_carrier_wire(text: str, wire: dict[str, Any], event: Message) -> None:
    """Every message of the carrier's wire is written as its table says and read back as what it means."""
    assert json.loads(text) == wire
    assert parse(text) == event
    assert parse(json.dumps(wire).encode()) == event


@pytest.mark.parametrize(("text", "wire", "event"), GOLDEN_EKA)
def test_eka_wire(text: str, wire: dict[str, Any], event: Message) -> None:
    """Every message of EkaScribe's wire is written as its table says and read back as what it means."""
    assert json.loads(text) == wire
    assert parse_eka(text) == event


def _start(**media_format: object) -> dict[str, Any]:
    return {"event": "start", "start": {"callId": "call", "mediaFormat": media_format}}


@pytest.mark.parametrize(
    ("wire", "event"),
    [
        # snake_case throughout, and numbers as strings
        (
            {
                "event": "start",
                "stream_id": "stream",
                "start": {
                    "call_id": "call",
                    "account_id": 500,
                    "tracks": "both",
                    "media_format": {"encoding": "audio/x-l16", "sample_rate": "8000", "channels": "1"},
                },
            },
            Start("call", "stream", "500", L16, BOTH, {}),
        ),
        # extra_headers as an object, tracks in another order, one of them unheard of
        (
            {
                "event": "start",
                "extra_headers": {"a": "b"},
                "start": {
                    "callId": "call",
                    "tracks": ["outbound", "inbound", "music"],
                    "mediaFormat": {"encoding": "PCMU"},
                },
            },
            Start("call", "", "", MULAW, BOTH, {}),
        ),
        # the nested value goes before the flat one
        (
            {"event": "start", "callId": "old", "contentType": "audio/x-l16;rate=16000", "start": {"callId": "new"}},
            Start("new", "", "", WIDE, None, {}),
        ),
        ({"event": "media", "media": {"payload": B64, "chunk": "7", "timestamp": "20"}}, Media(AUDIO, None, 7, 20)),
        ({"event": "media", "media": {"payload": B64, "chunk": 7.0, "timestamp": 20.5}}, Media(AUDIO, None, 7, 20)),
        ({"event": "media", "media": {"payload": B64, "chunk": "x", "timestamp": []}}, Media(AUDIO)),
        ({"event": "media", "media": {"payload": B64, "chunk": True, "timestamp": "1e999"}}, Media(AUDIO)),
        ({"event": "Media", "media": {"payload": B64, "track": "inbound"}}, Media(AUDIO, "inbound")),
        ({"event": "media", "media": {"payload": ""}}, Media(b"")),
        ({"event": "stop", "stop": {"reason": "hangup"}}, Stop("hangup")),
        ({"event": "dtmf", "dtmf": {"digit": 5}}, Dtmf("5", None)),
        ({"event": "connected", "version": "1.0.0"}, Connected()),
        ({"event": "mark", "mark": {"name": "m"}}, Played("m")),
        ({"event": "error", "payload": {"code": "100002"}}, Trouble(100002)),
        ({"event": "error"}, Trouble(None)),
        ({"event": "weather"}, Unknown("weather")),
    ],
)
def test_tolerance(wire: dict[str, Any], event: Message) -> None:
    """What carriers vary without meaning anything by it is read all the same."""
    assert parse(json.dumps(wire)) == event


@pytest.mark.parametrize(
    ("media_format", "format"),
    [
        ({"encoding": "audio/x-mulaw", "sampleRate": 8000}, MULAW),
        ({"encoding": "audio/x-mulaw;rate=8000"}, MULAW),
        ({"encoding": "audio/PCMU"}, MULAW),
        ({"encoding": "PCMA"}, AudioFormat("alaw", 8000)),
        ({"encoding": "audio/x-alaw", "sampleRate": "8000"}, AudioFormat("alaw", 8000)),
        ({"encoding": "audio/x-l16", "sampleRate": 16000}, WIDE),
        ({"encoding": "audio/L16; rate=16000"}, WIDE),
        ({"encoding": "audio/x-l16;rate=8000", "sampleRate": 16000}, WIDE),
    ],
)
def test_formats(media_format: dict[str, object], format: AudioFormat) -> None:
    """Every name of a known encoding is known, and the rate is taken from where it stands."""
    start = parse(json.dumps(_start(**media_format)))
    assert isinstance(start, Start)
    assert start.format == format


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "not-json"),
        ("hello", "not-json"),
        (b"\xff\xfe", "not-json"),
        ("[" * 100_000, "not-json"),
        ('{"event":"media","media":{"payload":"' + "[" * 10, "not-json"),
        ("null", "not-an-object"),
        ("[1,2]", "not-an-object"),
        ("{}", "no-event"),
        ('{"event":null}', "no-event"),
        ('{"event":"start"}', "no-call-id"),
        ('{"event":"start","start":{"callId":"","mediaFormat":{"encoding":"PCMU"}}}', "no-call-id"),
        ('{"event":"start","start":{"callId":"a\\nb"}}', "bad-call-id"),
        (json.dumps({"event": "start", "start": {"callId": "x" * 257}}), "bad-call-id"),
        ('{"event":"start","start":{"callId":"call"}}', "unknown-encoding"),
        (json.dumps(_start(encoding="audio/opus", sampleRate=48000)), "unknown-encoding"),
        (json.dumps(_start(encoding="audio/x-l16", sampleRate=8000, channels=2)), "unknown-encoding"),
        (json.dumps(_start(encoding="audio/x-l16")), "bad-rate"),
        (json.dumps(_start(encoding="audio/x-l16", sampleRate=0)), "bad-rate"),
        (json.dumps(_start(encoding="audio/x-l16", sampleRate="fast")), "bad-rate"),
        ('{"event":"media"}', "no-payload"),
        ('{"event":"media","media":"AAAA"}', "no-payload"),
        ('{"event":"media","media":{"payload":null}}', "no-payload"),
        ('{"event":"media","media":{"payload":"AAA"}}', "bad-base64"),
        ('{"event":"media","media":{"payload":"AA AA"}}', "bad-base64"),
        ('{"event":"media","media":{"payload":"_-_-"}}', "bad-base64"),
    ],
)
def test_refusals(text: str | bytes, code: str) -> None:
    """What cannot be read is refused under a code of its own, in words that repeat nothing of a payload."""
    with pytest.raises(WireError) as caught:
        parse(text)
    assert caught.value.code == code
    assert "AAA" not in str(caught.value)


def test_place_of_unreadable_audio() -> None:
    """A payload that is not base64 still tells where the audio is missing."""
    with pytest.raises(MediaError) as caught:
        parse('{"event":"media","media":{"payload":"!","track":"outbound","chunk":"4","timestamp":"80"}}')
    assert caught.value.media == Media(b"", "outbound", 4, 80)


def test_eka_reads_less() -> None:
    """EkaScribe takes a rate only as an integer, needs no ids, and knows nothing of the carrier's other messages."""
    assert parse_eka('{"event":"start"}') == EkaStart("", "", None)
    assert parse_eka('{"event":"start","start":{"mediaFormat":{"sampleRate":"8000"}}}') == EkaStart("", "", None)
    assert parse_eka('{"event":"start","start":{"mediaFormat":{"sampleRate":true}}}') == EkaStart("", "", None)
    assert parse_eka('{"event":"clearAudio"}') == Unknown("clearAudio")


def test_outline_tells_no_values() -> None:
    """The outline of a message for the log holds its keys and lengths and nothing else."""
    text = '{"event":"media","from":"+4912345","media":{"payload":"c2VjcmV0","chunk":5,"x":[1],"y":{"z":{}}},"n":null}'
    assert envelope.outline(text) == (
        "{'event': 5 characters, 'from': 8 characters, 'media': {'payload': 8 characters, 'chunk': int, "
        "'x': [1 items], 'y': {'z': {0 keys}}}, 'n': null}"
    )
    assert envelope.outline("x" * 7) == "7 characters that are not JSON"


@given(st.binary(max_size=2000), st.sampled_from(BOTH), st.integers(0, 2**40), st.integers(-(2**50), 2**50))
def test_media_round_trip(audio: bytes, track: str, chunk: int, timestamp_ms: int) -> None:
    """Any audio comes back as it was sent."""
    assert parse(envelope.build_media("s", 0, track, chunk, timestamp_ms, audio)) == Media(
        audio, track, chunk, timestamp_ms
    )


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["both", "AAAA", "PCMU"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["payload", "track", "chunk", "callId", "mediaFormat", "encoding", "tracks"]), inner
        )
    ),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # a machine may be busy with something else
@given(
    st.sampled_from(
        ["start", "media", "stop", "dtmf", "playAudio", "checkpoint", "playedStream", "mark", "error", "?"]
    ),
    st.dictionaries(
        st.sampled_from(
            [
                "start",
                "media",
                "stop",
                "dtmf",
                "callId",
                "callSid",
                "call_sid",
                "call_control_id",
                "contentType",
                "name",
                "extra_headers",
                "customParameters",
                "client_state",
                "payload",
                "mark",
            ]
        ),
        _json,
    ),
)
def test_nothing_else_is_raised(event: str, fields: dict[str, Any]) -> None:
    """Whatever JSON comes, it is read or refused with a WireError; no other error escapes."""
    text = json.dumps({"event": event, **fields})
    for dialect in (None, *DIALECTS.values()):
        try:
            parse(text, dialect)
        except WireError as error:
            assert error.code
    try:
        parse_eka(text)
    except WireError as error:
        assert error.code
    assert envelope.outline(text)


@given(st.text(max_size=200) | st.binary(max_size=200))
def test_garbage_is_refused(text: str | bytes) -> None:
    """Text that is no JSON object never gets past the reader."""
    try:
        parse(text)
    except WireError:
        return
    assert isinstance(json.loads(text), dict)
