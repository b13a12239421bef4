"""What a speech detector has found, written without the GIL."""

from libc.stdint cimport int64_t

cdef enum:
    FEW = 2

cdef struct Verdict:
    double score
    bint speech

cdef struct Mark:
    bint started
    int64_t position

cdef class VadResult:
    cdef Verdict _few_verdicts[FEW]     # a frame at a time needs no other memory
    cdef Mark _few_marks[FEW]
    cdef Verdict *_verdicts
    cdef Mark *_marks
    cdef int64_t _verdict_count, _verdict_room, _mark_count, _mark_room

    cdef int add_verdict(self, double score, bint speech) except -1 nogil
    cdef int add_mark(self, bint started, int64_t position) except -1 nogil
    cdef bint keep_marks(self) noexcept nogil
