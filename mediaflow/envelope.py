"""Media Streams messages and the events they mean: text in, events out, text out.  No I/O.

A telephone carrier forks a call to us as JSON text over a WebSocket.  The "Media Streams" envelope began with Twilio;
Vobiz speaks the dialect that is drawn here, EkaScribe takes a smaller one, and ``dialects`` is the table of what other
carriers name differently.  This file reads them all.

Vobiz has two shapes of the same message: *nested* is on the wire today, *flat* is in its older documents.  ``parse``
takes both, and whatever lies between: keys in camelCase or snake_case, numbers as strings, fields left out.

::

    message        fields                                                         parsed as
    carrier → us
    start, nested  start{callId, streamId, accountId, tracks,                     Start
                   mediaFormat{encoding, sampleRate}}
    start, flat    callId, streamId, accountId, from, to, direction,              Start
                   contentType "audio/x-l16;rate=8000", audioTrack
    media, nested  media{track, chunk, timestamp "epoch ms", payload}             Media
    media, flat    media{payload, contentType, sampleRate, timestamp, track?}     Media
    stop           reason; rarely sent: the socket just closes                    Stop
    dtmf           dtmf{digit, track}                                             Dtmf
    playedStream   name                                                           Played
    clearedAudio                                                                  Cleared
    connected, mark, error (other carriers)                                       Connected, Played, Trouble
    us → carrier
    playAudio      streamId, media{contentType without rate, sampleRate, payload} PlayAudio
    checkpoint     streamId, name                                                 Checkpoint
    clearAudio     streamId                                                       ClearAudio
    stop           streamId                                                       Stop
    media, mark, clear (to other carriers)                                        Media, Played, ClearAudio
    us → EkaScribe
    start          start{mediaFormat{encoding, sampleRate: integer}}              EkaStart
    media          media{payload}                                                 Media
    stop           reason?                                                        Stop

``extra_headers`` is always the string ``"{}"``; it may come as an object or not at all, and is read as Plivo's only.

A message that cannot be read raises ``WireError`` with one of these codes::

    not-json   not-an-object   no-event   no-call-id   bad-call-id   unknown-encoding   bad-rate
    no-payload   bad-base64    (the last two as ``MediaError``, which knows where the audio is missing)

Reference: the Vobiz documentation on stream events and audio formats, RFC 3551 for the names PCMU, PCMA and L16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Literal

import msgspec

from . import dialects
from ._wire.media import read as _read_media
from .dialects import CONTENT_TYPES, VOBIZ, Dialect
from .errors import WireError
from .frame import AudioFormat, Encoding

TRACKS = ("inbound", "outbound")

Shape = Literal["nested", "flat"]

# After "audio/" and "x-": the carriers write audio/x-l16, RFC 3551 audio/L16, Exotel audio/x-raw; PCMU, PCMA and L16
# also stand alone.
_ENCODINGS: dict[str, Encoding] = {"l16": "s16le", "mulaw": "mulaw", "pcmu": "mulaw", "alaw": "alaw", "pcma": "alaw"}
_G711_RATE = 8000  # fixed by RFC 3551; L16 has no rate of its own and must name one
_RATES = range(4_000, 192_001)
_LONGEST_ID = 256


class Start(msgspec.Struct, frozen=True):
    """A stream of a call begins.  ``tracks`` is None where the message does not name any."""

    call_id: str
    stream_id: str
    account_id: str
    format: AudioFormat
    tracks: tuple[str, ...] | None
    metadata: dict[str, str]
    """``from``, ``to`` and ``direction``, where they are given, and what the caller gave along as ``custom_…``."""
    dialect: Dialect = VOBIZ


class Media(msgspec.Struct, frozen=True, gc=False):
    """A run of audio.  What is None was absent or unreadable."""

    payload: bytes
    track: str | None = None
    chunk: int | None = None
    timestamp_ms: int | None = None


class Stop(msgspec.Struct, frozen=True):
    """The stream ends."""

    reason: str


class Dtmf(msgspec.Struct, frozen=True):
    """A key of the telephone was pressed."""

    digit: str
    track: str | None


class Played(msgspec.Struct, frozen=True):
    """The audio before the checkpoint ``name`` was played; to most carriers also the wish to be told so."""

    name: str


class Cleared(msgspec.Struct, frozen=True):
    """The audio that waited to be played is gone."""


class Connected(msgspec.Struct, frozen=True):
    """A greeting; says nothing."""


class Trouble(msgspec.Struct, frozen=True):
    """The carrier complains of something that it was sent; ``code`` is its own number."""

    code: int | None


class PlayAudio(msgspec.Struct, frozen=True):
    """The app wants audio played into the call."""

    stream_id: str
    payload: bytes
    format: AudioFormat


class Checkpoint(msgspec.Struct, frozen=True):
    """The app wants to be told when everything before this is played."""

    stream_id: str
    name: str


class ClearAudio(msgspec.Struct, frozen=True):
    """The app wants nothing more played of what it sent."""

    stream_id: str


class EkaStart(msgspec.Struct, frozen=True):
    """A stream to EkaScribe begins; ``sample_rate`` is None unless it is an integer: so its server reads it."""

    stream_id: str
    encoding: str
    sample_rate: int | None


class Unknown(msgspec.Struct, frozen=True):
    """A message of a kind that this file does not know."""

    event: str


Message = (
    Start
    | Media
    | Stop
    | Dtmf
    | Played
    | Cleared
    | Connected
    | Trouble
    | PlayAudio
    | Checkpoint
    | ClearAudio
    | EkaStart
    | Unknown
)


class MediaError(WireError):
    """A media message without audio.  ``media`` says where it belongs, as far as that could be read."""

    def __init__(self, code: str, text: str, media: Media) -> None:
        super().__init__(code, text)
        self.media = media


# --- Reading

read_media = _read_media
"""``read_media(text, make)``: for a plain media message ``make(payload, track, chunk, timestamp_ms)``, else None."""


def parse(text: str | bytes, dialect: Dialect | None = VOBIZ) -> Message:
    """Read one message of a carrier's wire, of either direction; raise ``WireError`` if that cannot be done.

    Without a ``dialect`` a ``start`` is read as that of the carrier whose it is.  All other messages have names that
    mean the same with every carrier.
    """
    return _parse(text, _READERS, dialect)


def parse_eka(text: str | bytes) -> Message:
    """Read one message of EkaScribe's wire: ``EkaStart``, ``Media``, ``Stop`` or ``Unknown``."""
    return _parse(text, _EKA_READERS, None)


