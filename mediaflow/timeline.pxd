cimport cython

cdef double GAP_FRAMES, ROUNDING_MS, PAUSE_MS, REPLAY_MS, LONGEST_GAP_MS, _FOLLOW, _WHOLE_FRAMES, _NO_TIME
cdef long long FRAME_MS, _LONGEST_REPLAY, _CERTAIN, _LARGEST, _LARGEST_MS, _BACK, _UNKNOWN


cdef class _Track:
    cdef public long long end, frame, repeats, chunk, skipped
    cdef public double expected_ms, left_ms
    cdef public bint fresh, blind, numberless, numbered


@cython.final
cdef class Timeline:
    cdef long long _rate, _evidence, _chunk, _skipped
    cdef bint _numbered
    cdef dict _tracks
    cdef _Track _last
    cdef str _name
    cdef object _elapsed_ms

    @cython.locals(timed=bint)
    cpdef place(self, str track, long long samples, chunk, timestamp_ms)

    @cython.locals(state=_Track, stamp_ms=double, advance=cython.longlong)
    cpdef put(self, str track, long long samples, bint numbered, long long number, bint timed, long long timestamp_ms)

    @cython.locals(other=_Track, ahead_ms=double, timed=bint)
    cdef _begin(self, long long samples, double stamp_ms)

    @cython.locals(each=_Track, missing_ms=double, shift_ms=double)
    cdef bint _set_clock(self, _Track state, long long samples, double stamp_ms) except -1

    @cython.locals(own=cython.longlong, whole=cython.longlong)
    cdef Py_ssize_t _lost(self, _Track state, bint numbered, long long number, bint timed) except? -99
    cdef _by_chunk(self, _Track state, long long lost)

    @cython.locals(late_ms=double, frame_ms=double, slack_ms=double, new=bint, near=double, whole=bint,
                   frames=cython.longlong, missing=cython.longlong)
    cdef _by_time(self, _Track state, long long lost, long long samples, double stamp_ms)


@cython.locals(number=Py_ssize_t)
cpdef Py_ssize_t number(chunk) except? -99
