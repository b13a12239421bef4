"""The compiled frames against the `websockets` library's protocol, which does no I/O either, and against themselves."""

from __future__ import annotations

import codecs
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple

import pytest
from hypothesis import given, settings, strategies as st
from websockets.frames import Frame, Opcode as LibraryOpcode
from websockets.protocol import Protocol, Side
from websockets.streams import StreamReader

from mediaflow._wire.frames import Decoder, FrameError, Opcode, encode

LIMIT = 1000
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


class Outcome(NamedTuple):
    """What a reader made of the bytes."""

    events: list[tuple[int, bytes]]
    failure: int | None


def compiled(
    pieces: Iterable[bytes], server: bool, limit: int = LIMIT, *, reused: bool = False, eager: bool = True
) -> Outcome:
    """Read with the core, all that comes: out of ``bytes`` or one buffer that is ``reused``, and every message at once
    or, if not ``eager``, one at a time, so that the next piece is fed while others wait.
    """
    decoder = Decoder(server, limit)
    events: list[tuple[int, bytes]] = []
    buffer = bytearray()

    def take(message: bytes) -> bool:
        events.append((decoder.opcode, message))
        return eager

    def read() -> None:
        while (event := decoder.deliver(take)) > BINARY:
            events.append((event, decoder.payload))

    try:
        for piece in pieces:
            if reused:
                buffer[: len(piece)] = piece
                decoder.feed(memoryview(buffer), len(piece))
            else:
                decoder.feed(piece)
            read()
        while decoder.waiting:
            read()
    except FrameError as error:
        return Outcome(events, error.code)
    return Outcome(events, None)


def library(data: bytes, server: bool) -> Outcome:
    """Read with the library, joining fragments and checking text as they come, which it leaves to its user."""
    protocol = Protocol(Side.SERVER if server else Side.CLIENT, max_size=LIMIT)
    protocol.receive_data(data)
    events: list[tuple[int, bytes]] = []
    parts, kind = b"", 0
    decoder = codecs.getincrementaldecoder("utf-8")()
    for frame in protocol.events_received():
        assert isinstance(frame, Frame)
        opcode, payload = int(frame.opcode), bytes(frame.data)
        if opcode >= CLOSE:
            events.append((opcode, payload))
            continue
        kind = opcode or kind
        parts += payload
        if kind == TEXT:
            try:
                decoder.decode(payload, frame.fin)
            except UnicodeDecodeError:
                return Outcome(events, 1007)
            begun, _ = decoder.getstate()
            if begun[:1] == b"\xed" and begun[1:2] >= b"\xa0":  # a surrogate, which it only tells with the third byte
                return Outcome(events, 1007)
        if frame.fin:
            events.append((kind, parts))
            parts, kind = b"", 0
            decoder.reset()
    failure = None
    if protocol.parser_exc is not None:
        if str(protocol.parser_exc) == "incomplete fragmented message":
            # The one difference: a close amid a message fails there, and is a close as any other here (section 5.4).
            assert protocol.close_rcvd is not None
            rest = protocol.close_rcvd
            payload = b"" if rest.code == 1005 else rest.code.to_bytes(2, "big") + rest.reason.encode()
            return Outcome([*events, (CLOSE, payload)], None)
        assert protocol.close_sent is not None
        failure = int(protocol.close_sent.code)
    return Outcome(events, failure)


def compare(pieces: list[bytes], server: bool, *, reused: bool = False, eager: bool = True) -> Outcome:
    """Hold that both readers make the same of the bytes, and return that."""
    ours = compiled(pieces, server, reused=reused, eager=eager)
    theirs = library(b"".join(pieces), server)
    if (ours.failure is None) != (theirs.failure is None):
        # Told by a header or the beginning of a payload that has not come whole: one may see it earlier.
        pieces = [*pieces, bytes(2 * LIMIT)]
        ours = compiled(pieces, server, reused=reused, eager=eager)
        theirs = library(b"".join(pieces), server)
    if ours.failure in (1002, 1007) and theirs.failure == 1009:
        # Both against the rules and too long, or a wrong close behind a message that is nearly too long, towards whose
        # length the library counts the close: which is said first is a matter of taste.
        assert ours.events[: len(theirs.events)] == theirs.events
        return ours
    if theirs.failure == 1009 and ours.events[len(theirs.events) :][:1] >= [(CLOSE, b"")]:
        # The library counts a control frame amid a message towards the message's length; we do not.
        ours = Outcome(ours.events[: len(theirs.events)], 1009)
    assert ours == theirs
    return ours


