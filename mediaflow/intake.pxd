cimport cython

from mediaflow._wire.media cimport Plain
from mediaflow.ordered_session cimport OrderedSession
from mediaflow.timeline cimport Timeline


@cython.final
cdef class Intake:
    cdef readonly double heard
    cdef readonly bint said_stop
    cdef bint _unseen, _straight
    cdef public object answered
    cdef str _call, _default_track, _numbering
    cdef object _dialect, _session, _engine, _reorder, _truth
    cdef Plain _plain
    cdef tuple _tracks
    cdef OrderedSession _ordered
    cdef Timeline _timeline
    cdef long long _sample_bytes, _barren, _deaf

    @cython.locals(plain=Plain, data=bytes, room=bint)
    cpdef bint take(self, text) except -1
    cdef bint _take_any(self, text) except -1

    @cython.locals(size=Py_ssize_t, samples=Py_ssize_t, rest=Py_ssize_t)
    cdef bint _audio(
        self, bytes data, str track, bint numbered, long long number, bint timed, long long timestamp_ms
    ) except -1
    cdef bint _order(self, bytes data, str track) except -1
    cdef bint _move(self, str track, place) except -1
