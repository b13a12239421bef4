"""The reader of plain media messages says what the general reader says, or nothing."""

from __future__ import annotations

import base64
import json
import string
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import example, given, settings, strategies as st

from mediaflow import WireError, envelope
from mediaflow._wire import media
from mediaflow.envelope import Media

PAYLOAD = base64.b64encode(bytes(range(160))).decode()


def general(text: str | bytes) -> Any:
    """Read a message as if there were no reader of plain ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(envelope, "read_media", lambda text, make: None)
        try:
            return envelope.parse(text)
        except WireError as error:
            return error.code


class Inside(msgspec.Struct):
    """What `media` holds, as msgspec reads it by type."""

    payload: bytes
    track: str | None = None
    chunk: int | str | None = None
    timestamp: int | str | None = None


class Typed(msgspec.Struct):
    """A media message, as msgspec reads it by type."""

    event: Literal["media"]
    media: Inside


def typed(text: str | bytes) -> Media:
    """Read a plain message without anything of ours."""
    inside = msgspec.json.decode(text, type=Typed).media
    chunk, timestamp = (None if number is None else int(number) for number in (inside.chunk, inside.timestamp))
    return Media(inside.payload, inside.track or None, chunk, timestamp)


def twice(text: str | bytes) -> set[str]:
    """Return the names that come twice where readers look for them, in whatever spelling."""
    top = json.loads(text, object_pairs_hook=list)
    found = set()
    for pairs, looked_for in ((top, ["event", "media"]), (dict(top)["media"], list(Inside.__struct_fields__))):
        names = [name.replace("_", "").lower() for name, _ in pairs]
        found |= {name for name in looked_for if names.count(name) > 1}
    return found


def agrees(text: str | bytes) -> Media | None:
    """Hold the reader against the general one, and what it takes against msgspec and the standard library."""
    read, decided = media.read(text, Media), general(text)
    if read is not None:
        assert read == decided == typed(text)
        assert not twice(text)
    return read


def nested(**fields: object) -> dict[str, object]:
    """Make a message as Vobiz sends it today, with other fields in its media."""
    inside = {"track": "inbound", "timestamp": "1770000000140", "chunk": 7, "payload": PAYLOAD} | fields
    return {"sequenceNumber": 8, "streamId": "s-1", "event": "media", "media": inside, "extra_headers": "{}"}


def without(message: dict[str, object], *names: str) -> dict[str, object]:
    """Leave fields out of the media of a message."""
    inside = message["media"]
    assert isinstance(inside, dict)
    return message | {"media": {name: value for name, value in inside.items() if name not in names}}


PLAIN = {
    "nested": (nested(), Media(bytes(range(160)), "inbound", 7, 1770000000140)),
    "outbound": (nested(track="outbound"), Media(bytes(range(160)), "outbound", 7, 1770000000140)),
    "another track": (nested(track="both"), Media(bytes(range(160)), "both", 7, 1770000000140)),
    "no track": (nested(track=""), Media(bytes(range(160)), None, 7, 1770000000140)),
    "flat": (
        {"event": "media", "media": {"sampleRate": 8000, "payload": "AAA=", "timestamp": 5}},
        Media(bytes(2), None, None, 5),
    ),
    "bare": ({"media": {"payload": ""}, "event": "media"}, Media(b"")),
    "negative": (nested(timestamp=-20, chunk="-1"), Media(bytes(range(160)), "inbound", -1, -20)),
    "large": (nested(timestamp=10**18 - 1), Media(bytes(range(160)), "inbound", 7, 10**18 - 1)),
    "zero": (nested(timestamp="0", chunk=0), Media(bytes(range(160)), "inbound", 0, 0)),
}  # fmt: skip


@pytest.mark.parametrize(("message", "expected"), PLAIN.values(), ids=list(PLAIN))
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n\t", "\r : ")])
def test_plain(message: dict[str, object], expected: Media, separators: tuple[str, str]) -> None:
    """What carriers send is read without the general reader, in any spacing, as text and as bytes."""
    text = json.dumps(message, separators=separators)
    assert agrees(text) == agrees(text.encode()) == agrees(f" {text}\n") == expected


NOT_PLAIN = {
    "another event": nested() | {"event": "start"},
    "an event in capitals": nested() | {"event": "Media"},
    "no event": {name: value for name, value in nested().items() if name != "event"},
    "no payload": without(nested(), "payload"),
    "no media": {"event": "media"},
    "text as media": {"event": "media", "media": PAYLOAD},
    "no text as payload": nested(payload=7),
    "cut base64": nested(payload=PAYLOAD[:-1]),
    "padding in the middle": nested(payload="AA==AAAA"),
    "three signs of padding": nested(payload="A==="),
    "only padding": nested(payload="===="),
    "url-safe base64": nested(payload="-_-_"),
    "a line break in base64": nested(payload="AAAA\nAAA"),
    "an escape": nested(streamSid='"'),
    "not ASCII": nested(note="µ"),
    "a payload that is not ASCII": nested(payload="AAAé"),
    "a fraction": nested(timestamp=1.5),
    "an exponent": nested(timestamp=1e30),
    "a fraction in quotes": nested(timestamp="20.5"),
    "too large": nested(timestamp=10**18),
    "no number": nested(chunk="one"),
    "empty number": nested(chunk=""),
    "null": nested(chunk=None),
    "true": nested(chunk=True),
    "a nested object": nested(more={}),
    "a list": nested() | {"more": [1]},
    "a key in capitals": nested(Payload="AAAA"),
    "a key in snake case": nested(time_stamp=7),
    "another event beside it": nested() | {"EVENT": "stop"},
}


@pytest.mark.parametrize("message", NOT_PLAIN.values(), ids=list(NOT_PLAIN))
def test_not_plain(message: dict[str, object]) -> None:
    """What is no plain media message is left to the general reader."""
    assert media.read(json.dumps(message, ensure_ascii=False), Media) is None


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "{}", "[]", "null", '"media"', "{,}", '{"event":"media"',
        '{"event":"media","media":{"payload":"AAAA"},}',
        '{"event":"media","media":{"payload":"AAAA",}}',
        '{"event":"media","media":{"payload":"AAAA"}}x',
        '{"event":"media","media":{"payload":"AAAA"}}{}',
        '{"event":"media","media":{"payload":"AAAA"}',
        '{"event":"media","media":{"payload":"AAAA',
        '{"event":"media","event":"stop","media":{"payload":"AAAA"}}',
        '{"event":"media","media":{"payload":"AAAA"},"media":{"payload":"BBBB"}}',
        '{"event":"media","media":{"payload":"AAAA","payload":"BBBB"}}',
        '{"event":"media","media":{"chunk":1,"chunk":2,"payload":"BBBB"}}',
        '{"event":"media","media":{"track":"","track":"inbound","payload":"AAAA"}}',
        '{"event":"media","media":{"chunk":01,"payload":"AAAA"}}',
        '{"event":"media","media":{"chunk":-,"payload":"AAAA"}}',
        '{"event":"media","media":{"chunk":-0,"payload":"AAAA"}}',
        '{"event":"media","media":{"chunk":1 2,"payload":"AAAA"}}',
        '{"event":"media","media":{"chunk":"1 ","payload":"AAAA"}}',
        '{"event":"media" "media":{"payload":"AAAA"}}',
        '{"event":"media",,"media":{"payload":"AAAA"}}',
        "{'event':'media','media':{'payload':'AAAA'}}",
        '{"event":"media","media":{"payload":"AAAA","more":nul}}',
        '{"event":"media","media":{"payload":"AAAA"},"more":"\t"}',
    ],
)  # fmt: skip
def test_not_json(text: str) -> None:
    """No slip in the syntax is overlooked."""
    assert media.read(text, Media) is None
    assert media.read(text.encode(), Media) is None


def test_other_types() -> None:
    """Only text is read; what else a caller has goes to the general reader."""
    assert media.read(bytearray(json.dumps(nested()).encode()), Media) is None  # type: ignore[arg-type]
    assert media.read("\ud800", Media) is None


NAMES = st.sampled_from(["event", "media", "payload", "track", "chunk", "timestamp", "Payload", "time_stamp", "x", "é"])
NUMBERS = st.integers(-(10**20), 10**20) | st.floats()
TEXTS = st.text(string.ascii_letters + string.digits + "+/=", max_size=12) | st.text(max_size=5)
SCALARS = (
    TEXTS
    | NUMBERS
    | NUMBERS.map(str)
    | st.none()
    | st.booleans()
    | st.binary(max_size=9).map(lambda data: base64.b64encode(data).decode())
)
INSIDE = st.dictionaries(NAMES, SCALARS | st.dictionaries(NAMES, SCALARS, max_size=2), max_size=6)


@settings(max_examples=2000)
@given(inside=INSIDE, outside=st.dictionaries(NAMES, SCALARS, max_size=4), spaced=st.booleans(), ascii=st.booleans())
@example(inside={"payload": "QR=="}, outside={}, spaced=False, ascii=True)
def test_agrees_on_messages(inside: dict[str, Any], outside: dict[str, Any], spaced: bool, ascii: bool) -> None:
    """Whatever a media message holds, the two readers agree, or the plain one has no answer."""
    message = outside | {"event": "media", "media": inside}
    text = json.dumps(message, separators=None if spaced else (",", ":"), ensure_ascii=ascii)
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        return
    agrees(text)
    agrees(encoded)


@settings(max_examples=2000)
@given(data=st.data())
def test_agrees_on_broken_text(data: st.DataObject) -> None:
    """A message with any byte of it changed, doubled or left out is read as the general reader reads it, or not."""
    text = json.dumps(nested(payload="AAECAw=="), separators=(",", ":")).encode()
    at = data.draw(st.integers(0, len(text) - 1))
    middle = data.draw(st.binary(max_size=2) | st.sampled_from([b"", text[at : at + 1] * 2, b'"', b",", b" ", b"\\"]))
    agrees(text[:at] + middle + text[at + 1 :])
