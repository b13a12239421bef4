cimport cython


@cython.final
cdef class OrderedSession:
    cdef object _session, _decided, _finder
    cdef bint _swap, _settled, _released
    cdef list _held

    cpdef bint push(self, bytes data, str track) except -1
    cdef bint _in_turn(self, action) except -1
    cpdef bint _play(self, bytes data, str track) except -1
