"""G.711, the telephone network's 8-bit logarithmic sample codes.

A code is a sign, a 3-bit segment and a 4-bit step inside it; every segment is twice as coarse as
the one below, so the error stays near 1/32 of the sample whatever its size. Two laws share that
shape and differ in the details:

              samples   bias       bits inverted   used in
    µ-law     14-bit    33 added   all             North America, Japan
    A-law     13-bit    none       every second    everywhere else, India included

16-bit PCM keeps those samples in its upper bits. There are only 256 codes, so expanding is a
look-up in 512 bytes. Compressing drops the 2 (µ) or 3 (A) low bits first, which leaves 16384 or
8192 inputs: a look-up again, without the unpredictable branches that searching for the segment
costs on noise.

Reference: ITU-T G.711 (11/88), tables 1a to 2b.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int16_t, uint8_t

from mediaflow._dsp.span cimport Span, hold_codes, hold_output, hold_pcm

cdef enum:
    MULAW_DROPPED = 2       # low bits of a 16-bit sample that the law does not see
    ALAW_DROPPED = 3
    MULAW_INPUTS = 1 << (16 - MULAW_DROPPED)
    ALAW_INPUTS = 1 << (16 - ALAW_DROPPED)
    MULAW_BIAS = 33         # makes every segment start at a power of two
    MULAW_CLIP = 8191 - MULAW_BIAS      # so that the biased magnitude stays in 13 bits

# Filled below at import, constant afterwards. Encoder tables are indexed by the shortened sample
# plus half the table, so that a negative one needs no test.
cdef int16_t MULAW_TO_PCM[256]
cdef int16_t ALAW_TO_PCM[256]
cdef uint8_t PCM_TO_MULAW[MULAW_INPUTS]
cdef uint8_t PCM_TO_ALAW[ALAW_INPUTS]


cdef int16_t _expand_mulaw(int code) noexcept nogil:
    code ^= 0xFF
    cdef int segment = (code >> 4) & 7
    cdef int magnitude = (((code & 0x0F) * 2 + MULAW_BIAS) << segment) - MULAW_BIAS
    return (-magnitude if code & 0x80 else magnitude) * (1 << MULAW_DROPPED)


cdef int16_t _expand_alaw(int code) noexcept nogil:
    code ^= 0x55
    cdef int segment = (code >> 4) & 7
    cdef int magnitude = (code & 0x0F) * 2 + 1      # the middle of the step
    if segment:
        magnitude = (magnitude + 32) << (segment - 1)
    return (magnitude if code & 0x80 else -magnitude) * (1 << ALAW_DROPPED)


cdef int _segment(int magnitude, int first) noexcept nogil:
    """Count the doublings of ``first`` that ``magnitude`` has reached."""
    cdef int segment = 0
    while magnitude >= first << segment:
        segment += 1
    return segment


cdef uint8_t _compress_mulaw(int sample) noexcept nogil:
    cdef int sign = 0x80 if sample < 0 else 0
    cdef int magnitude = min(-sample if sample < 0 else sample, MULAW_CLIP) + MULAW_BIAS
    cdef int segment = _segment(magnitude, 64)
    cdef int step = (magnitude >> (segment + 1)) & 0x0F
    return (sign | segment << 4 | step) ^ 0xFF


cdef uint8_t _compress_alaw(int sample) noexcept nogil:
    cdef int sign = 0 if sample < 0 else 0x80
    cdef int magnitude = -sample - 1 if sample < 0 else sample      # -1 mirrors 0: no sample is zero
    cdef int segment = _segment(magnitude, 32)
    cdef int step = (magnitude >> max(segment, 1)) & 0x0F
    return (sign | segment << 4 | step) ^ 0x55


cdef void _fill_tables() noexcept nogil:
    cdef int i
    for i in range(256):
        MULAW_TO_PCM[i] = _expand_mulaw(i)
        ALAW_TO_PCM[i] = _expand_alaw(i)
    for i in range(MULAW_INPUTS):
        PCM_TO_MULAW[i] = _compress_mulaw(i - MULAW_INPUTS // 2)
    for i in range(ALAW_INPUTS):
        PCM_TO_ALAW[i] = _compress_alaw(i - ALAW_INPUTS // 2)


_fill_tables()


cdef void _expand(const uint8_t *codes, int16_t *pcm, Py_ssize_t count, const int16_t *table) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(count):
        pcm[i] = table[codes[i]]


cdef void _compress(
    const int16_t *pcm, uint8_t *codes, Py_ssize_t count, const uint8_t *table, int dropped
) noexcept nogil:
    cdef Py_ssize_t i
    cdef int half = 0x8000 >> dropped
    for i in range(count):
        codes[i] = table[(pcm[i] >> dropped) + half]


cdef bytes _decode(object data, const int16_t *table):
    cdef Span codes
    cdef object _held = hold_codes(data, "data", &codes)
    cdef bytes pcm = PyBytes_FromStringAndSize(NULL, 2 * codes.size)
    _expand(<const uint8_t *>codes.start, <int16_t *>PyBytes_AS_STRING(pcm), codes.size, table)
    return pcm


cdef Py_ssize_t _decode_into(object data, object out, const int16_t *table) except -1:
    cdef Span codes, pcm
    cdef object _held = hold_codes(data, "data", &codes)
    cdef object _target = hold_output(out, 2 * codes.size, True, &pcm)
    _expand(<const uint8_t *>codes.start, <int16_t *>pcm.start, codes.size, table)
    return codes.size


cdef bytes _encode(object data, const uint8_t *table, int dropped):
    cdef Span pcm
    cdef object _held = hold_pcm(data, "pcm", &pcm)
    cdef bytes codes = PyBytes_FromStringAndSize(NULL, pcm.size // 2)
    _compress(<const int16_t *>pcm.start, <uint8_t *>PyBytes_AS_STRING(codes), pcm.size // 2, table, dropped)
    return codes


cdef Py_ssize_t _encode_into(object data, object out, const uint8_t *table, int dropped) except -1:
    cdef Span codes, pcm
    cdef object _held = hold_pcm(data, "pcm", &pcm)
    cdef object _target = hold_output(out, pcm.size // 2, False, &codes)
    _compress(<const int16_t *>pcm.start, <uint8_t *>codes.start, pcm.size // 2, table, dropped)
    return pcm.size // 2


def mulaw_decode(data) -> bytes:
    """Expand µ-law codes, one byte each, to as many 16-bit samples (ITU-T G.711, table 2)."""
    return _decode(data, MULAW_TO_PCM)


def mulaw_decode_into(data, out) -> int:
    """Expand µ-law codes into ``out``, a writable buffer of at least two bytes per code.

    Returns the number of samples written. ``out`` must not overlap ``data``.
    """
    return _decode_into(data, out, MULAW_TO_PCM)


def mulaw_encode(pcm) -> bytes:
    """Compress 16-bit samples to µ-law codes, one byte each (ITU-T G.711, table 2).

    Samples beyond the law's end, ±32635, clip to its last code.
    """
    return _encode(pcm, PCM_TO_MULAW, MULAW_DROPPED)


def mulaw_encode_into(pcm, out) -> int:
    """Compress 16-bit samples into ``out``, a writable buffer of at least one byte per sample.

    Returns the number of codes written. ``out`` must not overlap ``pcm``.
    """
    return _encode_into(pcm, out, PCM_TO_MULAW, MULAW_DROPPED)


def alaw_decode(data) -> bytes:
    """Expand A-law codes, one byte each, to as many 16-bit samples (ITU-T G.711, table 1)."""
    return _decode(data, ALAW_TO_PCM)


def alaw_decode_into(data, out) -> int:
    """Expand A-law codes into ``out``, a writable buffer of at least two bytes per code.

    Returns the number of samples written. ``out`` must not overlap ``data``.
    """
    return _decode_into(data, out, ALAW_TO_PCM)


def alaw_encode(pcm) -> bytes:
    """Compress 16-bit samples to A-law codes, one byte each (ITU-T G.711, table 1)."""
    return _encode(pcm, PCM_TO_ALAW, ALAW_DROPPED)


def alaw_encode_into(pcm, out) -> int:
    """Compress 16-bit samples into ``out``, a writable buffer of at least one byte per sample.

    Returns the number of codes written. ``out`` must not overlap ``pcm``.
    """
    return _encode_into(pcm, out, PCM_TO_ALAW, ALAW_DROPPED)
