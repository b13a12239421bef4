"""Signal processing on 16-bit mono samples, compiled: the one door to `mediaflow._dsp`.

Everywhere in this module *pcm* means signed 16-bit little-endian samples, as ``bytes`` (the fastest)
or as any one-dimensional C-contiguous buffer of bytes or int16: ``bytearray``, ``memoryview``, a
numpy array. Results are ``bytes``. Items of another format raise ``TypeError``, odd byte counts and
wrong sizes ``ValueError``. Nothing here imports numpy.
"""

from mediaflow._dsp.chain import Chain
from mediaflow._dsp.chunks import speech_chunks
from mediaflow._dsp.findings import VadEvent, VadResult
from mediaflow._dsp.g711 import (
    alaw_decode,
    alaw_decode_into,
    alaw_encode,
    alaw_encode_into,
    mulaw_decode,
    mulaw_decode_into,
    mulaw_encode,
    mulaw_encode_into,
)
from mediaflow._dsp.pcm import (
    deinterleave,
    guess_byte_order,
    interleave,
    mix,
    rms_dbfs,
    roughness,
    swap_bytes,
    unevenness,
    varied,
)
from mediaflow._dsp.resample import Resampler
from mediaflow._dsp.stage import Stage
from mediaflow._dsp.vad import EnergyVad

__all__ = [
    "Chain",
    "EnergyVad",
    "Resampler",
    "Stage",
    "VadEvent",
    "VadResult",
    "alaw_decode",
    "alaw_decode_into",
    "alaw_encode",
    "alaw_encode_into",
    "deinterleave",
    "guess_byte_order",
    "interleave",
    "mix",
    "mulaw_decode",
    "mulaw_decode_into",
    "mulaw_encode",
    "mulaw_encode_into",
    "rms_dbfs",
    "roughness",
    "speech_chunks",
    "swap_bytes",
    "unevenness",
    "varied",
]