def _parse(text: str | bytes, readers: Mapping[str, _Reader], dialect: Dialect | None) -> Message:
    message = read_media(text, Media)  # nearly every message; what it does not know it leaves
    if message is not None:
        return message
    try:
        value = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        raise WireError("not-json", f"a message of {len(text)} characters is not JSON") from None
    if not isinstance(value, dict):
        raise WireError("not-an-object", f"a message is a JSON {type(value).__name__}, not an object")
    fields = _Fields(value)
    event = fields.text("event")
    if not event:
        raise WireError("no-event", "a message names no event")
    kind = _fold(event)
    if kind == "start" and readers is _READERS:
        return _start(fields, dialect or dialects.recognise(value))
    reader = readers.get(kind)
    return Unknown(event) if reader is None else reader(fields)


def _fold(key: str) -> str:
    return key.replace("_", "").lower()


class _Fields:
    """A JSON object whose keys may be in camelCase or snake_case and whose values may be missing or of another type."""

    def __init__(self, value: object) -> None:
        self._values = {_fold(key): item for key, item in value.items()} if isinstance(value, dict) else {}

    def get(self, key: str) -> Any:
        return self._values.get(key)

    def object(self, key: str) -> _Fields:
        return _Fields(self.get(key))

    def text(self, key: str) -> str:
        """Return a string, or a whole number as one: Vobiz documents its account ids both ways."""
        value = self.get(key)
        return value if isinstance(value, str) else str(value) if type(value) is int else ""

    def number(self, key: str) -> int | None:
        """Return a whole number, also one given as a string or with a fraction, which is cut off."""
        value = self.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return None
        try:
            return int(value)
        except (ValueError, OverflowError):
            pass  # a string with a fraction, or what is no number
        try:
            return int(float(value))
        except (ValueError, OverflowError):
            return None


