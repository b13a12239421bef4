cimport cython


cdef class TrackAccount:
    cdef public long long start, end
    cdef public list concealed
    cdef public object dropped


cdef class _Runs:
    cdef readonly list runs

    cpdef add(self, str track, long long start, long long end)


@cython.final
cdef class SinkAccount:
    cdef readonly object format
    cdef tuple _path
    cdef _Runs _written, _delivered
    cdef long long _confirmed, _sample_bytes
    cdef dict _dropped
    cdef str _closed

    @cython.locals(start=Py_ssize_t)
    cpdef write(self, frame)
