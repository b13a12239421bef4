"""Filters for changing the rate, worked out once per ratio."""

from libc.stdint cimport int64_t

from mediaflow._dsp.kernels cimport part

cdef enum Shape:
    LANES               # few phases: `parts`, sixteen outputs of one phase at a time
    ROWS                # many phases: a row of `taps` coefficients each
    TABLE               # more phases than memory: one side of the kernel, to be interpolated

cdef enum:
    RESOLUTION = 1024   # points of the table per zero crossing

cdef struct Design:
    double reach        # half the kernel, in samples of the lower rate
    double cutoff       # the middle of the transition, in lower Nyquist frequencies
    double beta         # the Kaiser window's shape
    double lift         # what a cosine adds to the sinc, relative to its middle
    double lifted       # that cosine's frequency, in lower Nyquist frequencies

cdef struct Coefficients:
    Shape shape
    int64_t up, down    # the ratio of the rates, in lowest terms
    int64_t reach       # input samples needed on each side of an output
    double scale        # input samples to samples of the lower rate, at most 1
    int64_t streams     # into which the input has to be dealt out
    int64_t taps        # of a row
    float *values
    part *parts
    int64_t back        # the earliest sample that an output needs, from its own position in the stream

cdef class Filter:
    cdef Coefficients coefficients

    cdef int _design(self, int64_t up, int64_t down, Design design) except -1
    cdef int _fill_rows(self, Design design) except -1
    cdef int _fill_table(self, Design design) except -1

cdef Filter get_filter(int64_t up, int64_t down, Design design)
cdef Design STRICT, FAST
cdef Design halving(double edge)
