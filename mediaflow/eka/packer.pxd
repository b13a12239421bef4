cimport cython


@cython.final
cdef class Packer:
    cdef readonly Py_ssize_t size, sent, waiting
    cdef list _pieces
    cdef object _send

    @cython.locals(size=Py_ssize_t)
    cpdef bint put(self, bytes data) except -1
    cdef bint _split(self, bytes data) except -1
    cdef _go_on(self, Py_ssize_t sent, bytes rest)
    cpdef keep(self, bytes data)
