"""What a call is answered with: Vobiz's XML, which tells the carrier to fork the call's audio to us.

::

    answer.listen(answer.Stream("wss://calls.example.org/vobiz/SECRET"), answer.Dial("+911140001000"))

    <Response>
      <Stream audioTrack="both" …>wss://calls.example.org/vobiz/SECRET</Stream>      what is forked
      <Dial><Number>+911140001000</Number></Dial>                                    what the call does meanwhile
    </Response>

The address is the text of the element, not an attribute.  There are two ways to answer, and each refuses what Vobiz
would refuse, or worse, take and then drop the call or stay silent.  An ``AnswerError`` says which and what to do::

    asked for                                   what Vobiz does with it
    bidirectional, and a track but inbound      hangs up, "End Of XML Instructions", or sends ``start`` and no audio
    listening with nothing behind it            hangs up at once: a fork does not hold the call (code 4010)
    keepCallAlive without bidirectional         nothing; the call ends all the same
    an unescaped ``&``                          "Invalid Answer XML", and drops the call a second later
    extraHeaders over 512 bytes, or with signs  undefined; letters and digits are what is promised, and ``_`` is what
                                                Vobiz's own example has
    a rate of 24000                             takes it and sends nothing: it is for audio towards the caller only
    more than 10 retries                        out of the promised range
    a document over 100 kB                      too long

What is in ``extraHeaders`` comes back in status callbacks as ``X-VH-<key>`` and never on the socket: what the stream
has to know belongs into the address.

Documentation: https://vobiz.ai/docs, XML: Stream, Dial, Wait, Hangup.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, get_args
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

import msgspec

from .vobiz import ContentType, Track, join_headers

CONTENT_TYPE = "application/xml"
"""What the answer is sent as; as text/html it would drop the call."""

MAX_BYTES = 100_000
MAX_RETRIES = 10

_NUMBER = re.compile(r"\+?[0-9]{3,15}")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f\ud800-\udfff\ufffe\uffff]")
"""What an address may not hold: XML has no way to write most of it."""


class AnswerError(ValueError):
    """Vobiz would refuse this answer, or drop the call over it; the text says why and what to do."""


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """A fork of the call's audio to ``url``; raises ``AnswerError`` where its options contradict Vobiz.

    ``status_url`` gets the stream's callbacks.  After a lost connection Vobiz connects again up to ``max_retries``
    times.
    """

    url: str
    audio_track: Track = "both"
    content_type: ContentType = "audio/x-mulaw;rate=8000"
    status_url: str = ""
    status_method: Literal["GET", "POST"] = "POST"
    max_retries: int = 3
    timeout_s: int = 86_400
    extra_headers: Mapping[str, str] = {}

    def __post_init__(self) -> None:
        _check_url("url", self.url, "ws", "wss")
        if self.status_url:
            _check_url("status_url", self.status_url, "http", "https")
        if self.audio_track not in get_args(Track):
            raise AnswerError(f"audio_track is one of {', '.join(get_args(Track))}, not {self.audio_track!r}")
        if self.content_type not in get_args(ContentType):
            raise AnswerError(f"content_type is one of {', '.join(get_args(ContentType))}, not {self.content_type!r}")
        if not 0 <= self.max_retries <= MAX_RETRIES:
            raise AnswerError(f"max_retries is from 0 to {MAX_RETRIES}, not {self.max_retries}")
        if self.timeout_s < 1:
            raise AnswerError(f"timeout_s is at least 1, not {self.timeout_s}")
        try:
            join_headers(self.extra_headers)
        except ValueError as error:
            raise AnswerError(str(error)) from None

    def __repr__(self) -> str:
        return f"Stream({self.audio_track}, {self.content_type})"  # whoever knows the url may connect


class Dial(msgspec.Struct, frozen=True):
    """Connect the caller with ``number``.

    It sees ``caller_id``, which has to be a number of the account's; without it the caller's own, which carriers in
    India refuse (hangup 3030, "Unknown Caller ID").
    """

    number: str
    caller_id: str = ""

    def __post_init__(self) -> None:
        for name, value in (("number", self.number), ("caller_id", self.caller_id or "+100")):
            if not _NUMBER.fullmatch(value):
                raise AnswerError(f"{name} is not a telephone number as in +911140001000")

    def __repr__(self) -> str:
        return "Dial(…)"


class Wait(msgspec.Struct, frozen=True):
    """Keep the call up in silence for ``length_s`` seconds, then let it end."""

    length_s: int = 14_400

    def __post_init__(self) -> None:
        if self.length_s < 1:
            raise AnswerError(f"length_s is at least 1, not {self.length_s}")


class Hangup(msgspec.Struct, frozen=True):
    """End the call."""


def listen(stream: Stream, then: Dial | Wait) -> bytes:
    """Return the answer that forks the audio to us while the call does what ``then`` says."""
    if not isinstance(then, Dial | Wait):
        raise AnswerError(
            "a fork that only listens does not hold the call: Vobiz would hang up at once; say Dial or Wait behind it"
        )
    return _document(_stream(stream), then)


def converse(stream: Stream, then: Dial | Wait | Hangup, *, keep_call_alive: bool = True) -> bytes:
    """Return the answer whose stream goes both ways; the call does what ``then`` says once the stream has ended.

    The stream holds the call while it lasts, and with ``keep_call_alive`` also while it is connected again.
    """
    if stream.audio_track != "inbound":
        raise AnswerError(
            f"a stream of both ways carries the track inbound, not {stream.audio_track}: Vobiz would hang up, or send "
            f"no audio; say audio_track=inbound, or listen()"
        )
    if not isinstance(then, Dial | Wait | Hangup):
        raise AnswerError(
            "say what the caller gets when the stream has ended: Dial, Wait or Hangup; else it is silence"
        )
    element = _stream(stream)
    element.set("bidirectional", "true")
    if keep_call_alive:
        element.set("keepCallAlive", "true")
    return _document(element, then)


def _stream(stream: Stream) -> ET.Element:
    attributes = {
        "audioTrack": stream.audio_track,
        "contentType": stream.content_type,
        "streamTimeout": str(stream.timeout_s),
        "maxRetries": str(stream.max_retries),
    }
    if stream.status_url:
        attributes |= {"statusCallbackUrl": stream.status_url, "statusCallbackMethod": stream.status_method}
    if stream.extra_headers:
        attributes["extraHeaders"] = join_headers(stream.extra_headers)
    element = ET.Element("Stream", attributes)
    element.text = stream.url
    return element


def _document(stream: ET.Element, then: Dial | Wait | Hangup) -> bytes:
    response = ET.Element("Response")
    response.append(stream)
    if isinstance(then, Dial):
        dial = ET.SubElement(response, "Dial", {"callerId": then.caller_id} if then.caller_id else {})
        ET.SubElement(dial, "Number").text = then.number
    elif isinstance(then, Wait):
        ET.SubElement(response, "Wait", {"length": str(then.length_s)})
    else:
        ET.SubElement(response, "Hangup")
    document: bytes = ET.tostring(response, encoding="UTF-8", xml_declaration=True)
    if len(document) > MAX_BYTES:
        raise AnswerError(f"the answer has {len(document)} bytes and may have {MAX_BYTES}: shorten its addresses")
    return document


def _check_url(name: str, url: str, *schemes: str) -> None:
    """Refuse what is no address; the text does not show it, for it may be a secret."""
    wanted = " or ".join(f"{scheme}://" for scheme in schemes)
    try:
        parts = urlsplit(url)
        good = parts.scheme in schemes and parts.hostname and not _UNPRINTABLE.search(url)
    except ValueError:
        good = False
    if not good:
        raise AnswerError(f"{name} is not a {wanted} address with a host and without spaces")
    if "&amp;" in url:
        raise AnswerError(f"{name} is escaped already (&amp;): give it as it is, it is escaped when it is written")