_Reader = Callable[[_Fields], Message]


def _start(top: _Fields, dialect: Dialect) -> Start:
    nested = top.object("start")

    def either(key: str) -> str:
        return nested.text(key) or top.text(key)

    call_id = either(dialect.call_id)
    if not call_id:
        hint = "" if dialect is VOBIZ else f" as {dialect.name} names it"
        raise WireError(
            "no-call-id", f"the start message names no call: expected start.callId, or callId beside event{hint}"
        )
    if len(call_id) > _LONGEST_ID or not call_id.isprintable():
        raise WireError("bad-call-id", f"the call id is not up to {_LONGEST_ID} printable characters")
    metadata = {key: value for key in ("from", "to", "direction") if (value := either(key))}
    for key in dialect.parameters:
        metadata |= _custom(key, nested.get(_fold(key)) or top.get(_fold(key)))
    return Start(
        call_id,
        either(dialect.stream_id),
        either(dialect.account_id),
        _format(nested.object("mediaformat"), either("contenttype"), dialect),
        _tracks(nested.get("tracks") or either("audiotrack")) or dialect.tracks,
        metadata,
        dialect,
    )


def _custom(key: str, value: object) -> dict[str, str]:
    """Return what the caller of the carrier's API gave along, under names that no other metadata has.

    It comes as an object, as text that holds one, as ``k=v;k2=v2`` (Plivo), or as text without a structure (Telnyx's
    ``client_state``), which then has the name of its field.
    """
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value) if value.startswith("{") else value
        except (ValueError, RecursionError):
            return {}
    if isinstance(value, str) and key == "extra_headers":
        value = dict(pair.strip().partition("=")[::2] for pair in value.replace(",", ";").split(";") if "=" in pair)
    if isinstance(value, str):
        return {f"custom_{key}": value} if value else {}
    items = value.items() if isinstance(value, dict) else ()
    return {f"custom_{name}": str(item) for name, item in items if isinstance(item, str | int | float)}


_one_format = lru_cache(64)(AudioFormat)
"""Calls of the same format share it: carriers have a few."""


def _format(media_format: _Fields, content_type: str, dialect: Dialect) -> AudioFormat:
    encoding = media_format.text("encoding") or content_type
    kind, *parameters = (part.strip() for part in encoding.lower().split(";"))
    short = kind.removeprefix("audio/").removeprefix("x-")
    found = _ENCODINGS.get(short) or dialect.encodings.get(short)
    if found is None or media_format.number("channels") not in (None, 1):
        shown = "".join(c if c.isalnum() or c in "/-;=.+" else "?" for c in encoding[:40]) or "nothing"
        raise WireError(
            "unknown-encoding",
            f"the start message announces {shown}; expected one channel of audio/x-mulaw, audio/x-alaw or audio/x-l16"
            + (f": {dialect.refused}" if dialect.refused else ""),
        )
    rate = media_format.number("samplerate")
    if rate is None:
        named = dict(part.partition("=")[::2] for part in parameters)
        rate = _Fields(named).number("rate")
    if rate is None and found != "s16le":
        rate = _G711_RATE
    if rate is None or rate not in _RATES:
        raise WireError("bad-rate", f"the start message announces {kind} at {rate} Hz; expected 8000 or 16000")
    return _one_format(found, rate)


def _tracks(value: object) -> tuple[str, ...] | None:
    names = value if isinstance(value, list) else [value]
    if "both" in names:
        return TRACKS
    return tuple(track for track in TRACKS if track in names) or None


