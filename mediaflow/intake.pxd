cimport cython

from mediaflow.ordered_session cimport OrderedSession
from mediaflow.timeline cimport Timeline


@cython.final
cdef class Intake:
    cdef readonly double heard
    cdef readonly bint said_stop
    cdef bint _unseen
    cdef public double due
    cdef public object moved, answered
    cdef str _call, _default_track, _numbering
    cdef object _dialect, _session, _engine, _reorder, _truth, _text, _plain
    cdef tuple _tracks
    cdef OrderedSession _ordered
    cdef Timeline _timeline
    cdef long long _sample_bytes, _barren

    cpdef bint take(self, text) except -1
    cdef bint _take_any(self, text) except -1

    @cython.locals(size=Py_ssize_t, samples=Py_ssize_t, rest=Py_ssize_t)
    cpdef bint _audio(self, bytes data, str track, chunk, timestamp_ms) except -1
    cdef bint _move(self, str track, place) except -1
