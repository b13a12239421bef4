# cython: language_level=3, freethreading_compatible=True
"""A stage that makes a signal louder, as a plugin would write it: the example of the C-level contract."""

from libc.stdint cimport int16_t, int32_t

from mediaflow._dsp.stage cimport Span, Stage


cdef class Gain(Stage):
    """Multiply 16-bit samples by ``factor`` and saturate."""

    cdef int factor

    def __cinit__(self, int factor):
        self.factor = factor

    cdef int feed(self, Span *data) except -1 nogil:
        cdef Py_ssize_t i, count = data.size // 2
        cdef const int16_t *pcm = <const int16_t *>data.start
        cdef int16_t *out = <int16_t *>self.output(data, data.size)
        cdef int32_t sample
        for i in range(count):
            sample = pcm[i] * self.factor
            out[i] = <int16_t>(32767 if sample > 32767 else -32768 if sample < -32768 else sample)
        data.start = <char *>out
        return 0
