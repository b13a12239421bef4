"""Make the inputs from which `make fuzz` begins: ``PYTHONPATH=tests python tests/wire/make_corpus.py``.

They are the golden messages of all dialects, with less audio in them, and WebSocket frames of every kind.  What fuzzing
has found lies beside them as ``found-…``, and stays.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

from test_dialects import B64, OTHERS, START
from test_envelope import GOLDEN
from wire.test_frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame
from wire.test_fuzz import BYTEWISE, CORPUS, EAGER, NAMES, REUSED, SERVER, VALUES


def messages() -> Iterator[tuple[str, bytes]]:
    """Return what carriers say to us and we to them and to EkaScribe."""
    golden = [("golden", wire) for _, wire, _ in GOLDEN]
    starts = [(name, wire) for name, (wire, _) in START.items()]
    others = [(name, wire) for name, wire, _ in OTHERS]
    for name, wire in golden + starts + others:
        text = json.dumps(wire, separators=(",", ":")).replace(B64, "AAECAwQFBgcICQ==")
        yield f"{name}-{wire['event']}", text.encode()
    for payload in ("", "AA==", "AAA=", "AAAA"):
        yield "bare-media", json.dumps({"event": "media", "media": {"payload": payload}}).encode()


def sent(server: bool) -> Iterator[tuple[str, bytes]]:
    """Return what a peer may send."""
    said = b'{"event":"stop"}'
    yield "text", frame(TEXT, said, server)
    yield "binary", frame(BINARY, bytes(range(130)), server)
    yield "two", frame(TEXT, said, server) + frame(BINARY, b"\xff", server)
    yield "ping", frame(PING, b"1", server) + frame(PONG, b"", server)
    yield "close", frame(CLOSE, b"\x03\xe8bye", server) + frame(TEXT, said, server)
    word = "µ…🙂".encode()
    parts = frame(TEXT, word[:3], server, fin=False), frame(PING, b"", server), frame(CONTINUATION, word[3:], server)
    yield "parts", b"".join(parts)


def inputs() -> Iterator[tuple[str, str, bytes]]:
    """Return target, name and bytes of every input."""
    for name, data in messages():
        yield "media", name, data
    payload, track, chunk, timestamp = map(NAMES.index, ("payload", "track", "chunk", "timestamp"))
    for value, audio in enumerate((VALUES.index('"AAAA"'), 253, 254, 255)):
        yield "members", "payload", bytes([payload, audio])
        yield "members", "whole", bytes([track, value, chunk, VALUES.index("7"), payload, audio, timestamp, value])
    for side, server in (("server", SERVER), ("client", 0)):
        for name, data in sent(bool(server)):
            for way, flags in (("whole", EAGER), ("cut", REUSED), ("bytes", EAGER | BYTEWISE)):
                cuts = bytes([3, 1, 4, len(data) // 2]) if way == "cut" else b"\0"
                yield "frames", f"{side}-{name}-{way}", bytes([server | flags]) + cuts + data


if __name__ == "__main__":
    seen: Counter[str] = Counter()
    for old in CORPUS.glob("*/*"):
        if not old.name.startswith("found-"):
            old.unlink()
    for target, name, data in inputs():
        seen[target + name] += 1
        file = CORPUS / target / (name if seen[target + name] == 1 else f"{name}-{seen[target + name]}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
