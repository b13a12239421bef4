cimport cython


@cython.final
cdef class AudioFrame:
    cdef readonly bytes data
    cdef readonly object format
    cdef readonly str track
    cdef readonly long long position


@cython.locals(frame=AudioFrame)
cpdef AudioFrame new_frame(data, format, str track, long long position)
