"""The sister wires of Media Streams: one table of what each carrier does its own way.  No I/O.

All of them send ``start``, ``media``, ``dtmf`` and ``stop`` as JSON text and base64 over a WebSocket that the carrier
opens.  What differs is facts, not code, so a dialect is one row here: ``envelope`` reads by it, ``build_…`` writes by
it.  Another carrier of this family is another row::

                      vobiz           plivo           twilio            telnyx             exotel
    carrier → us
    call id           callId          callId          callSid           call_control_id    call_sid
    stream id         streamId        streamId        streamSid         stream_id, top     stream_sid
    account           accountId       accountId       accountSid        user_id            account_sid
    of the caller     –               extra_headers   customParameters  custom_parameters, custom_parameters
                                      "k=v;k2=v2"                       client_state
    from, to          flat only       –               –                 yes                yes
    codecs            µ-law 8k,       µ-law 8k,       µ-law 8k          PCMU, PCMA,        s16le 8k, 16k, 24k
                      L16 8k, 16k     L16 8k, 16k                       L16 (a) 8k, 16k    ("base64", "raw/slin")
    frame             20 ms           20 ms           20 ms             20 ms, any order   100 ms
    timestamp         epoch ms        epoch ms (d)    ms of the stream  ms of the stream   ms of the stream
    track             both            both            both              both               not named: the caller's
    its own events                                    connected         connected, error   connected
    us → carrier
    audio             playAudio (b)   playAudio (b)   media, streamSid  media, no id       media, stream_sid (c)
    mark              checkpoint      checkpoint      mark              mark               mark
    its echo          playedStream    playedStream    mark              mark               mark
    clear             clearAudio      clearAudio      clear             clear              clear
    its answer        clearedAudio    clearedAudio    the marks (e)     the marks (e)      the marks (e)
    what it plays     as it sends (g) as it sends     µ-law 8k          PCMU (f)           as it sends

    (a) Telnyx also offers G722, OPUS and AMR-WB, which nothing here decodes: they are refused by name
    (b) with streamId, contentType without a rate, and sampleRate
    (c) multiples of 320 bytes, 3200 to 100 000 of them: shorter ones crackle, longer ones time out
    (d) so in the examples of its pages; its SDK speaks of ms of the stream.  It matters only where a call comes back
    (e) those not come to are sent back as if they had been, by Twilio's pages; with the other two it is only feared
    (f) unless stream_bidirectional_codec names another, which no message tells
    (g) L16 least byte first, also where it comes the other way round, as Vobiz's guide for agents says

Vobiz and Plivo send the same ``start``; only Plivo's extra headers tell it from Vobiz, whose are always ``"{}"``.
A message alone says nothing more, so who has calls from both and cares which is which configures the dialect.

Reference: the five carriers' pages on stream messages, Plivo's streaming SDK, and Pipecat 1.14 for what is sent back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from .frame import AudioFormat, Encoding

Name = Literal["vobiz", "plivo", "twilio", "telnyx", "exotel"]

CONTENT_TYPES: dict[Encoding, str] = {"s16le": "audio/x-l16", "mulaw": "audio/x-mulaw", "alaw": "audio/x-alaw"}


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table.  The names of fields to read are lower case without ``_``, as ``envelope`` folds them."""

    name: Name
    signs: frozenset[str] = frozenset()
    """Keys, as they are on the wire, that a ``start`` of no other dialect has."""
    call_id: str
    stream_id: str
    account_id: str
    parameters: tuple[str, ...] = ()
    """Where what the caller of the API gave along stands, by the name that it has in snake case."""
    encodings: Mapping[str, Encoding] = {}
    """Names of encodings beside those that all carriers share."""
    formats: tuple[AudioFormat, ...]
    """What a call may bring."""
    refused: str = ""
    """What the carrier can be told to send instead of a codec that is not known here."""
    tracks: tuple[str, ...] | None = None
    """Of a ``start`` that names none; None if any may come."""
    own_clock: bool = False
    """True if timestamps begin anew with every socket."""
    frame_ms: int = 20
    """How much audio is in a message."""
    reorder: int = 0
    """How many frames of a track may be waited for because one that precedes them is still on its way."""
    id_key: str = ""
    """The key of the stream id in messages to the carrier; empty if they have none."""
    verbs: tuple[str, str, str] = ("media", "mark", "clear")
    """What audio, a mark and clearing are called in messages to the carrier."""
    plays: tuple[AudioFormat, ...]
    """What audio to the carrier may be: the call's own format where it is among these, else the first of them."""
    confirms_clear: bool = False
    """True if it says when it has cleared, and sends no marks back that it did not come to."""
    reply_sizes: range | None = None
    """Bytes that one message of audio to the carrier may hold, if there are limits."""

    def reply_format(self, format: AudioFormat) -> AudioFormat:
        """Return what is played into a call that brings audio of ``format``."""
        return format if format in self.plays else self.plays[0]

    def build_audio(self, stream_id: str, format: AudioFormat, payload: bytes) -> str:
        """Return the message that plays ``payload``, in the carrier's byte order, into the call.

        Raises ValueError for a size that the carrier is known to garble.
        """
        if self.reply_sizes is not None and len(payload) not in self.reply_sizes:
            sizes = self.reply_sizes
            raise ValueError(
                f"{self.name} takes {sizes.start} to {sizes.stop - 1} bytes of audio in a message, "
                f"in multiples of {sizes.step}, not {len(payload)}"
            )
        media: dict[str, object] = {"payload": payload}
        if self.verbs[0] == "playAudio":
            media = {"contentType": CONTENT_TYPES[format.encoding], "sampleRate": format.sample_rate} | media
        return self._build(self.verbs[0], stream_id, media=media)

    def build_mark(self, stream_id: str, name: str) -> str:
        """Return the message that asks to be told when all audio before it has been played."""
        if self.verbs[1] == "checkpoint":
            return self._build("checkpoint", stream_id, name=name)
        return self._build(self.verbs[1], stream_id, mark={"name": name})

    def build_clear(self, stream_id: str) -> str:
        """Return the message that throws away what was sent and is not played yet."""
        return self._build(self.verbs[2], stream_id)

    def _build(self, event: str, stream_id: str, **fields: object) -> str:
        id = {self.id_key: stream_id} if self.id_key else {}
        return msgspec.json.encode({"event": event, **id, **fields}).decode()  # bytes become base64