def _media(top: _Fields) -> Media:
    media = top.object("media")
    payload = media.get("payload")
    place = Media(b"", media.text("track") or None, media.number("chunk"), media.number("timestamp"))
    if not isinstance(payload, str):
        raise MediaError("no-payload", "a media message holds no text at media.payload", place)
    return msgspec.structs.replace(place, payload=_base64(payload, place))


def _base64(payload: str, place: Media) -> bytes:
    try:
        return msgspec.convert(payload, bytes)
    except msgspec.ValidationError:
        raise MediaError("bad-base64", f"{len(payload)} characters of payload are not base64", place) from None


def _stop(top: _Fields) -> Stop:
    return Stop(top.text("reason") or top.object("stop").text("reason"))


def _dtmf(top: _Fields) -> Dtmf:
    dtmf = top.object("dtmf")
    return Dtmf(dtmf.text("digit"), dtmf.text("track").removesuffix("_track") or None)  # Twilio: inbound_track


def _trouble(top: _Fields) -> Trouble:
    return Trouble(top.object("payload").number("code"))


def _play_audio(top: _Fields) -> PlayAudio:
    media = top.object("media")
    # The short contentType and the sampleRate beside it are what mediaFormat holds in a start message.
    format = _format(
        _Fields({"encoding": media.text("contenttype"), "samplerate": media.number("samplerate")}), "", VOBIZ
    )
    return PlayAudio(top.text("streamid"), _media(top).payload, format)


def _eka_start(top: _Fields) -> EkaStart:
    start = top.object("start")
    media_format = start.object("mediaformat")
    rate = media_format.get("samplerate")
    return EkaStart(
        start.text("streamid"), media_format.text("encoding"), rate if type(rate) is int and rate > 0 else None
    )


_READERS: dict[str, _Reader] = {  # and ``start``, which is read by a dialect
    "media": _media,
    "stop": _stop,
    "dtmf": _dtmf,
    "playedstream": lambda top: Played(top.text("name")),
    "clearedaudio": lambda top: Cleared(),
    "connected": lambda top: Connected(),
    "mark": lambda top: Played(top.object("mark").text("name")),
    "error": _trouble,
    "playaudio": _play_audio,
    "checkpoint": lambda top: Checkpoint(top.text("streamid"), top.text("name")),
    "clearaudio": lambda top: ClearAudio(top.text("streamid")),
    "clear": lambda top: ClearAudio(top.text("streamsid")),
}
_EKA_READERS: dict[str, _Reader] = {"start": _eka_start, "media": _media, "stop": _stop}


def outline(text: str | bytes) -> str:
    """Describe a message by its keys and the lengths of its values, for a log: never by the values."""
    try:
        return _outline(msgspec.json.decode(text), 3)
    except (ValueError, RecursionError):
        return f"{len(text)} characters that are not JSON"


def _outline(value: object, depth: int) -> str:
    if isinstance(value, dict):
        if not depth:
            return f"{{{len(value)} keys}}"
        items = [f"{key[:32]!r}: {_outline(item, depth - 1)}" for key, item in list(value.items())[:16]]
        return "{" + ", ".join(items) + "}"
    if isinstance(value, list):
        return f"[{len(value)} items]"
    if isinstance(value, str):
        return f"{len(value)} characters"
    return "null" if value is None else type(value).__name__


# --- Writing


def _json(message: Mapping[str, object]) -> str:
    return msgspec.json.encode(message).decode()  # bytes become base64


def content_type(format: AudioFormat) -> str:
    """Return the long name of a format, as in ``audio/x-l16;rate=8000``."""
    return f"{CONTENT_TYPES[format.encoding]};rate={format.sample_rate}"


