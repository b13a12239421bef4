from mediaflow._dsp.chain cimport Chain

cdef class Fused:
    cdef Chain _chain
    cdef object _teller, _output
    cdef Py_ssize_t _sample_bytes
    cdef tuple _rates
    cdef bint _resamples
    cdef long long _next
    cdef str _track

    cpdef process(self, frame)
    cpdef take(self, data, str track, long long position)
    cpdef event(self, event)
    cpdef flush(self)
    cdef long long _begin(self, str track, long long position) except -1
