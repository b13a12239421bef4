# cython: language_level=3, freethreading_compatible=True
"""A stage that makes a signal louder, as a plugin would write it: the example of the C-level contract."""

from libc.stdint cimport int16_t, int32_t
from libc.stdlib cimport free, realloc

from mediaflow._dsp.stage cimport Span, Stage


cdef class Gain(Stage):
    """Multiply 16-bit samples by ``factor`` and saturate."""

    cdef int factor
    cdef int16_t *out
    cdef Py_ssize_t room

    def __cinit__(self, int factor):
        self.factor = factor

    def __dealloc__(self):
        free(self.out)

    cdef int feed(self, Span *data) except -1 nogil:
        cdef Py_ssize_t i, count = data.size // 2
        cdef const int16_t *pcm = <const int16_t *>data.start
        cdef int32_t sample
        cdef void *grown
        if count > self.room:
            grown = realloc(self.out, count * sizeof(int16_t))
            if grown == NULL:
                with gil:
                    raise MemoryError
            self.out = <int16_t *>grown
            self.room = count
        for i in range(count):
            sample = pcm[i] * self.factor
            self.out[i] = <int16_t>(32767 if sample > 32767 else -32768 if sample < -32768 else sample)
        data.start = <char *>self.out
        return 0
