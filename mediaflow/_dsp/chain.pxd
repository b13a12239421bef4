"""A chain, for modules that call it without Python."""

from mediaflow._dsp.span cimport Span
from mediaflow._dsp.stage cimport Stage

cdef class Chain:
    cdef readonly tuple stages
    cdef Stage _first

    cdef object _borrow(self, object data, Span *span)
    cpdef bytes process(self, object data)
    cpdef bint news(self)
