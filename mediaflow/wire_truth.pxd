cdef class _Sound:
    cdef object _encoding, _votes
    cdef long long _window, _left
    cdef bytearray _heard
    cdef readonly bint settled

    cpdef str hear(self, bytes data)


cdef class _Clock:
    cdef long long _rate, _samples, _steps
    cdef object _last_ms
    cdef list _rates
    cdef readonly bint settled

    cpdef str tick(self, long long samples, timestamp_ms)


cdef class WireTruth:
    cdef object _format, _twins
    cdef dict _sounds, _clocks
    cdef long long _left, _sample_bytes

    cpdef list hear(self, str track, bytes data, timestamp_ms)