_MULAW, _ALAW = AudioFormat("mulaw", 8000), AudioFormat("alaw", 8000)
_L16, _L16_WIDE, _L16_24K = AudioFormat("s16le", 8000), AudioFormat("s16le", 16_000), AudioFormat("s16le", 24_000)

VOBIZ = Dialect(
    name="vobiz",
    call_id="callid",
    stream_id="streamid",
    account_id="accountid",
    formats=(_MULAW, _L16, _L16_WIDE),
    id_key="streamId",
    verbs=("playAudio", "checkpoint", "clearAudio"),
    plays=(_MULAW, _L16, _L16_WIDE),
    confirms_clear=True,
)
PLIVO = msgspec.structs.replace(VOBIZ, name="plivo", parameters=("extra_headers",))
TWILIO = Dialect(
    name="twilio",
    signs=frozenset({"callSid", "streamSid"}),
    call_id="callsid",
    stream_id="streamsid",
    account_id="accountsid",
    parameters=("custom_parameters",),
    formats=(_MULAW,),
    own_clock=True,
    id_key="streamSid",
    plays=(_MULAW,),
)
TELNYX = Dialect(
    name="telnyx",
    signs=frozenset({"call_control_id"}),
    call_id="callcontrolid",
    stream_id="streamid",
    account_id="userid",
    parameters=("custom_parameters", "client_state"),
    formats=(_MULAW, _ALAW, _L16, _L16_WIDE),
    refused="set stream_codec to PCMU, PCMA or L16",
    own_clock=True,
    reorder=5,
    plays=(_MULAW,),
)
EXOTEL = Dialect(
    name="exotel",
    signs=frozenset({"call_sid", "stream_sid"}),
    call_id="callsid",
    stream_id="streamsid",
    account_id="accountsid",
    parameters=("custom_parameters",),
    encodings={"base64": "s16le", "raw": "s16le", "raw/slin": "s16le", "slin": "s16le", "pcm": "s16le"},
    formats=(_L16, _L16_WIDE, _L16_24K),
    tracks=("inbound",),
    own_clock=True,
    frame_ms=100,
    id_key="stream_sid",
    plays=(_L16, _L16_WIDE, _L16_24K),
    reply_sizes=range(3_200, 100_001, 320),
)

DIALECTS: dict[Name, Dialect] = {each.name: each for each in (VOBIZ, PLIVO, TWILIO, TELNYX, EXOTEL)}


def recognise(start: Mapping[str, Any]) -> Dialect:
    """Return the dialect of a ``start`` message, which it shows by itself: nothing after it is looked at."""
    inner = start.get("start")
    keys = {*start, *(inner if isinstance(inner, dict) else ())}
    for dialect in (TELNYX, EXOTEL, TWILIO):
        if dialect.signs & keys:
            return dialect
    return VOBIZ if start.get("extra_headers") in (None, "", "{}", {}) else PLIVO
