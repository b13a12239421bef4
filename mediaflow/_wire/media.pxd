"""The reader of media messages for code that cimports it."""

from libc.stdint cimport int64_t


cdef class Plain:
    cdef public bytes payload
    cdef readonly str track
    cdef readonly bint numbered, timed
    cdef readonly int64_t chunk, timestamp_ms

    cpdef bint read(self, message) except -1
