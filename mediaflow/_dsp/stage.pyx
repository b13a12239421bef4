"""What a stage does unless it says otherwise: PCM goes through as it is.

The output of a frame is needed only until the next stage has read it, so all chains of a thread put it into the same
two rooms, in turn. Those stay in the cache, where room of each stage's own would come from memory once there are
hundreds of calls, and would take a kilobyte of each.
"""

from libc.stdlib cimport free, realloc

from mediaflow._dsp.kernels cimport LENT, mediaflow_lent


cdef class Stage:
    """One compiled step of a `Chain`; ``mediaflow/_dsp/stage.pxd`` tells how to write one."""

    def __cinit__(self, *_arguments, **_options):
        self.bytes_in = self.bytes_out = 2

    def __dealloc__(self):
        free(self._own)

    cdef char *output(self, const Span *data, Py_ssize_t size) except NULL nogil:
        cdef char *grown
        if size <= LENT:
            return mediaflow_lent(data.start)
        if size > self._own_size:
            grown = <char *>realloc(self._own, size)
            if grown == NULL:
                with gil:
                    raise MemoryError
            self._own = grown
            self._own_size = size
        return self._own

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
