"""The sister wires: golden messages of each carrier, read and written."""

from __future__ import annotations

import base64
import json
import warnings
from typing import Any

import anyio
import pytest

from mediaflow import AudioFormat, WireError
from mediaflow.dialects import DIALECTS, EXOTEL, PLIVO, TELNYX, TWILIO, VOBIZ, Dialect, Name, recognise
from mediaflow.envelope import (
    Checkpoint,
    ClearAudio,
    Connected,
    Dtmf,
    Media,
    Message,
    PlayAudio,
    Played,
    Start,
    Stop,
    Trouble,
    parse,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it defines its models in a way that pydantic deprecates
    import plivo_stream

MULAW, ALAW, L16 = AudioFormat("mulaw", 8000), AudioFormat("alaw", 8000), AudioFormat("s16le", 8000)
WIDE, WIDER = AudioFormat("s16le", 16_000), AudioFormat("s16le", 24_000)
AUDIO = bytes(range(160))
B64 = base64.b64encode(AUDIO).decode()
BOTH = ("inbound", "outbound")

# What each carrier sends, after the examples of its own pages, with ids and numbers that are nobody's.
START: dict[Name, tuple[dict[str, Any], Start]] = {
    "vobiz": (
        {
            "sequenceNumber": 0,
            "event": "start",
            "start": {
                "callId": "c-1",
                "streamId": "s-1",
                "accountId": "500",
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-l16", "sampleRate": 16000},
            },
            "extra_headers": "{}",
        },
        Start("c-1", "s-1", "500", WIDE, ("inbound",), {}, VOBIZ),
    ),
    "plivo": (
        {
            "event": "start",
            "sequenceNumber": 1,
            "start": {
                "callId": "c-1",
                "streamId": "s-1",
                "accountId": "MA1",
                "tracks": ["inbound", "outbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000},
            },
            "extra_headers": "visit=42;clinic=a=b",
        },
        Start("c-1", "s-1", "MA1", MULAW, BOTH, {"custom_visit": "42", "custom_clinic": "a=b"}, PLIVO),
    ),
    "twilio": (
        {
            "event": "start",
            "sequenceNumber": "1",
            "start": {
                "accountSid": "AC1",
                "streamSid": "MZ1",
                "callSid": "CA1",
                "tracks": ["inbound", "outbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": {"visit": "42", "call_id": "not the call's"},
            },
            "streamSid": "MZ1",
        },
        Start("CA1", "MZ1", "AC1", MULAW, BOTH, {"custom_visit": "42", "custom_call_id": "not the call's"}, TWILIO),
    ),
    "telnyx": (
        {
            "event": "start",
            "sequence_number": "1",
            "start": {
                "user_id": "u-1",
                "call_control_id": "v3:c-1",
                "from": "+10",
                "to": "+20",
                "client_state": "dmlzaXQ=",
                "custom_parameters": {"visit": "42"},
                "media_format": {"encoding": "PCMA", "sample_rate": 8000, "channels": 1},
            },
            "stream_id": "s-1",
        },
        Start(
            "v3:c-1",
            "s-1",
            "u-1",
            ALAW,
            None,
            {"from": "+10", "to": "+20", "custom_visit": "42", "custom_client_state": "dmlzaXQ="},
            TELNYX,
        ),
    ),
    "exotel": (
        {
            "event": "start",
            "sequence_number": 1,
            "stream_sid": "s-1",
            "start": {
                "stream_sid": "s-1",
                "call_sid": "c-1",
                "account_sid": "a-1",
                "from": "+10",
                "to": "+20",
                "custom_parameters": {"visit": "42"},
                "media_format": {"encoding": "base64", "sample_rate": "8000", "bit_rate": "128kbps"},
            },
        },
        Start("c-1", "s-1", "a-1", L16, ("inbound",), {"from": "+10", "to": "+20", "custom_visit": "42"}, EXOTEL),
    ),
}

OTHERS: list[tuple[Name, dict[str, Any], Message]] = [
    (
        "plivo",
        {
            "event": "media",
            "sequenceNumber": 42,
            "streamId": "s-1",
            "media": {"track": "inbound", "timestamp": "1705312200000", "chunk": 41, "payload": B64},
            "extra_headers": "visit=42",
        },
        Media(AUDIO, "inbound", 41, 1705312200000),
    ),
    ("plivo", {"event": "dtmf", "dtmf": {"track": "inbound", "digit": "1"}}, Dtmf("1", "inbound")),
    ("plivo", {"event": "playedStream", "streamId": "s-1", "name": "hello"}, Played("hello")),
    ("twilio", {"event": "connected", "protocol": "Call", "version": "1.0.0"}, Connected()),
    (
        "twilio",
        {
            "event": "media",
            "sequenceNumber": "4",
            "media": {"track": "outbound", "chunk": "2", "timestamp": "20", "payload": B64},
            "streamSid": "MZ1",
        },
        Media(AUDIO, "outbound", 2, 20),
    ),
    (
        "twilio",
        {
            "event": "dtmf",
            "streamSid": "MZ1",
            "sequenceNumber": "5",
            "dtmf": {"track": "inbound_track", "digit": "#"},
        },
        Dtmf("#", "inbound"),
    ),
    ("twilio", {"event": "mark", "streamSid": "MZ1", "mark": {"name": "hello"}}, Played("hello")),
    (
        "twilio",
        {"event": "stop", "sequenceNumber": "9", "stop": {"accountSid": "AC1", "callSid": "CA1"}, "streamSid": "MZ1"},
        Stop(""),
    ),
    ("telnyx", {"event": "connected", "version": "1.0.0"}, Connected()),
    (
        "telnyx",
        {
            "event": "media",
            "sequence_number": "4",
            "media": {"track": "inbound", "chunk": "2", "timestamp": "20", "payload": B64},
            "stream_id": "s-1",
        },
        Media(AUDIO, "inbound", 2, 20),
    ),
    (
        "telnyx",
        {
            "event": "dtmf",
            "stream_id": "s-1",
            "occurred_at": "2026-01-01T00:00:00Z",
            "sequence_number": "5",
            "dtmf": {"digit": "1"},
        },
        Dtmf("1", None),
    ),
    (
        "telnyx",
        {"event": "error", "payload": {"title": "t", "detail": "d", "code": 100003}, "stream_id": "s-1"},
        Trouble(100003),
    ),
    ("telnyx", {"event": "mark", "mark": {"name": "hello"}, "stream_id": "s-1"}, Played("hello")),
    (
        "telnyx",
        {
            "event": "stop",
            "sequence_number": "5",
            "stop": {"user_id": "u-1", "call_control_id": "v3:c-1"},
            "stream_id": "s-1",
        },
        Stop(""),
    ),
    ("exotel", {"event": "connected"}, Connected()),
    (
        "exotel",
        {
            "event": "media",
            "sequence_number": 3,
            "stream_sid": "s-1",
            "media": {"chunk": 2, "timestamp": "100", "payload": B64},
        },
        Media(AUDIO, None, 2, 100),
    ),
    ("exotel", {"event": "dtmf", "stream_sid": "s-1", "dtmf": {"digit": "1", "duration": "100"}}, Dtmf("1", None)),
    ("exotel", {"event": "mark", "stream_sid": "s-1", "mark": {"name": "hello"}}, Played("hello")),
    (
        "exotel",
        {
            "event": "stop",
            "sequence_number": 9,
            "stream_sid": "s-1",
            "stop": {"call_sid": "c-1", "account_sid": "a-1", "reason": "callended"},
        },
        Stop("callended"),
    ),
]

LONG = bytes(3200)

# What each carrier is sent back, of audio, a mark and clearing.  The first and the last of all but Vobiz are, key for
# key, what the serializers of Pipecat 1.14.0 gave when they were run by hand; Pipecat is too heavy to run here.
REPLIES: dict[Name, tuple[AudioFormat, bytes, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "vobiz": (
        WIDE,
        AUDIO,
        {
            "event": "playAudio",
            "streamId": "s",
            "media": {"contentType": "audio/x-l16", "sampleRate": 16000, "payload": B64},
        },
        {"event": "checkpoint", "streamId": "s", "name": "n"},
        {"event": "clearAudio", "streamId": "s"},
    ),
    "plivo": (
        MULAW,
        AUDIO,
        {
            "event": "playAudio",
            "streamId": "s",
            "media": {"contentType": "audio/x-mulaw", "sampleRate": 8000, "payload": B64},
        },
        {"event": "checkpoint", "streamId": "s", "name": "n"},
        {"event": "clearAudio", "streamId": "s"},
    ),
    "twilio": (
        MULAW,
        AUDIO,
        {"event": "media", "streamSid": "s", "media": {"payload": B64}},
        {"event": "mark", "streamSid": "s", "mark": {"name": "n"}},
        {"event": "clear", "streamSid": "s"},
    ),
    "telnyx": (
        ALAW,
        AUDIO,
        {"event": "media", "media": {"payload": B64}},
        {"event": "mark", "mark": {"name": "n"}},
        {"event": "clear"},
    ),
    "exotel": (
        L16,
        LONG,
        {"event": "media", "stream_sid": "s", "media": {"payload": base64.b64encode(LONG).decode()}},
        {"event": "mark", "stream_sid": "s", "mark": {"name": "n"}},
        {"event": "clear", "stream_sid": "s"},
    ),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_a_start_is_read_and_recognised(name: Name) -> None:
    """A carrier's start means the same whether its dialect is configured or seen from the message alone."""
    wire, start = START[name]
    assert parse(json.dumps(wire), DIALECTS[name]) == start
    assert parse(json.dumps(wire), None) == start
    assert recognise(wire) is DIALECTS[name]
    assert start.format in DIALECTS[name].formats


@pytest.mark.parametrize(("name", "wire", "message"), OTHERS)
def test_every_other_message_is_read(name: Name, wire: dict[str, Any], message: Message) -> None:
    """What follows a start means the same with and without knowing the dialect."""
    assert parse(json.dumps(wire), DIALECTS[name]) == message
    assert parse(json.dumps(wire), None) == message


@pytest.mark.parametrize("name", DIALECTS)
def test_what_is_sent_back(name: Name) -> None:
    """Audio, a mark and clearing are written as the carrier wants them."""
    dialect, (format, payload, audio, mark, clear) = DIALECTS[name], REPLIES[name]
    assert json.loads(dialect.build_audio("s", format, payload)) == audio
    assert json.loads(dialect.build_mark("s", "n")) == mark
    assert json.loads(dialect.build_clear("s")) == clear


@pytest.mark.parametrize("name", DIALECTS)
def test_what_is_sent_back_is_read(name: Name) -> None:
    """A simulated carrier reads the same messages as what they were written from."""
    format, payload, audio, mark, clear = REPLIES[name]
    own = DIALECTS[name].verbs[0] == "playAudio"
    wanted: list[Message] = [Media(payload), Played("n"), ClearAudio("" if name == "telnyx" else "s")]
    if own:
        wanted = [PlayAudio("s", payload, format), Checkpoint("s", "n"), ClearAudio("s")]
    assert [parse(json.dumps(message), DIALECTS[name]) for message in (audio, mark, clear)] == wanted


@pytest.mark.parametrize("size", [0, 320, 2880, 3201, 3210, 100_160])
def test_sizes_that_exotel_garbles_are_refused(size: int) -> None:
    """Exotel gets no message of a size that it is known to spoil."""
    with pytest.raises(ValueError, match="3200 to 100000 bytes"):
        EXOTEL.build_audio("s", L16, bytes(size))


@pytest.mark.parametrize("dialect", [None, EXOTEL])
def test_exotel_in_camel_case(dialect: Dialect | None) -> None:
    """A start of Exotel in camelCase, as some send it, is read where the dialect is configured."""
    wire, start = START["exotel"]
    inner = dict(wire["start"])
    camel = {
        "event": "start",
        "streamSid": inner["stream_sid"],
        "start": {
            "streamSid": inner["stream_sid"],
            "callSid": inner["call_sid"],
            "accountSid": inner["account_sid"],
            "from": inner["from"],
            "to": inner["to"],
            "customParameters": inner["custom_parameters"],
            "mediaFormat": {"encoding": "raw/slin", "sampleRate": "8000"},
        },
    }
    if dialect is not None:
        assert parse(json.dumps(camel), dialect) == start
    else:  # it looks like Twilio's, which has no such encoding
        with pytest.raises(WireError, match="raw/slin"):
            parse(json.dumps(camel), None)


@pytest.mark.parametrize("rate", [8000, 16_000, 24_000])
@pytest.mark.parametrize("encoding", ["audio/x-raw", "raw/slin", "base64", "audio/x-l16"])
def test_every_rate_of_exotel(rate: int, encoding: str) -> None:
    """Exotel's linear audio is read at each of its rates, under each of the names that it gives it."""
    wire, _ = START["exotel"]
    start = {**wire["start"], "media_format": {"encoding": encoding, "sample_rate": str(rate)}}
    message = parse(json.dumps({**wire, "start": start}), None)
    assert isinstance(message, Start)
    assert message.format == AudioFormat("s16le", rate)


@pytest.mark.parametrize(
    ("dialect", "brings", "plays"),
    [
        (VOBIZ, MULAW, MULAW),
        (VOBIZ, WIDE, WIDE),
        (VOBIZ, ALAW, MULAW),
        (PLIVO, L16, L16),
        (TWILIO, MULAW, MULAW),
        (TELNYX, ALAW, MULAW),
        (TELNYX, WIDE, MULAW),
        (EXOTEL, WIDER, WIDER),
    ],
)
def test_what_is_played_into_a_call(dialect: Dialect, brings: AudioFormat, plays: AudioFormat) -> None:
    """A reply is in the call's own format, unless the carrier takes another only."""
    assert dialect.reply_format(brings) == plays


@pytest.mark.parametrize("encoding", ["G722", "OPUS", "AMR-WB"])
def test_codecs_that_nothing_decodes_are_refused(encoding: str) -> None:
    """A codec of Telnyx that is not known here is refused by its name, with what to ask for instead."""
    wire, _ = START["telnyx"]
    start = {**wire["start"], "media_format": {"encoding": encoding, "sample_rate": 16000, "channels": 1}}
    with pytest.raises(WireError, match=rf"{encoding}.*set stream_codec to PCMU, PCMA or L16") as caught:
        parse(json.dumps({**wire, "start": start}), None)
    assert caught.value.code == "unknown-encoding"


@pytest.mark.parametrize(("name", "field"), [("twilio", "callSid"), ("telnyx", "call_control_id")])
def test_a_start_without_its_call_is_refused(name: Name, field: str) -> None:
    """Without the field that names the call there is no call."""
    wire, _ = START[name]
    start = {key: value for key, value in wire["start"].items() if key != field}
    with pytest.raises(WireError) as caught:
        parse(json.dumps({**wire, "start": start}), DIALECTS[name])
    assert caught.value.code == "no-call-id"


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("{}", {}),
        ('{"visit": "42", "n": 7, "deep": {}}', {"custom_visit": "42", "custom_n": "7"}),
        ({"visit": "42"}, {"custom_visit": "42"}),
        ("visit=42,clinic=x", {"custom_visit": "42", "custom_clinic": "x"}),
        ("nothing", {}),
        ("{broken", {}),
        ([1], {}),
        (None, {}),
    ],
)
def test_what_the_caller_gave_along(given: object, read: dict[str, str]) -> None:
    """Plivo's extra headers are read in whatever shape they come; what holds nothing gives nothing."""
    wire, _ = START["plivo"]
    message = parse(json.dumps({**wire, "extra_headers": given}), PLIVO)
    assert isinstance(message, Start)
    assert message.metadata == read


# --- Plivo's own SDK, which is the application's side of its wire


def _sdk(sent: list[dict[str, Any]], errors: list[Exception]) -> Any:
    """Return a handler of the SDK that keeps what it sends."""

    async def send_raw(_self: object, text: str) -> None:
        sent.append(json.loads(text))

    async def failed(error: Exception) -> None:
        errors.append(error)

    handler = type("Recorder", (plivo_stream.BaseStreamingHandler,), {"_send_raw": send_raw})()
    handler.on_error(failed)
    return handler


def test_the_sdk_of_plivo_reads_our_golden_messages() -> None:
    """What is taken here for Plivo's start and media, its own SDK takes too, and reads the same in them."""
    start, wanted = START["plivo"]
    media = next(wire for name, wire, _ in OTHERS if name == "plivo" and wire["event"] == "media")
    sent: list[dict[str, Any]] = []
    errors: list[Exception] = []
    handler = _sdk(sent, errors)
    heard: list[Any] = []

    async def on_media(event: Any) -> None:
        heard.append((event.get_raw_media(), event.media.track, event.media.chunk, int(event.media.timestamp)))

    async def play() -> None:
        handler.on_media(on_media)
        await handler._process_message(json.dumps(start))
        await handler._process_message(json.dumps(media))

    anyio.run(play)
    assert not errors
    assert (handler.get_call_id(), handler.get_stream_id()) == (wanted.call_id, wanted.stream_id)
    assert handler.get_account_id() == wanted.account_id
    assert heard == [(AUDIO, "inbound", 41, 1705312200000)]


def test_we_send_what_the_sdk_of_plivo_sends() -> None:
    """Audio, a checkpoint and clearing are the SDK's own messages; its audio has no stream id, ours has."""
    sent: list[dict[str, Any]] = []
    handler = _sdk(sent, [])

    async def play() -> None:
        await handler._process_message(json.dumps(START["plivo"][0]))
        await handler.send_media(AUDIO)
        await handler.send_checkpoint("n")
        await handler.send_clear_audio()

    anyio.run(play)
    audio, checkpoint, clear = sent
    assert json.loads(PLIVO.build_audio("s-1", MULAW, AUDIO)) == {**audio, "streamId": "s-1"}
    assert json.loads(PLIVO.build_mark("s-1", "n")) == checkpoint
    assert json.loads(PLIVO.build_clear("s-1")) == clear
