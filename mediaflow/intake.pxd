cimport cython

from mediaflow._wire.media cimport Plain
from mediaflow.ordered_session cimport OrderedSession
from mediaflow.timeline cimport Timeline
from mediaflow.wire_truth cimport WireTruth

cdef Plain _plain
cdef long long BARREN


@cython.final
cdef class Intake:
    cdef readonly double heard
    cdef readonly bint said_stop
    cdef bint _unseen, _straight
    cdef object _push, _session, _reorder
    cdef Timeline _timeline
    cdef WireTruth _truth
    cdef long long _sample_bytes, _barren, _deaf
    cdef str _default_track
    cdef tuple _tracks
    cdef OrderedSession _ordered
    cdef public object answered
    cdef object _dialect, _engine
    cdef str _call, _numbering

    @cython.locals(plain=Plain, data=bytes, room=bint)
    cpdef bint take(self, text) except -1
    cdef bint _take_any(self, text) except -1

    @cython.locals(size=Py_ssize_t, samples=Py_ssize_t, rest=Py_ssize_t)
    cdef bint _audio(
        self, bytes data, str track, bint numbered, long long number, bint timed, long long timestamp_ms
    ) except -1
    cdef _listen(self, WireTruth truth, str track, bytes data, timestamp_ms)
    cdef bint _order(self, bytes data, str track) except -1
    cdef bint _move(self, str track, place) except -1
