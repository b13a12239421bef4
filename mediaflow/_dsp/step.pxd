"""One filter at work on one stream: floats in, floats out."""

from libc.stdint cimport int64_t

from mediaflow._dsp.filter cimport Coefficients

cdef enum:
    BLOCK = 960         # input samples taken in at a time, at most: they and what comes of them stay in L1
    OUTPUTS = 1024      # outputs that a filter with many phases makes at a time, at most

cdef struct Step:
    const Coefficients *filter
    int64_t block               # input samples that may be taken in at a time
    float *streams              # the input that is still needed, each stream in `capacity` floats
    int64_t capacity
    int64_t first               # position in each stream of its first float here
    int64_t received, returned
    int64_t limit               # outputs that may be returned, before the rest of a stream is all zeros
    float *sums                 # outputs, each phase in `room` floats; `step_size` of them, lent by who calls
    int64_t room
    char *pcm                   # outputs of rounds that are not due as a whole; NULL before there are any

cdef int step_open(Step *step, const Coefficients *filter, int64_t block) except -1 nogil
cdef float *step_scratch() noexcept nogil
cdef int64_t step_size(const Step *step) noexcept nogil
cdef void step_close(Step *step) noexcept nogil
cdef void step_restart(Step *step) noexcept nogil
cdef int64_t step_ready(const Step *step, int64_t received) noexcept nogil
cdef int step_take(Step *step, const float *samples, int64_t count) except -1 nogil
cdef int step_take_pcm(Step *step, const char *pcm, int64_t count) except -1 nogil
cdef int64_t step_give(Step *step) noexcept nogil
cdef int64_t step_give_pcm(Step *step, char *out) except -1 nogil
