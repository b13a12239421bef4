"""What a carrier says to an app, as each of the family says it: the other direction of ``envelope.parse``.  No I/O.

It is for simulated carriers.  ``sequence`` counts all messages of a socket, ``chunk`` the media of a track::

                   vobiz, plivo           twilio                  telnyx                 exotel
    first          –                      connected, protocol,    connected, version     connected
                                          version
    in start       callId, streamId,      callSid, streamSid,     call_control_id,       call_sid, stream_sid,
                   accountId, tracks,     accountSid, tracks,     user_id, from, to,     account_sid, from, to,
                   mediaFormat            mediaFormat             media_format           media_format
    given along    plivo: extra_headers   customParameters        custom_parameters,     custom_parameters
                   "k=v;k2=v2"                                    client_state
    in media       track, chunk n,        track, chunk "n",       track, chunk "n",      chunk n,
                   timestamp "ms"         timestamp "ms"          timestamp "ms"         timestamp "ms"
    in dtmf        digit, track           digit, "inbound_track"  digit                  digit, duration
    a mark's echo  playedStream           mark                    mark                   mark
    in stop        reason                 accountSid, callSid     user_id,               account_sid, call_sid,
                                                                  call_control_id        reason
    number         sequenceNumber n       sequenceNumber "n"      sequence_number "n"    sequence_number n

What was given along stands in ``metadata`` as ``custom_NAME``, as ``envelope.parse`` gives it.  Telnyx's
``occurred_at`` is left out.  Reference: the pages named in ``dialects``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from . import envelope
from .dialects import CONTENT_TYPES, Dialect, Name
from .frame import AudioFormat

DTMF_MS = 100
"""How long a key is said to have been held down."""


class _Keys(NamedTuple):
    """What a carrier calls its fields."""

    call: str
    stream: str
    account: str
    sequence: str
    format: str
    rate: str
    parameters: str


_KEYS: dict[Name, _Keys] = {
    "twilio": _Keys(
        "callSid", "streamSid", "accountSid", "sequenceNumber", "mediaFormat", "sampleRate", "customParameters"
    ),
    "telnyx": _Keys(
        "call_control_id",
        "stream_id",
        "user_id",
        "sequence_number",
        "media_format",
        "sample_rate",
        "custom_parameters",
    ),
    "exotel": _Keys(
        "call_sid", "stream_sid", "account_sid", "sequence_number", "media_format", "sample_rate", "custom_parameters"
    ),
}
_CONNECTED: dict[Name, dict[str, str]] = {
    "twilio": {"protocol": "Call", "version": "1.0.0"},
    "telnyx": {"version": "1.0.0"},
    "exotel": {},
}
_TELNYX_CODECS = {"mulaw": "PCMU", "alaw": "PCMA", "s16le": "L16"}


class Carrier(msgspec.Struct, frozen=True, kw_only=True):
    """One socket of a call: what never changes in it."""

    dialect: Dialect
    call_id: str
    stream_id: str
    account_id: str
    format: AudioFormat
    tracks: tuple[str, ...]
    metadata: Mapping[str, str] = {}

    def opening(self) -> list[str]:
        """Return what is said before any audio."""
        if self._keys is None:
            start = envelope.build_start(self.call_id, self.stream_id, self.account_id, self.format, self.tracks)
            given = ";".join(f"{name}={value}" for name, value in self._given().items())
            if self.dialect.name == "plivo":
                start = _json({**msgspec.json.decode(start), "extra_headers": given})
            return [start]
        connected = {"event": "connected", **_CONNECTED[self.dialect.name]}
        return [_json(connected), self._message("start", 1, start=self._start(self._keys))]

    def media(self, sequence: int, track: str, chunk: int, timestamp_ms: int, payload: bytes) -> str:
        """Return a frame of audio, in the carrier's byte order."""
        if self._keys is None:
            return envelope.build_media(self.stream_id, sequence, track, chunk, timestamp_ms, payload)
        exotel = self.dialect.name == "exotel"
        body: dict[str, object] = {} if exotel else {"track": track}
        body |= {"chunk": chunk if exotel else str(chunk), "timestamp": str(timestamp_ms), "payload": payload}
        return self._message("media", sequence, media=body)

    def dtmf(self, sequence: int, digit: str, track: str) -> str:
        """Return that a key was pressed."""
        if self._keys is None:
            return envelope.build_dtmf(self.stream_id, sequence, digit, track)
        more = {"twilio": {"track": f"{track}_track"}, "exotel": {"duration": str(DTMF_MS)}}
        return self._message("dtmf", sequence, dtmf={"digit": digit} | more.get(self.dialect.name, {}))

    def played(self, sequence: int, name: str) -> str:
        """Return that all audio before the mark ``name`` has been played."""
        if self._keys is None:
            return envelope.build_played(self.stream_id, name)
        return self._message("mark", sequence, mark={"name": name})

    def stop(self, sequence: int, reason: str = "") -> str:
        """Return that the stream is over."""
        if self._keys is None:
            return envelope.build_stop(self.stream_id, reason)
        body = {self._keys.account: self.account_id, self._keys.call: self.call_id}
        return self._message(
            "stop", sequence, stop=body | ({"reason": reason} if self.dialect.name == "exotel" and reason else {})
        )

    @property
    def _keys(self) -> _Keys | None:
        """None for the carriers whose messages ``envelope`` builds."""
        return _KEYS.get(self.dialect.name)

    def _given(self) -> dict[str, str]:
        return {
            name.removeprefix("custom_"): value for name, value in self.metadata.items() if name.startswith("custom_")
        }

    def _start(self, keys: _Keys) -> dict[str, object]:
        name, given, rate = self.dialect.name, self._given(), self.format.sample_rate
        start: dict[str, object] = {keys.account: self.account_id, keys.call: self.call_id}
        if name == "twilio":
            start |= {keys.stream: self.stream_id, "tracks": self.tracks}
            format = {"encoding": CONTENT_TYPES[self.format.encoding], keys.rate: rate, "channels": 1}
        elif name == "telnyx":
            format = {"encoding": _TELNYX_CODECS[self.format.encoding], keys.rate: rate, "channels": 1}
            if "client_state" in given:
                start["client_state"] = given.pop("client_state")
        else:
            start[keys.stream] = self.stream_id
            format = {"encoding": "base64", keys.rate: str(rate), "bit_rate": f"{rate * 16 // 1000}kbps"}
        if name != "twilio":
            start |= {key: self.metadata[key] for key in ("from", "to") if key in self.metadata}
        return start | {keys.parameters: given, keys.format: format}

    def _message(self, event: str, sequence: int, **body: object) -> str:
        assert self._keys is not None
        number = sequence if self.dialect.name == "exotel" else str(sequence)
        return _json({"event": event, self._keys.sequence: number, self._keys.stream: self.stream_id, **body})


def _json(message: Mapping[str, object]) -> str:
    return msgspec.json.encode(message).decode()
