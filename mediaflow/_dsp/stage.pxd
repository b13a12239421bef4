"""The C-level contract of a fused chain: what one stage of `mediaflow.dsp.Chain` is to the next.

A stage of your own is a Cython class that starts with

    from mediaflow._dsp.stage cimport Span, Stage

and extends ``Stage``; tests/dsp/plugin/gain.pyx is one, built out of tree by the tests. Chains call
`feed` and the others through C pointers, without the GIL for long blocks, and check at their making
only that rates and sample sizes meet. The obligations:

* `feed` gets a run of samples of any length, 0 included, and replaces ``data`` by the output. That lies in what
  `output` returned, or in memory of the stage's own, or is a part of the input. Input must not be written to, for
  another holds it, and is gone when the call returns. The same stream gives the same output however it is cut into
  runs.
* `finish` is called once at the end of a stream with an empty ``data``; it fills in what is still due.
* `restart` forgets the stream. A chain calls it after `finish` and for `Chain.reset`.
* An exception raised in one of them (``with gil: raise``) ends the call into the chain; the chain must
  then be reset.
* `news` is asked between two calls into the chain: has something been found that the owner of the stage
  should look at? What need not be looked at may be forgotten then.
"""

from mediaflow._dsp.span cimport Span

cdef class Stage:
    # Set by the constructor. 0 stands for "any rate" at the input and "the same" at the output.
    cdef readonly int rate_in
    cdef readonly int rate_out
    cdef readonly int bytes_in      # in a sample: 1 for codes, 2 for PCM
    cdef readonly int bytes_out
    cdef Stage following            # the chain's; leave it alone
    cdef bint linked
    cdef char *_own                 # for outputs longer than a frame
    cdef Py_ssize_t _own_size

    # Room for `size` bytes of output, where the input ``data`` does not lie; until the next stage has read it.
    cdef char *output(self, const Span *data, Py_ssize_t size) except NULL nogil
    cdef int feed(self, Span *data) except -1 nogil
    cdef int finish(self, Span *data) except -1 nogil
    cdef void restart(self) noexcept nogil
    cdef bint news(self) noexcept nogil
    cdef double delay(self) noexcept nogil      # seconds by which the output comes late
