cimport cython


cdef class TrackAccount:
    cdef public long long start, end
    cdef public list concealed
    cdef public object dropped


@cython.final
cdef class _Run:
    cdef public str track
    cdef public long long start, end


@cython.final
cdef class _Runs:
    cdef readonly list runs
    cdef _Run _last

    @cython.locals(last=_Run)
    cpdef add(self, str track, Py_ssize_t start, Py_ssize_t end)


@cython.final
cdef class SinkAccount:
    cdef str _track
    cdef long long _start, _end, _sample_bytes
    cdef readonly object format
    cdef tuple _path
    cdef _Runs _written, _delivered
    cdef long long _confirmed
    cdef dict _dropped
    cdef str _closed

    @cython.locals(start=cython.longlong, track=str)
    cpdef write(self, frame)
    cdef _gather(self)