def frame(opcode: int, payload: bytes, server: bool, fin: bool = True) -> bytes:
    """Return the frame as the library writes it, which knows nothing of ours."""
    return Frame(LibraryOpcode(opcode), payload, fin).serialize(mask=server)


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut at these places, each modulo the length."""
    marks = sorted({place % (len(data) + 1) for place in places})
    return [data[a:b] for a, b in zip([0, *marks], [*marks, len(data)], strict=True)]


TEXTS = st.text(max_size=200).map(str.encode)
PAYLOADS = st.one_of(TEXTS, st.binary(max_size=300), st.integers(0, 1100).map(bytes))
CODES = st.sampled_from([1000, 1001, 1003, 1004, 1005, 1006, 1007, 1014, 1015, 2999, 3000, 4999, 5000, 0, 65535])
CLOSES = st.builds(lambda code, reason: (code.to_bytes(2, "big") + reason)[:125], CODES, PAYLOADS)


@st.composite
def streams(draw: st.DrawFn, server: bool) -> bytes:
    """Draw frames as a peer may send them, most of them right, and sometimes a byte changed or bytes of any kind."""
    data = b""
    for _ in range(draw(st.integers(1, 8))):
        opcode = draw(st.sampled_from([0, 0, 1, 1, 1, 2, 2, 8, 9, 10]))
        fin = opcode >= CLOSE or draw(st.booleans())
        payload = draw(CLOSES if opcode == CLOSE else PAYLOADS)
        data += frame(opcode, payload[:125] if opcode >= CLOSE else payload, server, fin)
    if draw(st.booleans()):
        place = draw(st.integers(0, len(data) - 1))
        data = data[:place] + draw(st.binary(min_size=1, max_size=4)) + data[place + draw(st.integers(0, 4)) :]
    return data + draw(st.one_of(st.just(b""), st.binary(max_size=30)))


@pytest.mark.parametrize("server", [True, False])
@settings(max_examples=400)
@given(data=st.data(), cuts=st.lists(st.integers(0, 1 << 16), max_size=12), reused=..., eager=...)
def test_any_bytes_in_any_slicing_mean_what_the_library_reads(
    server: bool, data: st.DataObject, cuts: list[int], reused: bool, eager: bool
) -> None:
    """Messages, control frames, their order and the code of the failure are the same; ours may tell it earlier."""
    sent = data.draw(streams(server))
    compare(cut(sent, cuts), server, reused=reused, eager=eager)


@pytest.mark.parametrize("server", [True, False])
@settings(max_examples=300)
@given(data=st.data(), cuts=st.lists(st.integers(0, 1 << 16), max_size=12))
def test_slicing_does_not_matter(server: bool, data: st.DataObject, cuts: list[int]) -> None:
    """Byte by byte, in any pieces and at once: the same outcome."""
    sent = data.draw(streams(server))
    whole = compiled([sent], server)
    assert compiled(cut(sent, cuts), server) == whole
    assert compiled([bytes([byte]) for byte in sent], server) == whole


@settings(max_examples=300)
@given(
    opcode=st.sampled_from([TEXT, BINARY, PING, PONG]),
    payload=st.binary(max_size=300),
    size=st.sampled_from([0, 1, 7, 8, 9, 125, 126, 127, 65535, 65536]),
    masked=st.booleans(),
)
def test_what_is_written_is_read_by_the_library(opcode: int, payload: bytes, size: int, masked: bool) -> None:
    """One whole frame with the shortest length, its payload as it was."""
    payload = (payload * (size // max(len(payload), 1) + 1))[: 125 if opcode >= CLOSE else max(size, len(payload))]
    written = encode(opcode, payload, masked)
    reader = StreamReader()
    reader.feed_data(written)
    parser = Frame.parse(reader.read_exact, mask=masked)
    with pytest.raises(StopIteration) as stop:
        next(parser)
    read = stop.value.value
    assert (read.opcode, bytes(read.data), read.fin) == (opcode, payload, True)
    assert written[:2] == Frame(LibraryOpcode(opcode), payload).serialize(mask=masked)[:2]
    assert reader.buffer == b""


@given(text=st.text())
def test_text_is_written_as_utf8_and_buffers_as_they_are(text: str) -> None:
    """A str needs no encoding before; any buffer of bytes will do."""
    data = text.encode()
    assert encode(TEXT, text, False) == encode(TEXT, data, False)
    assert encode(BINARY, memoryview(data), False) == encode(BINARY, bytearray(data), False)
    assert encode(BINARY, data, False) == encode(BINARY, memoryview(data), False)


@pytest.mark.parametrize(
    ("opcode", "payload", "error"),
    [(PING, bytes(126), ValueError), (TEXT, "\ud800", UnicodeEncodeError), (BINARY, 5, TypeError)],
)
def test_what_cannot_be_written(opcode: int, payload: object, error: type[Exception]) -> None:
    """A long control frame, half a surrogate pair and what is no buffer are refused."""
    with pytest.raises(error):
        encode(opcode, payload, True)  # type: ignore[arg-type]


RULES: list[tuple[bytes, int | None]] = [
    (b"\xc1\x00", 1002),  # reserved bits
    (b"\xa1\x00", 1002),
    (b"\x91\x00", 1002),
    (b"\x83\x00", 1002),  # reserved opcodes
    (b"\x8b\x00", 1002),
    (b"\x82\x80", 1002),  # a server's frame has no mask
    (b"\x80\x00", 1002),  # a continuation of nothing
    (b"\x01\x00\x81\x00", 1002),  # a message inside another
    (b"\x09\x00", 1002),  # control frames in parts, and long
    (b"\x89\x7e\x00\x7e", 1002),
    (b"\x82\x7f\x80" + bytes(7), 1002),  # 2 to the 63
    (b"\x88\x01\x03", 1002),  # closes
    (b"\x88\x02\x03\xed", 1002),
    (b"\x88\x02\x03\xf7", 1002),
    (b"\x88\x03\x03\xe8\xff", 1007),
    (b"\x88\x03\x03\xe8\xc3", 1007),
    (b"\x81\x02\xc3", None),  # text that may still become right
    (b"\x81\x03\xed\xa0", 1007),  # a surrogate, told before its end
    (b"\x81\x04\xf4\x90", 1007),
    (b"\x81\x01\xc3", 1007),
    (b"\x01\x01\xc3\x80\x01A", 1007),
    (b"\x82\x7e\x03\xe9", 1009),  # 1001 bytes, told by the header
    (b"\x02\x02ab\x80\x7e\x03\xe7", 1009),
    (b"\x82\x7f\x7f" + b"\xff" * 7, 1009),
]


@pytest.mark.parametrize(("sent", "code"), RULES, ids=lambda value: value.hex() if isinstance(value, bytes) else None)
def test_each_rule_with_its_code(sent: bytes, code: int | None) -> None:
    """What breaks a rule fails with its code as soon as the bytes are here that break it."""
    assert compiled([sent], False).failure == code
    assert compiled([sent[:-1]], False).failure is None


def test_nothing_is_read_behind_the_end() -> None:
    """Behind a close, or a failure, bytes are thrown away."""
    decoder = Decoder(False, LIMIT)
    decoder.feed(b"\x88\x00\x81\x01a")
    assert decoder.deliver(lambda message: True) == Opcode.CLOSE
    decoder.feed(b"\x81\x01a")
    assert decoder.deliver(lambda message: True) == 0
    broken = Decoder(False, LIMIT)
    broken.feed(b"\x83\x00\x81\x01a")
    with pytest.raises(FrameError, match="reserved"):
        broken.deliver(lambda message: True)
    assert broken.deliver(lambda message: True) == 0


def test_a_control_frame_does_not_count_towards_the_message_that_it_is_amid() -> None:
    """A message of exactly the limit is taken with pings between its parts."""
    ping = encode(PING, bytes(125), False)
    sent = frame(BINARY, bytes(LIMIT), False, fin=False) + ping + frame(CONTINUATION, b"", False)
    assert compiled([sent], False) == Outcome([(PING, bytes(125)), (BINARY, bytes(LIMIT))], None)


def test_a_buffer_that_is_used_again() -> None:
    """What was fed from a buffer does not change with it."""
    decoder, taken = Decoder(False, LIMIT), list[bytes]()
    buffer = bytearray(encode(BINARY, b"a", False) + encode(BINARY, b"b", False) + b"behind")

    def take(message: bytes) -> bool:
        taken.append(message)
        return False

    decoder.feed(memoryview(buffer), 6)
    assert decoder.deliver(take) == BINARY
    buffer[:] = bytes(len(buffer))
    assert decoder.deliver(take) == BINARY
    assert taken == [b"a", b"b"] and not decoder.waiting
    with pytest.raises(ValueError, match="holds 12 bytes, not 13"):
        decoder.feed(buffer, 13)


@given(
    sizes=st.lists(st.sampled_from([0, 1, 125, 126, 380, 5000, 70_000]), min_size=1, max_size=4),
    masked=st.booleans(),
    cuts=st.lists(st.floats(0, 1), max_size=5),
)
def test_whether_what_is_fed_ends_with_a_frame(sizes: list[int], masked: bool, cuts: list[float]) -> None:
    """Against where the frames end; of a header in parts, or behind a length of 8 bytes, it need not be known."""
    frames = [encode(BINARY, bytes(size), masked) for size in sizes]
    data, ends = b"".join(frames), [0]
    for each in frames:
        ends.append(ends[-1] + len(each))
    decoder = Decoder(masked, 1 << 20)
    here = 0
    for cut in sorted(round(cut * len(data)) for cut in [*cuts, 1.0]):
        decoder.feed(data[here:cut])
        begun, end = max(end for end in ends if end <= here), min((end for end in ends if end > here), default=here)
        known = here - begun >= 14 or (here == begun and cut - here >= 4 and end - begun < 65536)
        if decoder.ends_here() or known:
            assert decoder.ends_here() == (cut <= end)
        decoder.deliver(lambda message: True)
        here = cut


def test_who_wants_no_more_leaves_the_rest() -> None:
    """Refusing after a message, failing in one: what follows is there the next time, and what was fed since behind."""
    taken: list[bytes] = []

    def take(message: bytes) -> bool:
        taken.append(message)
        if message == b"bad":
            raise ZeroDivisionError
        return message != b"stop"

    decoder = Decoder(False, LIMIT)
    decoder.feed(b"".join(encode(BINARY, part, False) for part in (b"a", b"stop", b"b", b"bad", b"c")))
    assert decoder.deliver(take) == BINARY
    assert decoder.waiting
    decoder.feed(encode(TEXT, "d", False))
    with pytest.raises(ZeroDivisionError):
        decoder.deliver(take)
    assert decoder.deliver(take) == 0
    assert taken == [b"a", b"stop", b"b", b"bad", b"c", b"d"]
    assert not decoder.waiting


def masks(count: int) -> list[bytes]:
    return [encode(BINARY, b"", True)[2:6] for _ in range(count)]


def test_masks_come_from_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """All are of the system's generator, each is used once, and it is asked for 64 at a time."""
    given: list[bytes] = []

    def urandom(size: int, generate: Callable[[int], bytes] = os.urandom) -> bytes:
        given.append(generate(size))
        return given[-1]

    monkeypatch.setattr(os, "urandom", urandom)
    masks(64)
    used = masks(128)
    assert len(given) == 3
    store = b"".join(given)
    assert set(used) <= {store[i : i + 4] for i in range(0, len(store), 4)}
    assert len(set(used)) > 126  # of 2³² values, two may be the same by chance


def test_a_thread_has_masks_of_its_own() -> None:
    """One thread does not use what another does."""
    elsewhere: list[bytes] = []
    thread = threading.Thread(target=lambda: elsewhere.extend(masks(1024)))
    thread.start()
    thread.join()
    assert len(set(masks(1024)) & set(elsewhere)) < 8


FORK = """
import os
from mediaflow._wire.frames import encode

def masks(count):
    return [encode(2, b"", True)[2:6] for _ in range(count)]

masks(1)
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    os.write(writing, b"".join(masks(16)))
    os._exit(0)
os.close(writing)
theirs = os.fdopen(reading, "rb").read()
os.waitpid(child, 0)
assert len(theirs) == 64
print(len({theirs[i : i + 4] for i in range(0, 64, 4)} & set(masks(1023))))
"""


def test_a_forked_child_has_masks_of_its_own() -> None:
    """A child throws away what its parent holds (tried in a process of its own: ours may have threads)."""
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=60)
    assert done.stdout == "0\n", done.stderr