def build_start(
    call_id: str,
    stream_id: str,
    account_id: str,
    format: AudioFormat,
    tracks: tuple[str, ...],
    metadata: Mapping[str, str] | None = None,
    shape: Shape = "nested",
) -> str:
    """Return the carrier's ``start``.  Only the flat shape has a place for ``from``, ``to`` and ``direction``."""
    if shape == "nested":
        media_format = {"encoding": CONTENT_TYPES[format.encoding], "sampleRate": format.sample_rate}
        start = {
            "callId": call_id,
            "streamId": stream_id,
            "accountId": account_id,
            "tracks": tracks,
            "mediaFormat": media_format,
        }
        return _json({"sequenceNumber": 0, "event": "start", "start": start, "extra_headers": "{}"})
    known = metadata or {}
    return _json(
        {
            "event": "start",
            "streamId": stream_id,
            "accountId": account_id,
            "callId": call_id,
            **{key: known[key] for key in ("from", "to", "direction") if key in known},
            "contentType": content_type(format),
            "audioTrack": "both" if len(tracks) > 1 else tracks[0],
        }
    )


def build_media(stream_id: str, sequence: int, track: str, chunk: int, timestamp_ms: int, payload: bytes) -> str:
    """Return the carrier's ``media`` in the nested shape."""
    media = {"track": track, "timestamp": str(timestamp_ms), "chunk": chunk, "payload": payload}
    return _json(
        {
            "sequenceNumber": sequence,
            "streamId": stream_id,
            "event": "media",
            "media": media,
            "extra_headers": "{}",
        }
    )


def build_flat_media(
    stream_id: str, format: AudioFormat, timestamp_ms: int, payload: bytes, track: str | None = None
) -> str:
    """Return the carrier's ``media`` in the flat shape, which counts no chunks.

    The older documents show no ``track`` either; where there are two, it has to be named.
    """
    media = {
        "contentType": CONTENT_TYPES[format.encoding],
        "sampleRate": format.sample_rate,
        "payload": payload,
        "timestamp": timestamp_ms,
    }
    return _json({"event": "media", "streamId": stream_id, "media": media | ({"track": track} if track else {})})


def build_stop(stream_id: str, reason: str = "") -> str:
    """Return ``stop``, the carrier's (with its reason) or the app's."""
    return _json({"event": "stop", "streamId": stream_id} | ({"reason": reason} if reason else {}))


def build_dtmf(stream_id: str, sequence: int, digit: str, track: str) -> str:
    """Return the carrier's ``dtmf``; Vobiz does not document its body, this is Plivo's."""
    dtmf = {"digit": digit, "track": track}
    return _json(
        {"event": "dtmf", "sequenceNumber": sequence, "streamId": stream_id, "dtmf": dtmf, "extra_headers": "{}"}
    )


def build_played(stream_id: str, name: str) -> str:
    """Return the carrier's answer to a checkpoint."""
    return _json({"event": "playedStream", "streamId": stream_id, "name": name})


def build_cleared(stream_id: str) -> str:
    """Return the carrier's answer to clearAudio."""
    return _json({"event": "clearedAudio", "streamId": stream_id})


def build_play_audio(stream_id: str, format: AudioFormat, payload: bytes) -> str:
    """Return the app's ``playAudio``; without its stream id the carrier ignores it silently."""
    return VOBIZ.build_audio(stream_id, format, payload)


def build_checkpoint(stream_id: str, name: str) -> str:
    """Return the app's ``checkpoint``."""
    return VOBIZ.build_mark(stream_id, name)


def build_clear_audio(stream_id: str) -> str:
    """Return the app's ``clearAudio``."""
    return VOBIZ.build_clear(stream_id)


def build_eka_start(sample_rate: int, stream_id: str = "") -> str:
    """Return EkaScribe's ``start``; its server takes a rate that is a string for 16000, so it goes as an integer."""
    start: dict[str, object] = {"streamId": stream_id} if stream_id else {}
    start["mediaFormat"] = {"encoding": CONTENT_TYPES["s16le"], "sampleRate": sample_rate}
    return _json({"event": "start", "start": start})


def build_eka_media(payload: bytes) -> str:
    """Return EkaScribe's ``media``."""
    return _json({"event": "media", "media": {"payload": payload}})


def build_eka_stop(reason: str = "") -> str:
    """Return EkaScribe's ``stop``."""
    return _json({"event": "stop"} | ({"reason": reason} if reason else {}))
