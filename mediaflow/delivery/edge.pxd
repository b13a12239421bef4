cimport cython

from mediaflow.delivery.account cimport SinkAccount
from mediaflow.frame cimport AudioFrame


@cython.final
cdef class Edge:
    # What every frame asks for, side by side in memory.
    cdef readonly object failure
    cdef readonly SinkAccount account
    cdef object _writer, _write_nowait, _work
    cdef long long _bound, _queued
    cdef bint _busy, _blocks

    cdef bint _closing, _stays, _left, _running
    cdef readonly bint over
    cdef readonly str label
    cdef object _sink, _stream, _format, _tracks, _owner, _queue, _block, _scope, _late, _room
    cdef tuple _beside
    cdef double _deadline

    cpdef bint full(self) except -1

    @cython.locals(frame=AudioFrame)
    cpdef put(self, item)
