"""What every function of `mediaflow.dsp` shares: its arguments, its independence, its documentation."""

from __future__ import annotations

import array
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from mediaflow import dsp

VALUES = [0, 1, -1, 300, -32768, 32767]
BYTES = np.array(VALUES, "<i2").tobytes()

TAKE_PCM: list[Callable[..., object]] = [
    dsp.mulaw_encode,
    dsp.alaw_encode,
    dsp.swap_bytes,
    dsp.rms_dbfs,
    dsp.guess_byte_order,
    lambda pcm: dsp.mix(pcm, BYTES),
    lambda pcm: dsp.interleave(BYTES, pcm),
    lambda pcm: dsp.deinterleave(pcm, 2),
    lambda pcm: dsp.Resampler(8000, 16000).process(pcm),
    lambda pcm: dsp.Resampler(8000, 8000).process(pcm),
    lambda pcm: dsp.EnergyVad(8000).process(pcm),
    lambda pcm: dsp.Chain([dsp.Resampler(8000, 16000), dsp.EnergyVad(16000)]).process(pcm),
    lambda pcm: dsp.speech_chunks(pcm, 8000),
]
NAMES = [
    "mulaw",
    "alaw",
    "swap",
    "rms",
    "order",
    "mix",
    "interleave",
    "deinterleave",
    "resample",
    "pass",
    "vad",
    "chain",
    "cut",
]


@pytest.mark.parametrize("function", TAKE_PCM, ids=NAMES)
@pytest.mark.parametrize(
    "buffer",
    [
        bytearray(BYTES),
        memoryview(BYTES),
        memoryview(b"x" + BYTES)[1:],
        memoryview(BYTES).cast("h"),
        array.array("h", VALUES),
        np.array(VALUES, np.int16),
        np.frombuffer(BYTES, np.uint8),
    ],
    ids=["bytearray", "memoryview", "odd address", "cast", "array", "int16", "uint8"],
)
def test_buffers_equal_bytes(function: Callable[..., object], buffer: object) -> None:
    """Any contiguous buffer of bytes or int16 counts like the same bytes, at any address."""
    assert function(buffer) == function(BYTES)


@pytest.mark.parametrize("function", TAKE_PCM, ids=NAMES)
@pytest.mark.parametrize(
    ("buffer", "error", "message"),
    [
        ("text", TypeError, "must be bytes or another buffer, not str"),
        (None, TypeError, "must be bytes or another buffer, not NoneType"),
        (np.zeros(6, np.float32), TypeError, "must hold bytes or native int16, not items of format 'f'"),
        (np.zeros(6, np.uint16), TypeError, "must hold bytes or native int16, not items of format 'H'"),
        (np.zeros(6, ">i2"), TypeError, "must hold bytes or native int16, not items of format '>h'"),
        (np.zeros((3, 2), np.int16), ValueError, "must have one dimension, not 2"),
        (np.zeros(12, np.int16)[::2], ValueError, "must be C-contiguous, not a strided view"),
        (b"abc", ValueError, "holds 3 bytes, not a whole number of 16-bit samples"),
        (bytearray(b"abc"), ValueError, "holds 3 bytes, not a whole number of 16-bit samples"),
    ],
)
def test_what_is_no_pcm(function: Callable[..., object], buffer: object, error: type[Exception], message: str) -> None:
    """Other objects, items and shapes are refused with what was found and what was expected."""
    with pytest.raises(error, match=message):
        function(buffer)


def test_codes_are_bytes() -> None:
    """A decoder takes any buffer of bytes, and no int16."""
    assert dsp.mulaw_decode(bytearray(b"abc")) == dsp.mulaw_decode(b"abc")
    with pytest.raises(TypeError, match="data must hold bytes, not items of format 'h'"):
        dsp.mulaw_decode(np.zeros(3, np.int16).data)


def test_buffers_are_let_go() -> None:
    """A bytearray can be resized as soon as the call has returned."""
    buffer = bytearray(BYTES)

    dsp.mulaw_encode(buffer)
    dsp.Resampler(8000, 16000).process(buffer)
    dsp.mulaw_decode_into(b"abc", buffer)

    buffer.clear()


def test_numpy_stays_out() -> None:
    """Importing and using the module does not import numpy."""
    program = """
import sys
from mediaflow import dsp
pcm = dsp.mulaw_decode(bytes(800))
resampler = dsp.Resampler(8000, 44100, "strict")
resampler.process(pcm), resampler.flush()
dsp.Resampler(8001, 16000).process(pcm)
dsp.EnergyVad(8000).process(dsp.mix(pcm, pcm))
dsp.guess_byte_order(pcm), dsp.rms_dbfs(pcm)
assert "numpy" not in sys.modules, "numpy was imported"
"""
    subprocess.run([sys.executable, "-P", "-c", program], check=True)  # -P: not from the current folder


@pytest.mark.parametrize("name", dsp.__all__)
def test_everything_is_documented(name: str) -> None:
    """Each public name has a docstring of its own."""
    documentation = getattr(dsp, name).__doc__ or ""

    # Cython puts the signature in the first line; a sentence ends with a full stop.
    assert any(line.endswith(".") for line in documentation.splitlines()), documentation


def test_exports_are_sorted_and_complete() -> None:
    """`__all__` names exactly what the module brings in."""
    assert dsp.__all__ == sorted(dsp.__all__)
    assert set(dsp.__all__) == {name for name in vars(dsp) if not name.startswith("_")}
