cimport cython

from mediaflow.delivery.account cimport SinkAccount


@cython.final
cdef class Edge:
    cdef readonly str label
    cdef readonly SinkAccount account
    cdef readonly object failure, outcome
    cdef object _sink, _stream, _format, _tracks, _failed, _note, _queue, _writer, _scope, _work, _room
    cdef long long _bound, _queued
    cdef bint _busy, _closing, _blocks

    cpdef bint full(self) except -1
    cpdef put(self, item)
