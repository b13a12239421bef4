"""What `make fuzz` holds of any bytes, held of the corpus: golden messages, and what was once misread.

A target takes one input of the fuzzer (``fuzz.py``), and raises if anything reads it otherwise than it should.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from mediaflow import WireError, envelope
from mediaflow._wire.frames import encode

from .test_frames import Outcome, compare, cut
from .test_media import agrees

CORPUS = Path(__file__).with_name("corpus")

SERVER, REUSED, EAGER, BYTEWISE = 1, 2, 4, 8
MOST_CUTS = 7


def frames(data: bytes) -> None:
    """What a peer sends is read as the `websockets` library reads it, and written so that both read it again.

    byte 0       SERVER: we are; REUSED, EAGER, BYTEWISE: how it is fed and taken
    byte 1       in its lowest bits: how many of the bytes behind it say where what is sent is cut
    the rest     what is sent
    """
    flags, places = data[0] if data else 0, data[2 : 2 + (data[1] & MOST_CUTS)] if len(data) > 1 else b""
    sent, server = data[2 + len(places) :], bool(flags & SERVER)
    pieces = [bytes([byte]) for byte in sent] if flags & BYTEWISE else cut(sent, places)
    events = compare(pieces, server, reused=bool(flags & REUSED), eager=bool(flags & EAGER)).events
    written = b"".join(encode(opcode, payload, server) for opcode, payload in events)
    assert compare([written], server) == Outcome(events, None)


def media(data: bytes) -> None:
    """A message is read by the fast path as by the general reader, or not; no reader fails but with ``WireError``."""
    read = agrees(data)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        assert read is None
    else:
        assert agrees(text) == read
    for reader in (lambda data: envelope.parse(data, None), envelope.parse_eka, envelope.outline):
        with suppress(WireError):
            reader(data)


NAMES = [
    "event", "media", "payload", "track", "chunk", "timestamp", "x", "é", "\\u0078",
    "Event", "_media", "PAYLOAD", "Track_", "chu_nk", "time_stamp", "timeStamp",
]  # fmt: skip
VALUES = [
    '"media"', '""', '"inbound"', '"outbound"', '"both"', '"Media"', '"stop"', '"\\u0061"', '"\\""', '"é"', '"\t"',
    '"AAAA"', '"AAA="', '"AA=="', '"A==="', '"===="', '"AA=A"', '"=AAA"', '"AA==AAAA"', '"AAA"', '"QR=="', '"-_+/"',
    "0", "7", "-1", "-0", "01", "1.5", "1e9", "1E400", "999999999999999999", "1000000000000000000", "-", "null", "true",
    '"0"', '"-20"', '"1.5"', '" 1"', '"+1"', '"1_0"', '"٣"', '"nan"', "{}", "[]", '{"payload":"AAAA"}', "[1,2]", "",
]  # fmt: skip
OUTSIDE = 1 << 7


def members(data: bytes) -> None:
    """What ``media`` holds, of messages that have any members, in any order, with any values.

    every two    a member's name and value, of which those behind VALUES are audio; OUTSIDE media: of the message
    the last     if it stands alone: where a character is left out
    """
    inside: list[str] = []
    outside = ['"event":"media"']
    for name, number in zip(data[::2], data[1::2], strict=False):
        audio = base64.b64encode(bytes(range(max(0, number - len(VALUES))))).decode()
        value = VALUES[number] if number < len(VALUES) else f'"{audio}"'
        (outside if name & OUTSIDE else inside).append(f'"{NAMES[name % len(NAMES)]}":{value}')
    message = f'{{{",".join(outside)},"media":{{{",".join(inside)}}}}}'
    if len(data) % 2:
        place = data[-1] % len(message)
        message = message[:place] + message[place + 1 :]
    media(message.encode())


TARGETS: dict[str, Callable[[bytes], None]] = {"frames": frames, "media": media, "members": members}


@pytest.mark.parametrize("file", [pytest.param(file, id=file.name) for file in sorted(CORPUS.glob("*/*"))])
def test_corpus(file: Path) -> None:
    """No input from which fuzzing begins is misread."""
    TARGETS[file.parent.name](file.read_bytes())
