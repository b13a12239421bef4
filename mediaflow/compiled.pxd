cimport cython

from mediaflow._dsp.chain cimport Chain
from mediaflow.frame cimport AudioFrame, new_frame


@cython.final
cdef class Fused:
    cdef Chain _chain
    cdef object _teller, _output
    cdef Py_ssize_t _sample_bytes
    cdef tuple _rates
    cdef bint _resamples
    cdef Py_ssize_t _next
    cdef str _track

    cpdef process(self, frame)

    @cython.locals(frame=AudioFrame)
    cpdef take(self, data, str track, Py_ssize_t position)

    cpdef event(self, event)
    cpdef flush(self)
    cdef Py_ssize_t _begin(self, str track, Py_ssize_t position) except -1
