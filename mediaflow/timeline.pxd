cimport cython


cdef class _Track:
    cdef public long long end, frame, repeats
    cdef public object expected_ms, left_ms, chunk, skipped
    cdef public bint fresh, blind, numberless


@cython.final
cdef class Timeline:
    cdef long long _rate, _evidence
    cdef dict _tracks
    cdef object _chunk, _skipped        # a carrier may number as it likes, beyond 64 bits too
    cdef object _elapsed_ms

    @cython.locals(state=_Track, timed=bint)
    cpdef place(self, str track, long long samples, chunk, timestamp_ms)

    @cython.locals(other=_Track, ahead_ms=double)
    cdef _begin(self, long long samples, timestamp_ms)

    @cython.locals(each=_Track, missing_ms=double, shift_ms=double)
    cdef bint _set_clock(self, _Track state, long long samples, timestamp_ms) except -1
    cdef _lost(self, _Track state, chunk, bint timed)
    cdef _by_chunk(self, _Track state, lost)

    @cython.locals(late_ms=double, frame_ms=double, slack_ms=double, new=bint)
    cdef _by_time(self, _Track state, lost, long long samples, timestamp_ms)
