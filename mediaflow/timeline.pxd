cdef class _Track:
    cdef public long long end, frame, repeats
    cdef public object expected_ms, chunk, skipped
    cdef public bint fresh, blind, numberless

cdef class Timeline:
    cdef long long _rate, _evidence
    cdef dict _tracks
    cdef object _chunk, _skipped        # a carrier may number as it likes, beyond 64 bits too

    cpdef place(self, str track, long long samples, chunk, timestamp_ms)
    cdef _begin(self, long long samples, timestamp_ms)
    cdef _lost(self, _Track state, chunk, bint timed)
    cdef _by_chunk(self, _Track state, lost)
    cdef _by_time(self, _Track state, lost, double late_ms)
