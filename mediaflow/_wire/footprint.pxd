"""The footprint of a socket, for the poller."""

from libc.stdint cimport uintptr_t

cdef struct Footprint:
    uintptr_t *runs             # of cache lines: where each begins, and in the lowest bits how many they are
    int count

cdef int footprint_find(Footprint *footprint, object root) except -1
cdef void footprint_fetch(const Footprint *footprint) noexcept nogil
cdef void footprint_free(Footprint *footprint) noexcept nogil
cdef list footprint_runs(const Footprint *footprint)
