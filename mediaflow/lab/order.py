"""A stream that somebody asks the carrier for, in an answer's XML or by its REST API, as the carrier reads it.  No I/O.

    in XML                  in REST                   where it is left out
    text of the element     service_url
    audioTrack              audio_track               inbound in XML, both in REST
    bidirectional           bidirectional             false; in REST only the string "true" counts
    contentType             content_type              audio/x-l16;rate=8000
    streamTimeout           stream_timeout            86400
    statusCallbackUrl       status_callback_url       nobody is told
    statusCallbackMethod    status_callback_method    POST
    extraHeaders            extra_headers             none
    maxRetries                                        0
    keepCallAlive                                     false

Vobiz is silent about much that cannot work.  Here that comes as a *remark* beside the order, for people to read.

Documentation: https://vobiz.ai/docs, XML: Stream, and Audio Streams API.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec

from ..answer import MAX_RETRIES
from ..vobiz import MAX_HEADERS, Track

RATES = {"audio/x-mulaw;rate=8000": 8000, "audio/x-l16;rate=8000": 8000, "audio/x-l16;rate=16000": 16000}
"""The content types that give audio, and the rate of each."""

MUTE = "audio/x-l16;rate=24000"
"""A content type that Vobiz takes, and then never opens the socket."""

FROM_REST = {
    "audio_track": "audioTrack",
    "bidirectional": "bidirectional",
    "content_type": "contentType",
    "stream_timeout": "streamTimeout",
    "status_callback_url": "statusCallbackUrl",
    "status_callback_method": "statusCallbackMethod",
    "extra_headers": "extraHeaders",
}
"""What the REST API calls the attributes of XML."""


class OrderError(ValueError):
    """The carrier cannot take the order; the text says why, without the address."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A stream to start."""

    url: str
    track: Track
    bidirectional: bool
    content_type: str
    timeout_s: int
    max_retries: int
    keep_alive: bool
    status_url: str
    status_method: Literal["GET", "POST"]
    extra_headers: str

    def echo(self) -> dict[str, str]:
        """Return what every status callback repeats of the order, as form fields."""
        fields = {
            "audioTrack": self.track,
            "bidirectional": _word(self.bidirectional),
            "contentType": self.content_type,
            "streamTimeout": str(self.timeout_s),
            "maxRetries": str(self.max_retries),
            "keepCallAlive": _word(self.keep_alive),
            "extraHeaders": self.extra_headers,
            "status_callback_url": self.status_url,
            "status_callback_method": self.status_method,
        }
        pairs = (pair.partition("=") for pair in self.extra_headers.split(",") if "=" in pair)
        return fields | {f"X-VH-{key.strip()}": value.strip() for key, _, value in pairs}


class Ordered(NamedTuple):
    """An order, and what whoever placed it should know."""

    order: Order
    remarks: tuple[str, ...]


def read(url: object, given: Mapping[str, Any], default_track: Track) -> Ordered:
    """Read an order whose options have the names that they have in XML; raise ``OrderError`` if that cannot be done."""
    remarks = []
    if not isinstance(url, str) or urlsplit(url.strip()).scheme not in ("ws", "wss"):
        raise OrderError("a stream needs a ws:// or wss:// address")
    strange = [name for name in given if name not in FROM_REST.values() and name not in ("maxRetries", "keepCallAlive")]
    if strange:
        remarks.append(f"a stream has no option {' and '.join(strange)}: passed over")
    if isinstance(given.get("bidirectional"), bool):
        remarks.append('bidirectional is a JSON boolean, which counts for nothing: the string "true" is meant')
    bidirectional = given.get("bidirectional") == "true"
    keep_alive = str(given.get("keepCallAlive")).lower() == "true"
    if keep_alive and not bidirectional:
        remarks.append("keepCallAlive has no effect without bidirectional")
    content_type = str(given.get("contentType", "audio/x-l16;rate=8000")).replace(" ", "")
    if content_type == MUTE:
        remarks.append(f"{MUTE} is for audio towards the caller: the socket is never opened")
    elif content_type not in RATES:
        raise OrderError(f"contentType is one of {', '.join(RATES)}")
    track = given.get("audioTrack", default_track)
    if track not in ("inbound", "outbound", "both"):
        raise OrderError("audioTrack is one of inbound, outbound, both")
    headers = given.get("extraHeaders") or ""
    if len(str(headers)) > MAX_HEADERS:
        remarks.append(f"extraHeaders come to more than {MAX_HEADERS} bytes: undefined at Vobiz")
    order = Order(
        url=url.strip(),
        track=track,
        bidirectional=bidirectional,
        content_type=content_type,
        timeout_s=_whole("streamTimeout", given.get("streamTimeout", 86_400), 1, 10**9),
        max_retries=_whole("maxRetries", given.get("maxRetries", 0), 0, MAX_RETRIES),
        keep_alive=keep_alive and bidirectional,
        status_url=str(given.get("statusCallbackUrl") or ""),
        status_method="GET" if str(given.get("statusCallbackMethod")).upper() == "GET" else "POST",
        extra_headers=str(headers),
    )
    return Ordered(order, tuple(remarks))


def _whole(name: str, value: object, low: int, high: int) -> int:
    text = str(value)
    if isinstance(value, bool) or not text.isdecimal() or not low <= int(text) <= high:
        raise OrderError(f"{name} is a whole number from {low} to {high}")
    return int(text)


def _word(value: bool) -> str:
    return "true" if value else "false"
