# cython: binding=False, embedsignature.format=clinic
"""G.711, the telephone network's 8-bit logarithmic sample codes.

A code is a sign, a 3-bit segment and a 4-bit step inside it; every segment is twice as coarse as
the one below, so the error stays near 1/32 of the sample whatever its size. Two laws share that
shape and differ in the details:

              samples   bias       bits inverted   used in
    µ-law     14-bit    33 added   all             North America, Japan
    A-law     13-bit    none       every second    everywhere else, India included

16-bit PCM keeps those samples in its upper bits. `g711_kernel.c` computes both ways on vectors; here
are the arguments. A call with a frame of 20 ms costs about 20 ns, of which 4 to 10 are the kernel's:
the rest is the call itself and the new ``bytes``. So the functions are plain built-ins (binding=False),
which saves 4 ns, and none of them releases the GIL, which would cost more.

Reference: ITU-T G.711 (11/88), tables 1a to 2b.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from mediaflow._dsp.kernels cimport (
    Kernel,
    mediaflow_alaw_decode,
    mediaflow_alaw_encode,
    mediaflow_mulaw_decode,
    mediaflow_mulaw_encode,
)
from mediaflow._dsp.span cimport Span, hold_codes, hold_output, hold_pcm
from mediaflow._dsp.stage cimport Stage


cdef bytes _decode(object data, Kernel kernel):
    cdef Span codes
    cdef object _held = hold_codes(data, "data", &codes)
    cdef bytes pcm = PyBytes_FromStringAndSize(NULL, 2 * codes.size)
    kernel(codes.start, PyBytes_AS_STRING(pcm), codes.size)
    return pcm


cdef Py_ssize_t _decode_into(object data, object out, Kernel kernel) except -1:
    cdef Span codes, pcm
    cdef object _held = hold_codes(data, "data", &codes)
    cdef object _target = hold_output(out, 2 * codes.size, True, &pcm)
    kernel(codes.start, pcm.start, codes.size)
    return codes.size


cdef bytes _encode(object data, Kernel kernel):
    cdef Span pcm
    cdef object _held = hold_pcm(data, "pcm", &pcm)
    cdef bytes codes = PyBytes_FromStringAndSize(NULL, pcm.size // 2)
    kernel(pcm.start, PyBytes_AS_STRING(codes), pcm.size // 2)
    return codes


cdef Py_ssize_t _encode_into(object data, object out, Kernel kernel) except -1:
    cdef Span codes, pcm
    cdef object _held = hold_pcm(data, "pcm", &pcm)
    cdef object _target = hold_output(out, pcm.size // 2, False, &codes)
    kernel(pcm.start, codes.start, pcm.size // 2)
    return pcm.size // 2


def mulaw_decode(data) -> bytes:
    """Expand µ-law codes, one byte each, to as many 16-bit samples (ITU-T G.711, table 2)."""
    return _decode(data, mediaflow_mulaw_decode)


def mulaw_decode_into(data, out) -> int:
    """Expand µ-law codes into ``out``, a writable buffer of at least two bytes per code.

    Returns the number of samples written. ``out`` must not overlap ``data``.
    """
    return _decode_into(data, out, mediaflow_mulaw_decode)


def mulaw_encode(pcm) -> bytes:
    """Compress 16-bit samples to µ-law codes, one byte each (ITU-T G.711, table 2).

    Samples beyond the law's end, ±32635, clip to its last code.
    """
    return _encode(pcm, mediaflow_mulaw_encode)


def mulaw_encode_into(pcm, out) -> int:
    """Compress 16-bit samples into ``out``, a writable buffer of at least one byte per sample.

    Returns the number of codes written. ``out`` must not overlap ``pcm``.
    """
    return _encode_into(pcm, out, mediaflow_mulaw_encode)


def alaw_decode(data) -> bytes:
    """Expand A-law codes, one byte each, to as many 16-bit samples (ITU-T G.711, table 1)."""
    return _decode(data, mediaflow_alaw_decode)


def alaw_decode_into(data, out) -> int:
    """Expand A-law codes into ``out``, a writable buffer of at least two bytes per code.

    Returns the number of samples written. ``out`` must not overlap ``data``.
    """
    return _decode_into(data, out, mediaflow_alaw_decode)


def alaw_encode(pcm) -> bytes:
    """Compress 16-bit samples to A-law codes, one byte each (ITU-T G.711, table 1)."""
    return _encode(pcm, mediaflow_alaw_encode)


def alaw_encode_into(pcm, out) -> int:
    """Compress 16-bit samples into ``out``, a writable buffer of at least one byte per sample.

    Returns the number of codes written. ``out`` must not overlap ``pcm``.
    """
    return _encode_into(pcm, out, mediaflow_alaw_encode)


cdef class Codec(Stage):
    """One direction of one law as a stage of a chain."""

    cdef Kernel _kernel

    cdef int feed(self, Span *data) except -1 nogil:
        cdef Py_ssize_t count = data.size // self.bytes_in
        cdef char *out = self.output(data, count * self.bytes_out)
        self._kernel(data.start, out, count)
        data.start, data.size = out, count * self.bytes_out
        return 0


cdef Stage codec(object function):
    """Return the stage that does what one of the four plain functions does, or None."""
    cdef Codec made = Codec.__new__(Codec)
    if function is mulaw_decode:
        made._kernel = mediaflow_mulaw_decode
    elif function is alaw_decode:
        made._kernel = mediaflow_alaw_decode
    elif function is mulaw_encode:
        made._kernel = mediaflow_mulaw_encode
    elif function is alaw_encode:
        made._kernel = mediaflow_alaw_encode
    else:
        return None
    if function is mulaw_decode or function is alaw_decode:
        made.bytes_in = 1
    else:
        made.bytes_out = 1
    return made
