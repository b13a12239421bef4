cimport cython

from mediaflow.delivery.account cimport SinkAccount


@cython.final
cdef class Edge:
    cdef readonly str label
    cdef readonly SinkAccount account
    cdef readonly object failure
    cdef readonly bint over
    cdef object _sink, _stream, _format, _tracks, _owner, _queue, _block, _writer, _scope, _late, _work, _room
    cdef tuple _beside
    cdef double _deadline
    cdef long long _bound, _queued
    cdef bint _busy, _closing, _blocks, _stays, _left, _running

    cpdef bint full(self) except -1
    cpdef put(self, item)
