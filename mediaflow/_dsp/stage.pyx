"""What a stage does unless it says otherwise: PCM goes through as it is."""


cdef class Stage:
    """One compiled step of a `Chain`; ``mediaflow/_dsp/stage.pxd`` tells how to write one."""

    def __cinit__(self, *_arguments, **_options):
        self.bytes_in = self.bytes_out = 2

    cdef int feed(self, Span *data) except -1 nogil:
        return 0

    cdef int finish(self, Span *data) except -1 nogil:
        return 0

    cdef void restart(self) noexcept nogil:
        pass

    cdef bint news(self) noexcept nogil:
        return False

    cdef double delay(self) noexcept nogil:
        return 0.0
