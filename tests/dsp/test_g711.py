"""The codec equals the standard library's for everything that can occur."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest

from mediaflow import dsp

with warnings.catch_warnings():
    # Deprecated on 3.11 and 3.12, gone from 3.13, where audioop-lts brings the same module back.
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

Convert = Callable[..., bytes]
Into = Callable[..., int]

EVERY_CODE = bytes(range(256))
EVERY_SAMPLE = np.arange(-32768, 32768).astype("<i2").tobytes()

DECODERS = [
    pytest.param(dsp.mulaw_decode, dsp.mulaw_decode_into, audioop.ulaw2lin, id="mulaw"),
    pytest.param(dsp.alaw_decode, dsp.alaw_decode_into, audioop.alaw2lin, id="alaw"),
]
ENCODERS = [
    pytest.param(dsp.mulaw_encode, dsp.mulaw_encode_into, audioop.lin2ulaw, id="mulaw"),
    pytest.param(dsp.alaw_encode, dsp.alaw_encode_into, audioop.lin2alaw, id="alaw"),
]


@pytest.mark.parametrize(("decode", "into", "expected"), DECODERS)
def test_every_code(decode: Convert, into: Into, expected: Convert) -> None:
    """All 256 codes expand as in audioop."""
    out = bytearray(512)

    assert decode(EVERY_CODE) == expected(EVERY_CODE, 2)
    assert into(EVERY_CODE, out) == 256
    assert out == expected(EVERY_CODE, 2)


@pytest.mark.parametrize(("encode", "into", "expected"), ENCODERS)
def test_every_sample(encode: Convert, into: Into, expected: Convert) -> None:
    """All 65536 samples compress as in audioop."""
    out = bytearray(65536)

    assert encode(EVERY_SAMPLE) == expected(EVERY_SAMPLE, 2)
    assert into(EVERY_SAMPLE, out) == 65536
    assert out == expected(EVERY_SAMPLE, 2)


@pytest.mark.parametrize(
    ("code", "mulaw", "alaw"),
    [
        (0x00, -32124, -5504),
        (0x7F, 0, -848),
        (0x80, 32124, 5504),
        (0xFF, 0, 848),
        (0xD5, 716, 8),
        (0x2A, -5372, -32256),
    ],
)
def test_known_codes(code: int, mulaw: int, alaw: int) -> None:
    """Values read off the tables of G.711 hold whatever audioop says."""
    assert int.from_bytes(dsp.mulaw_decode(bytes([code])), "little", signed=True) == mulaw
    assert int.from_bytes(dsp.alaw_decode(bytes([code])), "little", signed=True) == alaw


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 159, 160, 4099])
@pytest.mark.parametrize(
    ("decode", "encode"), [(dsp.mulaw_decode, dsp.mulaw_encode), (dsp.alaw_decode, dsp.alaw_encode)]
)
def test_decoded_codes_come_back(decode: Convert, encode: Convert, count: int) -> None:
    """Any number of codes survives decoding and encoding, but for µ-law's second zero."""
    codes = bytes(i * 7 % 256 for i in range(count))
    expected = codes.replace(b"\x7f", b"\xff") if decode is dsp.mulaw_decode else codes

    assert encode(decode(codes)) == expected


@pytest.mark.parametrize(("decode", "into", "expected"), DECODERS)
def test_into_leaves_the_rest_alone(decode: Convert, into: Into, expected: Convert) -> None:
    """A larger output buffer keeps what lies behind the result, whatever its length leaves of a vector."""
    for count in range(200):
        out = bytearray(b"\x55" * 600)

        assert into(EVERY_CODE[:count], out) == count
        assert out == expected(EVERY_CODE[:count], 2) + b"\x55" * (600 - 2 * count)


def test_into_writes_arrays_and_slices() -> None:
    """The output may be an int16 array or a part of a larger buffer."""
    array = np.ones(4, np.int16)
    buffer = bytearray(8)

    dsp.alaw_decode_into(EVERY_CODE[:4], array.data)
    dsp.alaw_decode_into(EVERY_CODE[:2], memoryview(buffer)[4:])

    assert array.tobytes() == audioop.alaw2lin(EVERY_CODE[:4], 2)
    assert buffer == bytes(4) + audioop.alaw2lin(EVERY_CODE[:2], 2)


@pytest.mark.parametrize(
    ("into", "data", "out", "error", "message"),
    [
        (dsp.mulaw_decode_into, b"abc", bytearray(5), ValueError, "out holds 5 bytes, but 6 are needed"),
        (dsp.alaw_encode_into, b"abcd", bytearray(1), ValueError, "out holds 1 bytes, but 2 are needed"),
        (dsp.mulaw_decode_into, b"abc", bytes(6), TypeError, "out must be writable, and this bytes is read-only"),
        (dsp.mulaw_decode_into, b"a", memoryview(bytearray(5))[1:], ValueError, "out must start at an even address"),
        (
            dsp.mulaw_encode_into,
            b"ab",
            np.zeros(9, np.int16),
            TypeError,
            "out must hold bytes, not items of format 'h'",
        ),
        (dsp.mulaw_encode_into, b"abc", bytearray(9), ValueError, "pcm holds 3 bytes, not a whole number of 16-bit"),
    ],
)
def test_outputs_that_do_not_fit(into: Into, data: bytes, out: object, error: type[Exception], message: str) -> None:
    """An output that is too small, read-only or of the wrong kind is refused with what was found."""
    with pytest.raises(error, match=message):
        into(data, out)
