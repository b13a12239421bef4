cimport cython


cdef class _Sound:
    cdef object _encoding, _votes
    cdef long long _window, _left, _patience, _eager, _rest, _resting
    cdef bytearray _heard
    cdef readonly bint settled

    cpdef bint rests(self, Py_ssize_t size) except -1
    cpdef Py_ssize_t rest(self) except -1
    cpdef str hear(self, bytes data)


cdef class _Clock:
    cdef long long _rate, _samples, _steps
    cdef object _last_ms
    cdef list _rates
    cdef readonly bint settled

    cpdef str tick(self, long long samples, timestamp_ms)


cdef class _Ear:
    cdef public _Sound sound
    cdef public _Clock clock


@cython.final
cdef class WireTruth:
    cdef object _format, _twins
    cdef tuple _tracks, _ears
    cdef long long _left, _sample_bytes

    @cython.locals(ear=_Ear, size=Py_ssize_t)
    cpdef Py_ssize_t rest(self) except -1

    @cython.locals(ear=_Ear, clock=_Clock, sound=_Sound)
    cpdef list hear(self, str track, bytes data, timestamp_ms)
